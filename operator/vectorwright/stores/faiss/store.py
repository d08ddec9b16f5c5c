"""FAISS indexes in one folder: the store that a store server owns. Opened by :func:`open_faiss`, never by clients.

The folder holds a folder an index (``<name>.faiss``) and ``faiss-id``, its identity. There is one process that writes
to it, which its lock sees to (:mod:`..server.lock`).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path

from vectorwright.errors import Retryable, Terminal

from ..base import IndexDescription, IndexStatistics, RecordBatch, Setting
from ..folder_store import FolderStore
from .budget import MemoryBudget
from .catalog import CatalogEntry, write_entry
from .committer import bytes_of
from .files import NEW, Files, backend_id, clear_remains, index_names, index_path
from .index import FaissIndex
from .keys import KeyRing
from .opening import Opened, open_index
from .pools import UPKEEP, WRITES
from .settings import FAISS_CAPABILITIES, check_faiss_settings
from .upkeep import MIN_LOG

_log = logging.getLogger(__name__)


async def open_faiss(
    root: Path,
    *,
    files: Files | None = None,
    ring: KeyRing | None = None,
    budget: MemoryBudget | None = None,
    min_log: int = MIN_LOG,
) -> FaissStore:
    """Open the indexes of a folder, which is made where there is none.

    ``files`` is how bytes reach the disk, ``ring`` the keys that indexes are encrypted with, ``budget`` the memory that
    all stores of this process share, ``min_log`` the bytes of an index's log below which no snapshot is written.
    Raises Terminal (``CannotOpen``) where the folder cannot be used, and (``WrongEncryptionKey``) where an index is
    encrypted with a key that is not here: then nothing was changed.
    """
    files = files or Files()
    try:
        root, identity = await UPKEEP.run(_prepare, root, files)
    except OSError as error:
        raise Terminal(f"{root} cannot be used as a store's directory: {error.strerror}", reason="CannotOpen") from None
    store = FaissStore(root, identity, files, ring or KeyRing(), budget or MemoryBudget(), min_log)
    await store.load()
    return store


def _prepare(root: Path, files: Files) -> tuple[Path, str]:
    root = root.resolve()
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    files.make_folder(root)
    for folder in missing:
        files.flush_folder(folder.parent)
    clear_remains(root, files)
    return root, backend_id(root, files)


class FaissStore(FolderStore[FaissIndex]):
    """The store of one folder. Made by :func:`open_faiss`."""

    capabilities = FAISS_CAPABILITIES
    library = ("faiss", "faiss-cpu")
    mending = "restore its folder or move it away"

    def __init__(
        self, root: Path, identity: str, files: Files, ring: KeyRing, budget: MemoryBudget, min_log: int
    ) -> None:
        super().__init__(root, identity)
        self._files = files
        self._ring = ring
        self._budget = budget
        self._min_log = min_log

    async def load(self) -> None:
        """Open every index. One that cannot be read is listed, refused, and does not keep the others from work."""
        for name in await UPKEEP.run(index_names, self._root):
            folder = index_path(self._root, name)
            try:
                self._serve(folder, await UPKEEP.run(open_index, folder, self._files, self._ring))
            except OSError as error:
                _log.exception("index %s: its files cannot be read", name)
                self._unreadable[name] = f"cannot be read ({error.strerror}): the store server's log says why"
            except Terminal as error:
                if error.reason != "UnreadableIndex":
                    await self.close()
                    raise
                _log.exception("index %s: its files cannot be read", name)
                self._unreadable[name] = f"cannot be read: {error.message}"
        for index in self._indexes.values():
            index.upkeep.nudge()

    def _serve(self, folder: Path, opened: Opened) -> FaissIndex:
        index = FaissIndex(folder, opened, self._files, self._ring, self._min_log)
        self._indexes[folder.name.removesuffix(folder.suffix)] = index
        self._budget.watch(index)
        return index

    @property
    def damaged(self) -> int:
        """Indexes with damaged parts, or that cannot be read at all."""
        return sum(index.upkeep.damages > 0 for index in self._indexes.values()) + len(self._unreadable)

    def _check_settings(self, settings: Mapping[str, Setting]) -> None:
        check_faiss_settings(settings)

    async def _make(self, description: IndexDescription) -> FaissIndex:
        name = description.name
        try:
            return self._serve(index_path(self._root, name), await WRITES.run(self._made, description))
        except OSError as error:
            _log.exception("index %s: it cannot be made", name)
            raise Retryable(
                f"index {name}: its volume refused to make it: {error.strerror or type(error).__name__}",
                reason="StoreFailed",
            ) from None

    def _made(self, description: IndexDescription) -> Opened:
        making, folder = self._root / f"{NEW}{uuid.uuid4().hex}", index_path(self._root, description.name)
        self._files.make_folder(making)
        write_entry(making, CatalogEntry(description), self._files)
        self._files.rename(making, folder)
        self._files.flush_folder(self._root)
        return open_index(folder, self._files, self._ring)

    async def _remove(self, remains: Path) -> None:
        await WRITES.run(self._files.remove, remains)

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and the state of its files. Raises NotFound."""
        return await self._index(name).statistics()

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, all or none; returns when they are on the disk.

        Raises BatchRejected, BatchTooLarge, Retryable, NotFound, and Terminal (``StoreFull``) where they would not fit
        into the memory that this process may take.
        """
        index = self._index(name)
        change = await index.prepare(batch)
        self._budget.check(bytes_of(change), name)
        await index.upsert(change)

    async def settled(self) -> None:
        """Return when no snapshot or training goes on."""
        await asyncio.gather(*(index.upkeep.settled() for index in self._indexes.values()))
