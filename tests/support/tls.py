"""TLS in front of a server that speaks none, with an authority of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""Length 8, then the request code 80877103 (PostgreSQL's documentation, "Message Formats")."""

_REFUSED = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry: this port takes TLS connections only\0\0"


class TlsFront:
    """Listens on a free port of 127.0.0.1, in a thread of its own, until ``close()``; passes every byte on.

    ``ca_file`` vouches for its certificate, which names 127.0.0.1 and localhost. With ``postgres`` the client first
    asks for TLS in PostgreSQL's way (SSLRequest), and one that does not is refused as by ``hostssl`` lines alone. With
    ``grpc`` it says that it speaks HTTP/2, and nothing else.
    """

    def __init__(self, backend_port: int, ca_file: Path, *, postgres: bool = False, grpc: bool = False) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(ca_file)
        self.ca_file = ca_file
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(self._context)
        if grpc:
            self._context.set_alpn_protocols(["h2"])  # gRPC talks to nobody who does not say it
        self._backend_port = backend_port
        self._postgres = postgres
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls-front", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        at_once = None if self._postgres else self._context
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=at_once)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                if not self._postgres or await self._start_tls(reader, writer):
                    await self._forward(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _start_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = await reader.readexactly(8) == _SSL_REQUEST
        writer.write(b"S" if asked else b"E" + (len(_REFUSED) + 4).to_bytes(4, "big") + _REFUSED)
        await writer.drain()
        if asked:
            await writer.start_tls(self._context)
        return asked

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        backend_reader, backend_writer = await asyncio.open_connection("127.0.0.1", self._backend_port)
        pipes = [
            asyncio.create_task(_copy(reader, backend_writer)),
            asyncio.create_task(_copy(backend_reader, writer)),
        ]
        try:
            # When one side is done, nothing that the other could still say matters.
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            backend_writer.close()  # before anything that a second cancellation could end
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            await backend_writer.wait_closed()

    def close(self) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        serving = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@pytest.fixture
def tls_front() -> Iterator[Callable[..., TlsFront]]:
    """``tls_front(port, grpc=False)`` puts TLS in front of a server; the answer has ``url``, ``port``, ``ca_file``."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-tls-"))
    fronts: list[TlsFront] = []

    def begin(backend_port: int, *, grpc: bool = False) -> TlsFront:
        front = TlsFront(backend_port, base / f"ca-{len(fronts)}.pem", grpc=grpc)
        fronts.append(front)
        return front

    yield begin
    for front in fronts:
        front.close()
    shutil.rmtree(base)
