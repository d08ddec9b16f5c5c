"""A proxy before a real PostgreSQL server that counts what is asked and fails it on purpose. It keeps no request."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine
from typing import Any

from tests.support.operations import Fault, Operations

_ASKS_FOR_ENCRYPTION = {80877103, 80877104}
_CANCELS = 80877102
_SQLSTATES = {401: "28P01", 403: "42501", 429: "53300", 500: "XX000", 503: "57P03"}
_OF_TWO_WORDS = {"CREATE", "ALTER", "DROP"}
_STATEMENTS = {b"Q": 0, b"P": 1}
"""Message → how many strings come before its statement."""


class PostgresFront:
    """Listens on a free port of 127.0.0.1 in front of ``port``, in a thread of its own, until ``close()``.

    Operations are ``connect`` and the first word of a statement in capitals, two words for those that begin with
    CREATE, ALTER or DROP. A fault's status is said as the SQLSTATE that comes nearest: 401 as 28P01, 403 as 42501, 429
    as 53300, 503 as 57P03; it ends the connection, so that with ``done`` nobody knows what became of the statement.
    """

    def __init__(self, port: int) -> None:
        self.operations = Operations()
        self.host = "127.0.0.1"
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres-front", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, self.host, 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                server_reader, server_writer = await asyncio.open_connection(self.host, self._target)
                try:
                    await self._session(reader, writer, server_reader, server_writer)
                finally:
                    server_writer.close()
                    await server_writer.wait_closed()
            finally:
                writer.close()
                await writer.wait_closed()

    async def _session(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        begun = await _beginning(reader, writer)
        if begun[4:8] != _CANCELS.to_bytes(4, "big") and (fault := self.operations.met("connect")) is not None:
            await asyncio.sleep(fault.delay)
            if fault.status is not None:
                return await _refuse(writer, fault)
        server_writer.write(begun)
        answers = asyncio.create_task(_copy(server_reader, writer))
        asks = asyncio.create_task(self._asks(reader, server_writer, answers))
        try:
            await asyncio.wait((answers, asks), return_when=asyncio.FIRST_COMPLETED)
            if answers.cancelled():
                await asyncio.wait((asks,))
            if asks.done():
                fault = asks.result()
                if fault.done:
                    while await _message(server_reader) != b"Z":
                        pass  # until the server is ready for the next statement: this one was carried out
                await _refuse(writer, fault)
        finally:
            for task in (answers, asks):
                task.cancel()
            await asyncio.gather(answers, asks, return_exceptions=True)
        return None

    async def _asks(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, answers: asyncio.Task[None]
    ) -> Fault:
        """Pass messages on until one meets a fault: no answer comes after that. IncompleteReadError at the end."""
        met: Fault | None = None
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            if (before := _STATEMENTS.get(head[:1])) is not None:
                met = self.operations.met(_operation(body.split(b"\0")[before]))
                if met is not None:
                    await asyncio.sleep(met.delay)
                    if met.status is None:
                        met = None
                    else:
                        answers.cancel()
                        if not met.done:
                            return met
            server.write(head + body)
            await server.drain()
            if met is not None and head[:1] in b"QS":  # the whole statement is on its way
                return met

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


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one message; its type."""
    head = await reader.readexactly(5)
    await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
    return head[:1]


def _operation(statement: bytes) -> str:
    words = re.findall(r"[A-Z]+", statement[:40].decode(errors="replace").upper())[:2]
    if not words:
        return "other"
    return " ".join(words) if words[0] in _OF_TWO_WORDS else words[0]


async def _beginning(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The startup message; encryption is declined before."""
    while True:
        head = await reader.readexactly(8)
        if int.from_bytes(head[4:], "big") not in _ASKS_FOR_ENCRYPTION:
            return head + await reader.readexactly(int.from_bytes(head[:4], "big") - 8)
        writer.write(b"N")
        await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, fault: Fault) -> None:
    state = _SQLSTATES.get(fault.status or 503, "XX000")
    body = f"SFATAL\0VFATAL\0C{state}\0Mfailed on purpose\0\0".encode()
    writer.write(b"E" + (len(body) + 4).to_bytes(4, "big") + body)
    await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
