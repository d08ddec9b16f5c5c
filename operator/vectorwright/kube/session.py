"""An aiohttp session for one API server: TLS, a token that follows rotation, dead peers noticed, writes guarded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp

from vectorwright import __version__

from .connection import KubeConnection

RequestGuard = Callable[[str], None]
"""Called with the method of every request that may change something; raises to refuse it."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_KEEPALIVE = (
    # A peer that vanished (a node gone, a load balancer that forgot us) is noticed after 15 s and three probes of 5 s.
    # Without this, a watch on it would be silent until its time-out, minutes later.
    ("TCP_KEEPIDLE", 15),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 30_000),
)


_CLOSING_S = 1.0
"""What a closed session waits at most for the last of its sockets."""


class _Connector(aiohttp.TCPConnector):
    """Closed only when its sockets are.

    aiohttp forgets the connection of a request that was cancelled before its answer: a TLS farewell is under way there,
    which needs the event loop a while longer.
    """

    def __init__(self, **options: Any) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(socket_factory=self._made, **options)

    def _made(self, address: aiohttp.AddrInfoType) -> socket.socket:
        created = _keepalive_socket(address)
        self._sockets.add(created)
        return created

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and wait for their ends, for a second at most."""
        await super().close(abort_ssl=abort_ssl)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                while any(one.fileno() >= 0 for one in self._sockets):  # noqa: ASYNC110 - a socket tells nobody
                    await asyncio.sleep(0.002)


def _keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    created = socket.socket(family=family, type=kind, proto=protocol)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if hasattr(socket, option):
            created.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return created


class _Authorize:
    """Middleware: puts the token of the moment on each request, and once a fresh one after a 401."""

    def __init__(self, connection: KubeConnection, guard: RequestGuard | None) -> None:
        self._connection = connection
        self._guard = guard

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._guard is not None and request.method not in _SAFE_METHODS:
            self._guard(request.method)
        if self._connection.tls_server_name:
            request.server_hostname = self._connection.tls_server_name
        await self._authorize(request, fresh=False)
        response = await handler(request)
        if response.status == 401 and self._connection.token is not None:
            before = request.headers.get("Authorization")
            await self._authorize(request, fresh=True)
            if request.headers.get("Authorization") != before:
                response.release()
                return await handler(request)
        return response

    async def _authorize(self, request: aiohttp.ClientRequest, *, fresh: bool) -> None:
        token = self._connection.token
        if token is not None and token.blocking:
            value = await asyncio.to_thread(self._connection.authorization, fresh=fresh)
        else:
            value = self._connection.authorization(fresh=fresh)
        if value is not None:
            request.headers["Authorization"] = value


def open_session(connection: KubeConnection, *, guard: RequestGuard | None = None) -> aiohttp.ClientSession:
    """A session that speaks to ``connection``'s server; the caller closes it. Must be called on the event loop.

    Fit for ``kopf.AiohttpSession(server=…, aiohttp_session=…)`` too, so that kopf's own writes pass the same ``guard``.
    Raises Terminal when certificates cannot be read.
    """
    context = connection.ssl_context()
    connector = _Connector(
        limit=0,  # a watch holds its connection for minutes: a limit would starve the calls beside it
        ssl=context if context is not None else True,
        keepalive_timeout=60,
    )
    return aiohttp.ClientSession(
        connector=connector,
        headers={"User-Agent": f"vectorwright/{__version__}", "Accept": "application/json"},
        middlewares=(_Authorize(connection, guard),),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
        trust_env=False,
    )
