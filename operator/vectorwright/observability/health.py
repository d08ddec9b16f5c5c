"""The parent's HTTP listener: ``/healthz``, ``/readyz`` and ``/metrics``, on the standard library alone.

It answers three paths to a kubelet and a scraper: HTTP/1.1, GET and HEAD, one request a connection, heads up to 8 KiB
that must arrive within five seconds, 64 connections at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from vectorwright import __version__
from vectorwright.errors import Terminal
from vectorwright.settings import BindAddress

_log = logging.getLogger(__name__)

_MAX_HEAD = 8 * 1024
_HEAD_S = 5.0
_ANSWER_S = 10.0
_MOST_CONNECTIONS = 64

TEXT = "text/plain; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: int
    body: bytes
    content_type: str = TEXT


Handler = Callable[[], Awaitable[Answer]]


class HealthServer:
    """Serves ``routes`` (path → handler) until ``close()``."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, address: BindAddress) -> BindAddress:
        """Listen, and return the address with the port that was chosen. Raises Terminal when that is impossible."""
        # All interfaces with a port of the system's choice: one family, or IPv4 and IPv6 would get a port each.
        host = address.host or ("0.0.0.0" if address.port == 0 else None)  # noqa: S104 - asked for by the setting
        try:
            self._server = await asyncio.start_server(self._serve, host, address.port, limit=_MAX_HEAD)
        except OSError as error:
            raise Terminal(
                f"cannot listen on {address}: {error.strerror}; choose another --metrics-bind-address",
                reason="ListenFailed",
            ) from None
        chosen = BindAddress(address.host, self._server.sockets[0].getsockname()[1])
        _log.info("serving /healthz, /readyz and /metrics on %s", chosen)
        return chosen

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        if self._server is not None:
            self._server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a stream callback runs in a task
        self._open.add(task)
        try:
            if len(self._open) > _MOST_CONNECTIONS:
                return
            answer, with_body = await self._answer(reader)
            writer.write(_encode(answer, with_body=with_body))
            async with asyncio.timeout(_ANSWER_S):
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            # A peer that is too slow, or gone, gets no answer.
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Answer, bool]:
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Answer(431, b"the head is too long\n"), True
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return Answer(400, b"not HTTP/1\n"), True
        method, target, _ = parts
        if method not in ("GET", "HEAD"):
            return Answer(405, b"only GET and HEAD\n"), True
        handler = self._routes.get(target.partition("?")[0])
        if handler is None:
            return Answer(404, b"there are /healthz, /readyz and /metrics\n"), method == "GET"
        async with asyncio.timeout(_ANSWER_S):
            return await handler(), method == "GET"


def _encode(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if with_body else b"")


def parent_exposition(*, leading: bool, child_starts: int, heartbeat_age: float | None) -> bytes:
    """The parent's own metrics in Prometheus' text format; those of its child are appended to them."""
    lines = [
        "# HELP vectorwright_leader 1 while this operator holds the lease.",
        "# TYPE vectorwright_leader gauge",
        f"vectorwright_leader {int(leading)}",
        "# HELP vectorwright_build_info What runs here.",
        "# TYPE vectorwright_build_info gauge",
        f'vectorwright_build_info{{version="{__version__}"}} 1',
        "# HELP vectorwright_child_starts_total How often the working process was started.",
        "# TYPE vectorwright_child_starts_total counter",
        f"vectorwright_child_starts_total {child_starts}",
    ]
    if heartbeat_age is not None:
        lines += [
            "# HELP vectorwright_heartbeat_age_seconds Since the working process' event loop last turned.",
            "# TYPE vectorwright_heartbeat_age_seconds gauge",
            f"vectorwright_heartbeat_age_seconds {heartbeat_age:.3f}",
        ]
    return ("\n".join(lines) + "\n").encode()
