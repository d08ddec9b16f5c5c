"""What listeners in front of servers have in common: a loop in a thread of its own, and connections that all end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AsyncFront(ABC):
    """Listens on a free port of 127.0.0.1, in a thread of its own, until ``close()``."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="async-front", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    @abstractmethod
    async def serve(self, client: Streams) -> None:
        """One connection, closed after that. An OSError or an IncompleteReadError ends it, as it may."""

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._served, self.host, 0)

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self.serve((reader, writer))
            finally:
                writer.close()
                await writer.wait_closed()

    def close(self) -> None:
        """Stop listening, and end what goes through."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        # A connection that was accepted a moment ago has no task yet: it gets one in the next rounds of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
            serving = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


async def passed_on(client: Streams, server: Streams) -> None:
    """Every byte, both ways, until one side is done: nothing that the other could still say matters then."""
    pipes = [asyncio.create_task(copied(client[0], server[1])), asyncio.create_task(copied(server[0], client[1]))]
    try:
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server[1].close()  # before anything that a second cancellation could end
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        await server[1].wait_closed()


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every byte that comes, until the end."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
