"""The life of a store server process: lock, listen, serve until told to stop, finish what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from vectorwright.errors import Terminal
from vectorwright.settings import BindAddress

from .application import TRAFFIC, make_application
from .hosting import MAX_SOCKET_PATH, Hosted, HostedStores
from .lock import DirectoryLock
from .tokens import Tokens

_CERTIFICATE_LOOK = 30.0
_CUT_OFF = 1.0
"""Seconds for answers that are still being sent when the grace of a stop is over."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a store server runs."""

    hosted: Hosted
    listen: BindAddress | None = None
    unix: Path | None = None
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    """Whether it may be reached from other machines without a token."""
    lock_wait: float = 0.0
    """Seconds to wait for another owner of the directory to go."""
    exit_on_stdin_eof: bool = False
    grace: float = 25.0
    """Seconds that requests under way have to end after it was told to stop."""

    def check(self) -> None:
        """Raise Terminal (``InvalidSettings``) where the settings make no sense together."""
        problem = None
        if not self.hosted.directories and not self.hosted.memory:
            problem = "nothing to serve: give --lance DIR, --faiss DIR, --memory or several of them"
        elif self.hosted.faiss is None and (self.hosted.encryption_key_file or self.hosted.faiss_memory):
            problem = "--encryption-key-file and --faiss-memory need --faiss DIR"
        elif self.listen is None and self.unix is None:
            problem = "nowhere to listen: give --listen HOST:PORT, --unix PATH or both"
        elif (self.tls_cert is None) is not (self.tls_key is None):
            problem = "--tls-cert and --tls-key are given together"
        elif self.listen is not None and not _is_loopback(self.listen.host) and not (self.token_file or self.insecure):
            problem = (
                f"--listen {self.listen} can be reached from other machines: give --token-file FILE, or --insecure to "
                "let everybody read and delete everything"
            )
        if problem:
            raise Terminal(problem, reason="InvalidSettings")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def serve(settings: ServerSettings, ready: Callable[[list[str]], None]) -> int:
    """Serve until SIGTERM, SIGINT or the end of stdin, where that was asked for. Returns the exit status.

    ``ready`` is called with the addresses once they can be reached. Raises Terminal where it cannot start.
    """
    settings.check()
    tokens = Tokens(settings.token_file) if settings.token_file else None
    context = _tls(settings)
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        for directory in sorted({one.path.resolve() for one in settings.hosted.directories.values()}):
            lock = DirectoryLock(directory, settings.lock_wait)
            await asyncio.to_thread(lock.acquire)
            stack.callback(lock.release)
        hosted = HostedStores(settings.hosted)
        stack.push_async_callback(hosted.close)
        await hosted.open()
        runner = web.AppRunner(
            make_application(hosted, tokens),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_CUT_OFF,
            # A write that was received is finished even where its client is gone: it may have to be told apart later.
            handler_cancellation=False,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        addresses = await _listen(runner, settings, context)
        _stop_on(stop, settings, stack)
        ready(addresses)
        if settings.listen is not None and context is None and not _is_loopback(settings.listen.host):
            _log.warning("%s speaks no TLS: whoever is on the way reads tokens and records", settings.listen)
        if context is not None and settings.tls_cert is not None:
            stack.enter_context(_task(_reload_certificate(context, settings.tls_cert, settings.tls_key)))
        await stop.wait()
        _log.info("stopping: requests under way have %g s to end", settings.grace)
        for site in list(runner.sites):
            await site.stop()
        await runner.app[TRAFFIC].stop(settings.grace)
    return 0


async def _listen(runner: web.AppRunner, settings: ServerSettings, context: ssl.SSLContext | None) -> list[str]:
    addresses = []
    if settings.listen is not None:
        site = web.TCPSite(runner, settings.listen.host or None, settings.listen.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise Terminal(
                f"cannot listen on {settings.listen}: {error.strerror or 'address not usable'}", reason="CannotListen"
            ) from None
        scheme = "https" if context else "http"
        addresses += [f"{scheme}://{BindAddress(*address[:2])}" for address in runner.addresses]
    if settings.unix is not None:
        await asyncio.to_thread(_clear_socket, settings.unix)
        mask = os.umask(0o177)  # a socket is made with the mask of its process: only its owner may connect
        try:
            await web.UnixSite(runner, settings.unix).start()
        except OSError as error:
            raise Terminal(
                f"cannot listen on {settings.unix}: {error.strerror or error}", reason="CannotListen"
            ) from None
        finally:
            os.umask(mask)
        addresses.append(f"unix://{settings.unix}")
    return addresses


def _clear_socket(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises Terminal where somebody does, or where it is no socket."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise Terminal(f"{path}: the path of a socket has at most {MAX_SOCKET_PATH} bytes", reason="CannotListen")
    if not path.exists():
        return
    if not path.is_socket():
        raise Terminal(f"{path} exists and is not a socket: remove it, or use another path", reason="CannotListen")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
    raise Terminal(f"another process listens on {path}", reason="CannotListen")


def _tls(settings: ServerSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise Terminal(
            f"{settings.tls_cert} and {settings.tls_key} cannot be used as certificate and key: {reason}",
            reason="InvalidCertificate",
        ) from None
    return context


async def _reload_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Use a renewed certificate for new connections."""
    loaded = (await asyncio.to_thread(certificate.stat)).st_mtime_ns
    while True:
        await asyncio.sleep(_CERTIFICATE_LOOK)
        try:
            found = (await asyncio.to_thread(certificate.stat)).st_mtime_ns
            if found != loaded:
                context.load_cert_chain(certificate, key)
                loaded = found
                _log.info("the certificate changed and is used from now on")
        except (OSError, ssl.SSLError):
            _log.exception("the changed certificate cannot be used; the one from before still is")


@contextlib.contextmanager
def _task(work: Coroutine[None, None, None]) -> Iterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


def _stop_on(stop: asyncio.Event, settings: ServerSettings, stack: contextlib.AsyncExitStack) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
        stack.callback(loop.remove_signal_handler, number)
    if settings.exit_on_stdin_eof:
        descriptor = sys.stdin.fileno()

        def look() -> None:
            if not os.read(descriptor, 4096):
                loop.remove_reader(descriptor)
                stop.set()

        loop.add_reader(descriptor, look)
        stack.callback(loop.remove_reader, descriptor)
