"""TLS in front of a PostgreSQL server whose build has none, in the protocol's own way.

A client that wants TLS sends an SSLRequest first; this front answers it, does the handshake, and passes every byte on.
A client that does not ask is refused, as by a server with ``hostssl`` lines alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from typing import Any

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""Length 8, then the request code 80877103 (PostgreSQL's documentation, "Message Formats")."""

_REFUSED = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry: this port takes TLS connections only\0\0"


class TlsFront:
    """Listens on a free port of 127.0.0.1, in a thread of its own, until ``close()``."""

    def __init__(self, context: ssl.SSLContext, backend_port: int) -> None:
        self._context = context
        self._backend_port = backend_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres-tls", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._forward(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(8) != _SSL_REQUEST:
            writer.write(b"E" + (len(_REFUSED) + 4).to_bytes(4, "big") + _REFUSED)
            await writer.drain()
            return
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(self._context)
        backend_reader, backend_writer = await asyncio.open_connection("127.0.0.1", self._backend_port)
        pipes = [
            asyncio.create_task(_copy(reader, backend_writer)),
            asyncio.create_task(_copy(backend_reader, writer)),
        ]
        try:
            # When one side is done, nothing that the other could still say matters.
            await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            backend_writer.close()
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
