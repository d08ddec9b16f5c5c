"""Stores that run beside the operator, for trials: one store server a folder, started when the first index needs it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from vectorwright.stores.local_server import LocalStoreServer

MEMORY_FOLDER = ".memory"
"""Folder of the server that hosts the store in memory; a Lance path never begins with a dot that way."""


class LocalStores:
    """The store servers below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._servers: dict[str, LocalStoreServer] = {}
        self._lock = asyncio.Lock()

    async def socket(self, path: str | None) -> Path:
        """The socket of the server that owns ``path`` below the root; None means the store in memory.

        Raises Retryable when the server does not come up.
        """
        folder = path or MEMORY_FOLDER
        async with self._lock:
            server = self._servers.get(folder)
            if server is None:
                server = LocalStoreServer(self._root / folder)
                await server.start()
                self._servers[folder] = server
            return server.socket

    async def stop(self) -> None:
        """Stop every server."""
        async with self._lock:
            for server in self._servers.values():
                await server.stop()
            self._servers.clear()
