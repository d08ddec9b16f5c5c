"""The stores that one server process owns: tables in a directory and its folders, and one store in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vectorwright.errors import NotFound, Retryable, Terminal

from ..base import Store
from ..memory import MemoryStore

FOLDER_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}")
MAX_SOCKET_PATH = 103
"""Bytes of the path of a socket: what macOS takes; Linux takes 107."""
_MAX_FOLDERS = 256


@dataclass(frozen=True, slots=True)
class Hosted:
    """What a server is to host. At least one of ``lance`` and ``memory`` is set."""

    lance: Path | None = None
    """Directory of Lance tables."""
    folders: bool = False
    """Whether clients may ask for folders below it, each a store of its own, made when it is first asked for."""
    memory: bool = False
    fsync: bool = True


class HostedStores:
    """Opens stores when they are first asked for, and closes them all."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._memory = MemoryStore() if hosted.memory else None
        self._lance: dict[str, Store] = {}
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Open the store of the directory itself. Raises Terminal where it cannot be read."""
        if self._hosted.lance is not None and not self._hosted.folders:
            await self._open_lance("")

    @property
    def broken(self) -> bool:
        """Whether this process must be started again for all its stores to take writes."""
        return any(getattr(store, "broken", False) for store in self._lance.values())

    async def find(self, provider: str, query: Mapping[str, str]) -> Store:
        """The store of a request. Raises NotFound where this server has none such, Terminal for a wrong folder."""
        folder = query.get("folder", "")
        if provider == "memory" and self._memory is not None and not folder:
            return self._memory
        if provider != "lance" or self._hosted.lance is None or bool(folder) is not self._hosted.folders:
            raise Terminal(
                f"this store server has no {provider[:50]!r} store{' with folders' if folder else ''}: see how it was "
                "started",
                reason="UnknownStore",
            )
        return self._lance.get(folder) or await self._open_lance(folder)

    async def _open_lance(self, folder: str) -> Store:
        root = self._hosted.lance
        if root is None:
            raise NotFound("this store server has no directory")
        if folder:
            if not FOLDER_PATTERN.fullmatch(folder) or any(part.endswith(".lance") for part in folder.split("/")):
                raise Terminal(f"folder {folder[:200]!r} is not one that a store may have", reason="InvalidFolder")
            root = root / folder
        async with self._opening:
            if folder not in self._lance:
                if len(self._lance) >= _MAX_FOLDERS:
                    raise Retryable(f"this store server has {_MAX_FOLDERS} folders open, and opens no more")
                try:
                    from ..lance.store import open_lance  # noqa: PLC0415 - the library takes 140 MB
                except ModuleNotFoundError as error:
                    raise Terminal(
                        f"Lance tables need the package {error.name!r}: install vectorwright[lance]",
                        reason="MissingExtra",
                    ) from None
                self._lance[folder] = await open_lance(root, fsync=self._hosted.fsync)
            return self._lance[folder]

    async def close(self) -> None:
        """Finish what was accepted in every store, then close them."""
        await asyncio.gather(*(store.close() for store in self._lance.values()))
        self._lance.clear()
