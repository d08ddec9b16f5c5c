"""Follow a collection of objects for ever, over broken connections, expired versions and a server that restarts.

What a follower sees is a sequence of ``(type, object)``:

- ``("LISTED", {"items": [...]})``: this is everything there is at this moment; forget the rest. First of all unless it
  started from a known version, and again whenever the API server no longer keeps the version we were at.
- ``("ADDED" | "MODIFIED" | "DELETED", object)``: one change after that.

Bookmarks only move the version on. What waiting cannot cure (403; 404 of a kind that is not installed) is raised; all
else is tried again with backoff and jitter.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from vectorwright.errors import Retryable

from .answers import Expired, error_for
from .resources import ResourceType

if TYPE_CHECKING:
    from .client import KubeClient, Object

_log = logging.getLogger(__name__)

_BACKOFF_LEAST_S = 0.5
_BACKOFF_MOST_S = 30.0
_SERVER_TIMEOUT_S = (240, 480)
"""Range of how long one watch request lives: spread, so that many watches do not come back in the same second."""
_LONGEST_EVENT = 8 * 1024 * 1024
"""Bytes of one line. An object is at most 1.5 MiB in etcd (3 MiB over all, with managed fields and escapes)."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects are followed. ``namespace`` None: those of all namespaces."""

    resource: ResourceType
    namespace: str | None = None
    field_selector: str | None = None
    label_selector: str | None = None

    def __str__(self) -> str:
        """For messages: "secrets (metadata.name=chroma) in team-a"."""
        chosen = ",".join(part for part in (self.field_selector, self.label_selector) if part)
        return (
            self.resource.plural
            + (f" ({chosen})" if chosen else "")
            + (f" in {self.namespace}" if self.namespace else "")
        )


async def follow(
    client: KubeClient, selection: Selection, resource_version: str | None = None
) -> AsyncGenerator[tuple[str, Object]]:
    """See the module. Ends only by an error (Terminal, NotFound) or by being closed."""
    version = resource_version
    failures = 0
    while True:
        try:
            if version is None:
                found = await client.list_versioned(
                    selection.resource,
                    selection.namespace,
                    label_selector=selection.label_selector,
                    field_selector=selection.field_selector,
                )
                version, failures = found.resource_version, 0
                yield "LISTED", {"items": found.items}
            started = time.monotonic()
            # Closed at once when the follower goes, not when the garbage collector gets to it.
            async with aclosing(_stream(client, selection, version)) as stream:
                async for kind, item in stream:
                    failures = 0
                    version = (item.get("metadata") or {}).get("resourceVersion") or version
                    if kind != "BOOKMARK":
                        yield kind, item
            # The server ended it in order: after the time that we asked for, or because it shuts down.
            failures = 0 if time.monotonic() - started > 1.0 else failures + 1
        except Expired:
            # At once the first time: a restarted API server has an empty watch cache, which is no sign of trouble.
            version = None
            failures += 1
            if failures == 1:
                continue
        except Retryable as error:
            failures += 1
            _log.log(
                logging.WARNING if failures in (3, 30, 300) else logging.DEBUG,
                "watch of %s: %s",
                selection,
                error.message,
            )
        await asyncio.sleep(_backoff(failures))


def _backoff(failures: int) -> float:
    """Seconds before the next try: at most 0.5, doubled with each failure up to 30; half of it random."""
    ceiling = min(_BACKOFF_MOST_S, _BACKOFF_LEAST_S * 2.0 ** min(failures, 10))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311


async def _stream(client: KubeClient, selection: Selection, version: str) -> AsyncGenerator[tuple[str, Object]]:
    """The events of one watch request, bookmarks included. Raises Expired, Retryable, Terminal, NotFound."""
    doing = f"watch {selection}"
    lifetime = random.randint(*_SERVER_TIMEOUT_S)  # noqa: S311
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(lifetime),
    }
    if selection.field_selector:
        query["fieldSelector"] = selection.field_selector
    if selection.label_selector:
        query["labelSelector"] = selection.label_selector
    url = client.connection.server + selection.resource.path(selection.namespace)
    timeout = aiohttp.ClientTimeout(total=lifetime + 30, sock_connect=10)
    try:
        async with client.session.get(url, params=query, timeout=timeout, allow_redirects=False) as response:
            if response.status >= 300:
                after = response.headers.get("Retry-After")
                raise error_for(response.status, await response.read(), doing=doing, retry_after=after)
            try:
                async with aclosing(_lines(response, doing)) as lines:
                    async for line in lines:
                        yield _event(line, doing, selection.resource)
            finally:
                _drop(response)
    except TimeoutError:
        raise Retryable(f"{doing}: time-out", reason="Timeout") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Retryable(f"{doing}: the API server cannot be reached ({type(error).__name__})") from None


def _drop(response: aiohttp.ClientResponse) -> None:
    """End a stream that was not read to its end at once: a TLS farewell would linger after the client is closed."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


async def _lines(response: aiohttp.ClientResponse, doing: str) -> AsyncGenerator[bytes]:
    """Lines of any length: aiohttp's own ``readline`` refuses those over 64 KiB, and ConfigMaps reach 1 MiB."""
    held = bytearray()
    async for chunk in response.content.iter_any():
        searched_to = len(held)
        held += chunk
        while (end := held.find(b"\n", searched_to)) >= 0:
            line = bytes(held[:end])
            del held[: end + 1]
            searched_to = 0
            if line.strip():
                yield line
        if len(held) > _LONGEST_EVENT:
            raise Retryable(f"{doing}: an event longer than {_LONGEST_EVENT} bytes")


def _event(line: bytes, doing: str, resource: ResourceType) -> tuple[str, Object]:
    try:
        event: Any = orjson.loads(line)
        kind, item = event["type"], event["object"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        raise Retryable(f"{doing}: an event that is not JSON") from None
    if kind == "ERROR":
        raise error_for(int(item.get("code") or 500), orjson.dumps(item), doing=doing)
    item.setdefault("apiVersion", resource.api_version)
    item.setdefault("kind", resource.kind)
    return str(kind), item
