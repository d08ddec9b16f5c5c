"""FAISS indexes in one folder: the store that a store server owns. Opened by :func:`open_faiss`, never by clients.

The folder holds a folder an index (``<name>.faiss``) and ``faiss-id``, its identity. There is one process that writes
to it, which its lock sees to (:mod:`..server.lock`).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from vectorwright import __version__
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal

from ..absent import StoreWithoutAliases, StoreWithoutNamespaces
from ..base import (
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    IndexStatistics,
    Match,
    OwnershipMark,
    Record,
    RecordBatch,
    Setting,
    StoreInfo,
    Vectors,
)
from ..filters import Filter
from ..server_checks import check_definition, check_fields
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


class FaissStore(StoreWithoutAliases, StoreWithoutNamespaces):
    """The store of one folder. Made by :func:`open_faiss`."""

    capabilities = FAISS_CAPABILITIES

    def __init__(
        self, root: Path, identity: str, files: Files, ring: KeyRing, budget: MemoryBudget, min_log: int
    ) -> None:
        self._root = root
        self._identity = identity
        self._files = files
        self._ring = ring
        self._budget = budget
        self._min_log = min_log
        self._indexes: dict[str, FaissIndex] = {}
        self._unreadable: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._removals: set[asyncio.Task[None]] = set()

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
    def broken(self) -> bool:
        """Whether this process must be started again for all indexes to take writes."""
        return any(index.broken for index in self._indexes.values())

    @property
    def damaged(self) -> int:
        """Indexes with damaged parts, or that cannot be read at all."""
        return sum(index.upkeep.damages > 0 for index in self._indexes.values()) + len(self._unreadable)

    def _index(self, name: str) -> FaissIndex:
        index = self._indexes.get(name)
        if index is None:
            if name in self._unreadable:
                raise Terminal(
                    f"index {name!r}: {self._unreadable[name]}; restore its folder or move it away, then start the "
                    "store server again",
                    reason="UnreadableIndex",
                )
            raise NotFound(f"index {name[:200]!r} does not exist in this store")
        return index

    async def probe(self) -> StoreInfo:
        """Who is there."""
        return StoreInfo(
            f"faiss {version('faiss-cpu')}, vectorwright {__version__}",
            self._identity,
            str(self._root),
            self.capabilities,
        )

    async def list_indexes(self) -> list[IndexDescription]:
        """Every index, sorted by name, with exact counts, from memory."""
        found = [index.describe() for index in self._indexes.values()]
        found += [IndexDescription(name, None, None, incarnation=f"unreadable:{name}") for name in self._unreadable]
        return sorted(found, key=lambda one: one.name)

    async def describe_index(self, name: str) -> IndexDescription:
        """One index. Raises NotFound, or Terminal where its files cannot be read."""
        return self._index(name).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make an index. Raises Conflict when the name is taken, Terminal for a bad definition."""
        check_faiss_settings(definition.settings)
        check_definition(definition, self.capabilities, self.capabilities.mutable_settings)
        name = definition.name
        description = definition.described(str(uuid.uuid4()))
        async with self._lock:
            if name in self._indexes or name in self._unreadable:
                raise Conflict(f"an index named {name!r} exists already in this store", reason="AlreadyExists")
            try:
                index = self._serve(index_path(self._root, name), await WRITES.run(self._make, description))
            except OSError as error:
                _log.exception("index %s: it cannot be made", name)
                raise Retryable(
                    f"index {name}: its volume refused to make it: {error.strerror or type(error).__name__}",
                    reason="StoreFailed",
                ) from None
            return index.describe()

    def _make(self, description: IndexDescription) -> Opened:
        making, folder = self._root / f"{NEW}{uuid.uuid4().hex}", index_path(self._root, description.name)
        self._files.make_folder(making)
        write_entry(making, CatalogEntry(description), self._files)
        self._files.rename(making, folder)
        self._files.flush_folder(self._root)
        return open_index(folder, self._files, self._ring)

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings and declare fields. Raises NotFound, Terminal."""
        index = self._index(name)
        check_faiss_settings(settings)
        check_fields(new_fields, self.capabilities)
        await index.update(settings, new_fields)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint. Raises NotFound."""
        await self._index(name).set_mark(mark, model_fingerprint)

    async def delete_index(self, name: str) -> None:
        """Drop an index, in one step; its files go in the background. Raises NotFound."""
        async with self._lock:
            remains = await self._index(name).drop()
            del self._indexes[name]
        removal = asyncio.create_task(WRITES.run(self._files.remove, remains))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and the state of its files. Raises NotFound."""
        return await self._index(name).statistics()

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound."""
        return await self._index(name).count(where)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, all or none; returns when they are on the disk.

        Raises BatchRejected, BatchTooLarge, Retryable, NotFound, and Terminal (``StoreFull``) where they would not fit
        into the memory that this process may take.
        """
        index = self._index(name)
        change = await index.prepare(batch)
        self._budget.check(bytes_of(change), name)
        await index.upsert(change)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        return await self._index(name).fetch(ids, vectors=vectors, metadata=metadata)

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest: exactly, unless an inverted file was asked for and is built. Raises NotFound, Terminal.

        With a filter every record that matches is compared, so that a rare one is found.
        """
        asked = np.ascontiguousarray(vector, np.float32)
        return await self._index(name).query(asked, top_k, where, vectors=vectors)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""
        await self._index(name).delete(ids)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        await self._index(name).delete_where(where)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages. Raises NotFound."""
        async for records in self._index(name).scroll(where, vectors=vectors, metadata=metadata, page=page):
            yield records

    async def settled(self) -> None:
        """Return when no snapshot or training goes on."""
        await asyncio.gather(*(index.upkeep.settled() for index in self._indexes.values()))

    async def close(self) -> None:
        """Finish what was accepted, then close. Safe to call twice."""
        await asyncio.gather(*(index.close() for index in self._indexes.values()), *self._removals)
        self._indexes.clear()
