"""Kubernetes events: what a person would want to know, told once.

The same words about the same object are one event whose count grows. Recording never raises and never waits for the API
server: events are queued, sent by one task, and dropped when there is trouble (a namespace that is being deleted takes
none, for example). What must not be lost belongs in status or in a metric.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vectorwright.errors import NotFound, VectorwrightError
from vectorwright.observability.logs import redact

from .client import KubeClient, Object
from .resources import EVENTS

_log = logging.getLogger(__name__)

REPEAT_AFTER_S = 600.0
"""The same words become a new event only after this long; until then the first one's count is patched."""
COUNT_PATCH_EVERY_S = 30.0
"""A count is written at most this often: it is worth a glance, not a request for each failed attempt."""
_MOST_REMEMBERED = 2048
_MOST_QUEUED = 1000
_MAX_MESSAGE = 1024
"""The API server refuses longer notes."""
_DRAIN_S = 2.0


@dataclass(slots=True)
class _Told:
    """What was said, and how often."""

    name: str
    namespace: str
    since: float
    count: int = 1
    patched_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Outgoing:
    told: _Told
    body: Object


class EventRecorder:
    """Records events for objects given as dicts (or any mapping, such as kopf's Body). Use on one event loop."""

    def __init__(
        self, client: KubeClient, component: str = "vectorwright", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._component = component
        self._instance = socket.gethostname()[:128]
        self._clock = clock
        self._told: OrderedDict[tuple[str, str, str, str], _Told] = OrderedDict()
        self._queue: deque[_Outgoing] = deque(maxlen=_MOST_QUEUED)
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()

    def normal(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        """Something went as it should."""
        self._record(obj, "Normal", reason, message)

    def warning(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        """Something needs a person."""
        self._record(obj, "Warning", reason, message)

    async def close(self) -> None:
        """Send what is queued for at most two seconds, then stop."""
        if self._sender is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self._idle.wait()
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)
        self._sender = None

    def _record(self, obj: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        message = redact(message)
        if len(message) > _MAX_MESSAGE:
            message = message[: _MAX_MESSAGE - 1] + "…"
        metadata = obj.get("metadata") or {}
        uid, name = str(metadata.get("uid") or ""), str(metadata.get("name") or "")
        if not name:
            _log.debug("no event %s for an object without a name", reason)
            return
        key = (uid or f"{metadata.get('namespace')}/{name}", kind, reason, message)
        now = self._clock()
        told = self._told.get(key)
        if told is not None and now - told.since < REPEAT_AFTER_S:
            told.count += 1
            self._told.move_to_end(key)
            if now - told.patched_at < COUNT_PATCH_EVERY_S:
                return
            told.patched_at = now
            self._send(_Outgoing(told, {}))
            return
        # An event of a cluster-scoped object lives in "default", as everywhere in Kubernetes.
        namespace = str(metadata.get("namespace") or "default")
        digest = hashlib.sha256("\0".join((*key, str(time.time_ns()))).encode()).hexdigest()[:16]
        told = _Told(f"{name[:220]}.{digest}", namespace, since=now, patched_at=now)
        self._told[key] = told
        self._told.move_to_end(key)
        while len(self._told) > _MOST_REMEMBERED:
            self._told.popitem(last=False)
        involved = {
            "apiVersion": obj.get("apiVersion"),
            "kind": obj.get("kind"),
            "namespace": metadata.get("namespace"),
            "name": name,
            "uid": uid or None,
            "resourceVersion": metadata.get("resourceVersion"),
        }
        stamp = _now()
        self._send(
            _Outgoing(
                told,
                {
                    "metadata": {"name": told.name, "namespace": namespace},
                    "involvedObject": {field: value for field, value in involved.items() if value},
                    "type": kind,
                    "reason": reason[:128],
                    "message": message,
                    "source": {"component": self._component},
                    "reportingComponent": self._component,
                    "reportingInstance": self._instance,
                    "firstTimestamp": stamp,
                    "lastTimestamp": stamp,
                    "count": 1,
                },
            )
        )

    def _send(self, outgoing: _Outgoing) -> None:
        self._queue.append(outgoing)
        self._idle.clear()
        self._wake.set()
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._run(), name="events")

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            outgoing = self._queue.popleft()
            try:
                await self._deliver(outgoing)
            except VectorwrightError as error:
                # Not remembered as told, so that the same words get another chance.
                outgoing.told.since = float("-inf")
                _log.debug("an event was not recorded: %s", error.message)

    async def _deliver(self, outgoing: _Outgoing) -> None:
        told = outgoing.told
        if outgoing.body:
            await self._client.create(EVENTS, outgoing.body, told.namespace)
            return
        try:
            await self._client.patch(EVENTS, told.name, told.namespace, {"count": told.count, "lastTimestamp": _now()})
        except NotFound:
            # Events live for an hour at most, and somebody may have deleted it: say it anew the next time.
            told.since = float("-inf")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
