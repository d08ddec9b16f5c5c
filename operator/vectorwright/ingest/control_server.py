"""The port through which the operator and a worker talk: progress out, budget in.

``GET /progress`` answers the run's state as JSON, ``POST /budget`` takes the worker's new share (:mod:`.limits`), and
``GET /healthz`` says that the worker's loop turns. Nothing that is secret passes here, and a budget can only change how
fast the run goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import web

from vectorwright.errors import Terminal

from .limits import Limits
from .runspec import RunState

_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a socket in the file system, or host and port."""

    host: str | None = None
    port: int = 0
    unix: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST:PORT`` or ``[IPV6]:PORT``. Raises ``ValueError``."""
        host, separator, port = text.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"not an address such as 0.0.0.0:8080: {text!r}")
        return cls(host.strip("[]") or None, int(port))


class ControlServer:
    """Answers for one run."""

    def __init__(self, state: Callable[[], RunState], limits: Limits) -> None:
        self._state = state
        self._limits = limits

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application(client_max_size=_MOST_BYTES)
        application.router.add_get("/progress", self._progress)
        application.router.add_post("/budget", self._budget)
        application.router.add_get("/healthz", self._health)
        return application

    async def _progress(self, _: web.Request) -> web.Response:
        self._limits.heard()
        return web.json_response(body=orjson.dumps(self._state().dump()))

    async def _budget(self, request: web.Request) -> web.Response:
        try:
            budget = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return web.json_response({"error": "the body is no JSON"}, status=400)
        if not isinstance(budget, dict):
            return web.json_response({"error": "the body is no object"}, status=400)
        try:
            self._limits.grant(budget)
        except Terminal as error:
            return web.json_response({"error": error.message}, status=400)
        return web.Response(status=204)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")


@asynccontextmanager
async def serving(server: ControlServer, address: Address | None) -> AsyncIterator[int]:
    """Serve while the block runs; gives the port, 0 without one. Raises Terminal (``ListenFailed``)."""
    if address is None:
        yield 0
        return
    runner = web.AppRunner(server.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site: web.BaseSite
        if address.unix is not None:
            site = web.UnixSite(runner, str(address.unix))
        else:
            site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            # Of a path that is too long for a socket there is no strerror.
            place = address.unix or site.name
            raise Terminal(f"cannot listen at {place}: {error.strerror or error}", reason="ListenFailed") from None
        if address.unix is not None:
            address.unix.chmod(0o600)
            yield 0
        else:
            yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
        if address.unix is not None:
            with contextlib.suppress(FileNotFoundError):
                address.unix.unlink()
