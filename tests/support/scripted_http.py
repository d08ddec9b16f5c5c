"""A server that answers each request with prepared bytes: for faults that no real API server shows on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

Script = Callable[[int, str], bytes | None]
"""Number of the request and its first line → the raw answer; ends the connection when None."""


def answer(status: int, body: object, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} x", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + data


def refusal(status: int, reason: str) -> bytes:
    return answer(status, {"kind": "Status", "code": status, "reason": reason, "message": reason})


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[str, list[str]]]:
    """The URL, and the first lines of the requests so far. An answer with ``Connection: close`` is its last."""
    seen: list[str] = []
    open_connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_connections.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (int(line.partition(":")[2]) for line in head.lower().split("\r\n") if "content-length" in line), 0
                )
                await reader.readexactly(length)
                first = head.split("\r\n", 1)[0]
                seen.append(first)
                raw = script(len(seen), first)
                if raw is None:
                    return
                writer.write(raw)
                await writer.drain()
                if b"Connection: close" in raw:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            open_connections.discard(task)
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
        for task in list(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)
        await server.wait_closed()
