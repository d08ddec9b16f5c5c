"""A small asynchronous client of the Kubernetes API: objects are plain dicts, errors are ours, every call ends.

::

    client = KubeClient(load_connection(...))
    secret = await client.get(SECRETS, "chroma", "team-a")
    await client.patch(VECTOR_INDEXES, "docs", "team-a", {"status": {...}}, subresource="status")
    await client.close()

Errors: NotFound (404), Conflict (409; reason ``AlreadyExists``, or ``Conflict`` for a stale resourceVersion), Terminal
(403 ``Forbidden`` or ``NamespaceTerminating``, 422 ``Invalid``, other 4xx), Retryable (401, 429, 5xx, time-outs and
broken connections). A Forbidden carries the API server's sentence, which names the verb and the resource.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import aiohttp
import orjson

from vectorwright.errors import Retryable, Terminal

from .answers import Expired, error_for
from .connection import KubeConnection
from .resources import ResourceType
from .session import open_session
from .watching import Selection, follow

_log = logging.getLogger(__name__)

Object = dict[str, Any]
Objects = list[Object]
PatchType = Literal["merge", "json", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]

CALL_TIMEOUT_S = 15.0
"""For a call on one object. The API server itself gives up on most of them after 34 s at p99 of its own target; waiting
longer than a lease lasts (10 s) has no use for writes, whose guard shortens this anyway."""
LIST_TIMEOUT_S = 60.0
PAGE = 500
"""Objects a list page, as kubectl and client-go ask for."""
FIELD_MANAGER = "vectorwright"

_CONTENT_TYPES: Mapping[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True)
class WriteCall:
    """A call that is about to change something."""

    verb: Literal["create", "patch", "replace", "delete"]
    resource: ResourceType
    namespace: str | None
    name: str | None
    subresource: str | None = None


Guard = Callable[[WriteCall], float | None]
"""Asked before every mutating call. Raises to refuse it; returns the seconds within which it must have ended (what is
left of the lease), or None for no limit."""


@dataclass(frozen=True, slots=True)
class ObjectList:
    """All objects of a list, each with its ``kind`` and ``apiVersion``, and the version to watch from."""

    items: Objects
    resource_version: str


class KubeClient:
    """One connection pool to one API server. Use on one event loop; ``close()`` at the end."""

    def __init__(self, connection: KubeConnection, guard: Guard | None = None) -> None:
        self.connection = connection
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool, opened at the first use (aiohttp wants the running loop)."""
        if self._session is None:
            self._session = open_session(self.connection)
        return self._session

    async def close(self) -> None:
        """Close every connection, watches included. Safe to call again."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> Object:
        """The object. Raises NotFound, Terminal, Retryable."""
        doing = _doing("get", resource, namespace, name)
        return await self._call("GET", resource.path(namespace, name), doing=doing, timeout=CALL_TIMEOUT_S)

    async def list(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        keep: Callable[[Object], bool] | None = None,
    ) -> Objects:
        """All matching objects of a namespace (None: of all), fetched in pages. Raises Terminal, Retryable.

        ``keep`` says of each object whether it is wanted: others are dropped page by page, so that no more than a page
        of them is held at a time.
        """
        found = await self.list_versioned(
            resource, namespace, label_selector=label_selector, field_selector=field_selector, keep=keep
        )
        return found.items

    async def list_versioned(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        page: int = PAGE,
        keep: Callable[[Object], bool] | None = None,
    ) -> ObjectList:
        """As ``list``, with the resourceVersion from which a watch continues."""
        selection = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query: dict[str, str] = {key: value for key, value in selection.items() if value} | {"limit": str(page)}
        doing = _doing("list", resource, namespace, None)
        items: Objects = []
        restarts = 0
        token = ""
        while True:
            asked = query | ({"continue": token} if token else {})
            try:
                answer = await self._call(
                    "GET", resource.path(namespace), doing=doing, timeout=LIST_TIMEOUT_S, query=asked
                )
            except Expired:
                # The pages took longer than the API server keeps a snapshot: what we have is of another moment.
                restarts += 1
                if restarts > 3:
                    raise
                items, token = [], ""
                continue
            for item in answer.get("items") or []:
                # A list's items come without these, and events and owner references need them.
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                if keep is None or keep(item):
                    items.append(item)
            metadata = answer.get("metadata") or {}
            token = metadata.get("continue") or ""
            if not token:
                return ObjectList(items, str(metadata.get("resourceVersion") or ""))

    async def create(
        self, resource: ResourceType, body: Object, namespace: str | None = None, *, dry_run: bool = False
    ) -> Object:
        """Create ``body`` and return it as stored. Raises Conflict (reason ``AlreadyExists``), Terminal, Retryable.

        ``dry_run`` has the API server do all but store it: rights, validation, admission.
        """
        name = (body.get("metadata") or {}).get("name")
        call = WriteCall("create", resource, namespace, name)
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | body
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        return await self._write(call, "POST", resource.path(namespace), body, query=query)

    async def patch(
        self,
        resource: ResourceType,
        name: str,
        namespace: str | None,
        body: Object | Objects,
        *,
        subresource: str | None = None,
        content_type: PatchType = "merge",
        field_manager: str = FIELD_MANAGER,
        force: bool = False,
        dry_run: bool = False,
    ) -> Object:
        """Patch and return the object as stored.

        A merge patch that carries ``metadata.resourceVersion`` fails with Conflict when the object has changed since.
        ``force`` takes fields over from other managers and goes with ``apply`` alone; ``dry_run`` as in ``create``.
        Raises NotFound, Conflict, Terminal, Retryable.
        """
        call = WriteCall("patch", resource, namespace, name, subresource)
        query = {"fieldManager": field_manager}
        if content_type == "apply":
            query["force"] = "true" if force else "false"
        if dry_run:
            query["dryRun"] = "All"
        path = resource.path(namespace, name, subresource)
        return await self._write(call, "PATCH", path, body, query=query, content_type=_CONTENT_TYPES[content_type])

    async def replace(
        self,
        resource: ResourceType,
        name: str,
        namespace: str | None,
        body: Object,
        *,
        subresource: str | None = None,
    ) -> Object:
        """Replace the object; with ``metadata.resourceVersion`` only if it is still that one. Raises as ``patch``."""
        call = WriteCall("replace", resource, namespace, name, subresource)
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | body
        path = resource.path(namespace, name, subresource)
        return await self._write(call, "PUT", path, body, query={"fieldManager": FIELD_MANAGER})

    async def delete(
        self,
        resource: ResourceType,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
    ) -> None:
        """Ask for the object's deletion; with ``uid`` only if it is still that one (else Conflict).

        Returns when the API server has accepted it: finalizers may keep the object for a while. Raises NotFound too.
        """
        call = WriteCall("delete", resource, namespace, name)
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        await self._write(call, "DELETE", resource.path(namespace, name), options)

    def watch(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
    ) -> AsyncGenerator[tuple[str, Object]]:
        """Follow a collection, or with ``name`` one object, for ever; see :mod:`vectorwright.kube.watching`.

        Close the generator (``contextlib.aclosing``) when done with it before its end.
        """
        selection = Selection(resource, namespace, f"metadata.name={name}" if name else None, label_selector)
        return follow(self, selection, resource_version)

    async def _write(
        self,
        call: WriteCall,
        method: str,
        path: str,
        body: Object | Objects,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        limit = self._guard(call) if self._guard is not None else None
        timeout = CALL_TIMEOUT_S if limit is None else min(CALL_TIMEOUT_S, limit)
        doing = _doing(call.verb, call.resource, call.namespace, call.name, call.subresource)
        data = orjson.dumps(body)
        return await self._call(
            method, path, doing=doing, timeout=timeout, query=query, data=data, content_type=content_type
        )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        timeout: float,  # noqa: ASYNC109 - handed to aiohttp, which covers connect, send and read with it
        query: Mapping[str, str] | None = None,
        data: bytes | None = None,
        content_type: str = "application/json",
    ) -> Object:
        try:
            async with self.session.request(
                method,
                self.connection.server + path,
                params=query,
                data=data,
                headers={"Content-Type": content_type} if data is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout),
                allow_redirects=False,
            ) as response:
                body = await response.read()
                if response.status >= 300:
                    raise error_for(response.status, body, doing=doing, retry_after=response.headers.get("Retry-After"))
        except TimeoutError:
            raise Retryable(f"{doing}: no answer from the API server in {timeout:.0f} s", reason="Timeout") from None
        except aiohttp.ClientSSLError as error:
            # A wrong CA is mended by a person, but a rolling control plane shows the same for a moment.
            raise Retryable(f"{doing}: TLS to the API server failed ({type(error).__name__})", reason="Tls") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"{doing}: the API server cannot be reached ({type(error).__name__})") from None
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise Retryable(f"{doing}: the API server's answer is not JSON") from None
        if not isinstance(parsed, dict):
            raise Terminal(f"{doing}: the API server's answer is not an object", reason="BadAnswer")
        return parsed


def _doing(
    verb: str, resource: ResourceType, namespace: str | None, name: str | None, subresource: str | None = None
) -> str:
    """Verb and object for a message: "patch vectorindexes/docs/status in team-a"."""
    what = "/".join(part for part in (resource.plural, name, subresource) if part)
    return f"{verb} {what}" + (f" in {namespace}" if resource.namespaced and namespace else "")
