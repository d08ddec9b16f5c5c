"""The latest known state of every watched object, as the watch delivered it or our own writes returned it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Body = Mapping[str, Any]


class Key(NamedTuple):
    """Names one object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def _version(body: Body) -> int:
    """The resourceVersion as a number: Kubernetes promises that versions of one object can be compared so."""
    text = str(body.get("metadata", {}).get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0


class ObjectCache:
    """Objects by kind, namespace and name. Never goes back: a watch event older than our own last write is dropped."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Body]] = {}

    def put(self, kind: str, body: Body) -> bool:
        """Store an object without its managed fields. False when a newer state of the same object is known."""
        metadata = body["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        objects = self._objects.setdefault(kind, {})
        known = objects.get(key)
        if (
            known is not None
            and known["metadata"].get("uid") == metadata.get("uid")
            and _version(known) > _version(body)
        ):
            return False
        kept = {name: value for name, value in metadata.items() if name != "managedFields"}
        objects[key] = {**body, "metadata": kept}
        return True

    def drop(self, key: Key, uid: str) -> None:
        """Forget an object that is gone, unless another of the same name took its place."""
        objects = self._objects.get(key.kind, {})
        known = objects.get((key.namespace, key.name))
        if known is not None and known["metadata"].get("uid") == uid:
            del objects[key.namespace, key.name]

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """The object, or None when it does not exist."""
        return self._objects.get(kind, {}).get((namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> Iterator[Body]:
        """All objects of a kind, of one namespace or of all. The cache must not change while this is read."""
        for (place, _), body in self._objects.get(kind, {}).items():
            if namespace is None or place == namespace:
                yield body
