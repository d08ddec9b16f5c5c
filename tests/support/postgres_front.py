"""A proxy before a real PostgreSQL server that counts what is asked and fails it on purpose. It keeps no request."""

from __future__ import annotations

import asyncio
import re

from tests.support.async_front import AsyncFront, Streams, copied
from tests.support.operations import Fault, Operations

_ASKS_FOR_ENCRYPTION = {80877103, 80877104}
_CANCELS = 80877102
_SQLSTATES = {401: "28P01", 403: "42501", 429: "53300", 500: "XX000", 503: "57P03"}
_OF_TWO_WORDS = {"CREATE", "ALTER", "DROP"}
_STATEMENTS = {b"Q": 0, b"P": 1}
"""Message → how many strings come before its statement."""


class PostgresFront(AsyncFront):
    """Stands in front of the server at ``port``.

    Operations are ``connect`` and the first word of a statement in capitals, two words for those that begin with
    CREATE, ALTER or DROP. A fault's status is said as the SQLSTATE that comes nearest: 401 as 28P01, 403 as 42501, 429
    as 53300, 503 as 57P03; it ends the connection, so that with ``done`` nobody knows what became of the statement.
    """

    def __init__(self, port: int) -> None:
        self.operations = Operations()
        self._target = port
        super().__init__()

    async def serve(self, client: Streams) -> None:
        server = await asyncio.open_connection(self.host, self._target)
        try:
            await self._session(client, server)
        finally:
            server[1].close()
            await server[1].wait_closed()

    async def _session(self, client: Streams, server: Streams) -> None:
        begun = await _beginning(*client)
        if begun[4:8] != _CANCELS.to_bytes(4, "big") and (fault := self.operations.met("connect")) is not None:
            await asyncio.sleep(fault.delay)
            if fault.status is not None:
                return await _refuse(client[1], fault)
        server[1].write(begun)
        answers = asyncio.create_task(copied(server[0], client[1]))
        asks = asyncio.create_task(self._asks(client[0], server[1], answers))
        try:
            await asyncio.wait((answers, asks), return_when=asyncio.FIRST_COMPLETED)
            if answers.cancelled():
                await asyncio.wait((asks,))
            if asks.done():
                fault = asks.result()
                if fault.done:
                    while await _message(server[0]) != b"Z":
                        pass  # until the server is ready for the next statement: this one was carried out
                await _refuse(client[1], fault)
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
