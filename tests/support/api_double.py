"""An API server in memory, as far as the operator's controllers depend on one: versions, generations, subresources,
finalizers, merge patches, refusals. The real one is asked by tests/cluster.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from vectorwright.errors import Conflict, NotFound, VectorwrightError
from vectorwright.kube.client import KubeClient
from vectorwright.kube.resources import NAMESPACES, ResourceType

Body = dict[str, Any]
Listener = Callable[[str, str | None, Body], None]


@dataclass(frozen=True, slots=True)
class Write:
    """A call that changed something, or tried to."""

    verb: str
    kind: str
    name: str
    body: Body
    subresource: str | None = None


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


@dataclass
class ApiDouble:
    """Objects by kind, namespace and name. ``listeners`` get every change, as a watch would."""

    objects: dict[tuple[str, str, str], Body] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    reads: list[tuple[str, str, str]] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    before_write: Callable[[Write], VectorwrightError | None] = lambda _: None
    """Returns an error to refuse a write with; may change objects as somebody else would."""
    _versions: itertools.count[int] = field(default_factory=lambda: itertools.count(100))

    def client(self) -> KubeClient:
        """This, where a KubeClient is wanted."""
        return cast("KubeClient", self)

    def writes_of(self, kind: str, name: str | None = None) -> list[Write]:
        """The writes on objects of a kind."""
        return [write for write in self.writes if write.kind == kind and name in (None, write.name)]

    # -- what a person or another controller does --
    def apply(self, body: Body) -> Body:
        """Create an object, or change its spec and annotations, as ``kubectl apply`` does."""
        metadata = body["metadata"]
        key = (body["kind"], metadata.get("namespace", ""), metadata["name"])
        old = self.objects.get(key)
        if old is None:
            stamp = f"2026-01-01T00:{next(self._minutes):02d}:00Z"
            made = copy.deepcopy(body)
            made["metadata"] = {
                "uid": f"uid-{next(self._versions)}",
                "generation": 1,
                "creationTimestamp": stamp,
                **made["metadata"],
            }
            return self._store(key, made, "ADDED")
        given: Body = {name: copy.deepcopy(body[name]) for name in ("spec", "data") if name in body}
        changed = {**old, **given}
        changed["metadata"] = {**old["metadata"], **metadata}
        return self._store(key, self._generation(old, changed), "MODIFIED")

    _minutes: itertools.count[int] = field(default_factory=itertools.count)

    def annotate(self, kind: str, namespace: str, name: str, **annotations: str | None) -> Body:
        """Set or (None) remove annotations of the vectorwright.dev group; ``_`` stands for ``-``."""
        body = copy.deepcopy(self.objects[kind, namespace, name])
        named = {f"vectorwright.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        body["metadata"]["annotations"] = merge(body["metadata"].get("annotations") or {}, named)
        return self._store((kind, namespace, name), body, "MODIFIED")

    def set_status(self, kind: str, namespace: str, name: str, status: Body | None) -> Body:
        """Replace the status, as somebody else would."""
        body = copy.deepcopy(self.objects[kind, namespace, name])
        body.pop("status", None)
        if status is not None:
            body["status"] = copy.deepcopy(status)
        return self._store((kind, namespace, name), body, "MODIFIED")

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """``kubectl delete``: marks an object that has finalizers, removes others."""
        key = (kind, namespace, name)
        body = copy.deepcopy(self.objects[key])
        if body["metadata"].get("finalizers"):
            body["metadata"].setdefault("deletionTimestamp", "2026-01-02T00:00:00Z")
            self._store(key, body, "MODIFIED")
        else:
            self._gone(key)

    def get_now(self, kind: str, namespace: str, name: str) -> Body:
        """The object as it is. Raises KeyError."""
        return copy.deepcopy(self.objects[kind, namespace, name])

    # -- the client --
    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> Body:
        await asyncio.sleep(0)
        self.reads.append(("get", resource.kind, name))
        key = (resource.kind, namespace or "", name)
        if resource == NAMESPACES and key not in self.objects:
            return {"metadata": {"name": name, "uid": f"uid-of-{name}"}}
        if key not in self.objects:
            raise NotFound(f"get {resource.plural}/{name}: not found")
        return copy.deepcopy(self.objects[key])

    async def list(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        keep: Callable[[Body], bool] | None = None,
    ) -> list[Body]:
        await asyncio.sleep(0)
        self.reads.append(("list", resource.kind, ""))
        wanted = {name: value for name, _, value in (part.partition("=") for part in (label_selector or "").split(","))}
        wanted.pop("", None)
        return [
            copy.deepcopy(body)
            for (kind, place, _), body in self.objects.items()
            if kind == resource.kind
            and namespace in (None, place)
            and wanted.items() <= (body["metadata"].get("labels") or {}).items()
            and (keep is None or keep(body))
        ]

    async def create(self, resource: ResourceType, body: Body, namespace: str | None = None) -> Body:
        name = body["metadata"]["name"]
        await self._writing(Write("create", resource.kind, name, copy.deepcopy(body)))
        key = (resource.kind, namespace or "", name)
        if key in self.objects:
            raise Conflict(f"create {resource.plural}/{name}: exists", reason="AlreadyExists")
        made = {"apiVersion": resource.api_version, "kind": resource.kind, **copy.deepcopy(body)}
        made["metadata"] = {"namespace": namespace or "", **made["metadata"]}
        return self.apply(made)

    async def patch(
        self,
        resource: ResourceType,
        name: str,
        namespace: str | None,
        body: Body,
        *,
        subresource: str | None = None,
        **_: Any,
    ) -> Body:
        await self._writing(Write("patch", resource.kind, name, copy.deepcopy(body), subresource))
        key = (resource.kind, namespace or "", name)
        old = self.objects.get(key)
        if old is None:
            raise NotFound(f"patch {resource.plural}/{name}: not found")
        based_on = (body.get("metadata") or {}).get("resourceVersion")
        if based_on is not None and based_on != old["metadata"]["resourceVersion"]:
            raise Conflict(f"patch {resource.plural}/{name}: the object has been modified", reason="Conflict")
        if subresource == "status":
            new = copy.deepcopy(old)
            new["status"] = merge(old.get("status") or {}, body.get("status") or {})
            if not new["status"]:
                new.pop("status")
        else:
            new = merge(old, {key: value for key, value in body.items() if key != "status"})
            new = self._generation(old, new)
        if new == old:
            return copy.deepcopy(old)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self._gone(key)
            return new
        return self._store(key, new, "MODIFIED")

    async def delete(
        self, resource: ResourceType, name: str, namespace: str | None = None, *, propagation: str = "", uid: str = ""
    ) -> None:
        await self._writing(Write("delete", resource.kind, name, {}))
        if (resource.kind, namespace or "", name) not in self.objects:
            raise NotFound(f"delete {resource.plural}/{name}: not found")
        self.remove(resource.kind, namespace or "", name)

    async def _writing(self, write: Write) -> None:
        await asyncio.sleep(0)
        self.writes.append(write)
        if error := self.before_write(write):
            raise error

    @staticmethod
    def _generation(old: Body, new: Body) -> Body:
        step = 0 if new.get("spec") == old.get("spec") else 1
        new["metadata"] = {**new["metadata"], "generation": old["metadata"].get("generation", 1) + step}
        return new

    def _store(self, key: tuple[str, str, str], body: Body, event: str) -> Body:
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = body
        self._tell(key[0], event, body)
        return copy.deepcopy(body)

    def _gone(self, key: tuple[str, str, str]) -> None:
        body = self.objects.pop(key)
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(key[0], "DELETED", body)

    def _tell(self, kind: str, event: str, body: Body) -> None:
        for listener in self.listeners:
            listener(kind, event, copy.deepcopy(body))
