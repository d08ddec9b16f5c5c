"""The stores that one server process owns: Lance tables and FAISS indexes in directories, and one store in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vectorwright.errors import Retryable, Terminal

from ..base import Store
from ..memory import MemoryStore

FOLDER_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}")
MAX_SOCKET_PATH = 103
"""Bytes of the path of a socket: what macOS takes; Linux takes 107."""
_MAX_FOLDERS = 256
_OWN_FOLDERS = (".lance", ".faiss")
"""How the folders of single tables and indexes end."""


@dataclass(frozen=True, slots=True)
class HostedDirectory:
    """A directory of tables or indexes."""

    path: Path
    folders: bool = False
    """Whether clients ask for folders below it, each a store of its own, made when it is first asked for."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """What a server is to host. At least one of ``lance``, ``faiss`` and ``memory`` is set."""

    lance: HostedDirectory | None = None
    """Lance tables."""
    faiss: HostedDirectory | None = None
    """FAISS indexes; may be the same directory."""
    memory: bool = False
    fsync: bool = True
    encryption_key_file: Path | None = None
    """Keys that FAISS indexes are encrypted with at rest."""
    faiss_memory: int | None = None
    """Bytes that all FAISS indexes together may take; three quarters of what there is when left out."""

    @property
    def directories(self) -> Mapping[str, HostedDirectory]:
        """The directories by provider."""
        found = {"lance": self.lance, "faiss": self.faiss}
        return {provider: one for provider, one in found.items() if one is not None}


class HostedStores:
    """Opens stores when they are first asked for, and closes them all."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._memory = MemoryStore() if hosted.memory else None
        self._opened: dict[tuple[str, str], Store] = {}
        self._opening = asyncio.Lock()
        self._faiss: FaissOpener | None = None

    async def open(self) -> None:
        """Open the stores of the directories themselves. Raises Terminal where one cannot be read."""
        if self._hosted.faiss is not None:
            self._faiss = FaissOpener(self._hosted)
        for provider, directory in self._hosted.directories.items():
            if not directory.folders:
                await self._open(provider, directory, "")

    @property
    def broken(self) -> bool:
        """Whether this process must be started again for all its stores to take writes."""
        return any(getattr(store, "broken", False) for store in self._opened.values())

    @property
    def damaged(self) -> int:
        """Indexes of which something could not be read."""
        return sum(int(getattr(store, "damaged", 0)) for store in self._opened.values())

    async def find(self, provider: str, query: Mapping[str, str]) -> Store:
        """The store of a request. Raises Terminal where this server has none such, or for a wrong folder."""
        folder = query.get("folder", "")
        if provider == "memory" and self._memory is not None and not folder:
            return self._memory
        directory = self._hosted.directories.get(provider)
        if directory is None or bool(folder) is not directory.folders:
            raise Terminal(
                f"this store server has no {provider[:50]!r} store{' with folders' if folder else ''}: see how it was "
                "started",
                reason="UnknownStore",
            )
        return self._opened.get((provider, folder)) or await self._open(provider, directory, folder)

    async def _open(self, provider: str, directory: HostedDirectory, folder: str) -> Store:
        root = directory.path
        if folder:
            if not FOLDER_PATTERN.fullmatch(folder) or any(part.endswith(_OWN_FOLDERS) for part in folder.split("/")):
                raise Terminal(f"folder {folder[:200]!r} is not one that a store may have", reason="InvalidFolder")
            root = root / folder
        async with self._opening:
            if (provider, folder) not in self._opened:
                if len(self._opened) >= _MAX_FOLDERS:
                    raise Retryable(f"this store server has {_MAX_FOLDERS} folders open, and opens no more")
                self._opened[provider, folder] = await self._opened_at(provider, root)
            return self._opened[provider, folder]

    async def _opened_at(self, provider: str, root: Path) -> Store:
        try:
            if self._faiss is not None and provider == "faiss":
                return await self._faiss.open(root)
            from ..lance.store import open_lance  # noqa: PLC0415 - the library takes 140 MB

            return await open_lance(root, fsync=self._hosted.fsync)
        except ModuleNotFoundError as error:
            raise Terminal(
                f"{provider} stores need the package {error.name!r}: install vectorwright[{provider}]",
                reason="MissingExtra",
            ) from None

    async def close(self) -> None:
        """Finish what was accepted in every store, then close them."""
        await asyncio.gather(*(store.close() for store in self._opened.values()))
        self._opened.clear()


class FaissOpener:
    """Opens FAISS stores with the keys and the memory that they share."""

    def __init__(self, hosted: Hosted) -> None:
        """Reads the keys. Raises Terminal (``InvalidEncryptionKey``)."""
        from ..faiss.budget import MemoryBudget  # noqa: PLC0415 - only who hosts it loads it
        from ..faiss.keys import read_keys  # noqa: PLC0415

        self._fsync = hosted.fsync
        self._ring = read_keys(hosted.encryption_key_file)
        self._budget = MemoryBudget(hosted.faiss_memory)

    async def open(self, root: Path) -> Store:
        """The store of one folder. Raises Terminal."""
        from ..faiss.files import Files  # noqa: PLC0415
        from ..faiss.store import open_faiss  # noqa: PLC0415 - the library takes 70 MB

        return await open_faiss(root, files=Files(fsync=self._fsync), ring=self._ring, budget=self._budget)
