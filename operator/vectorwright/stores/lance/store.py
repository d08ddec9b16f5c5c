"""Lance tables in one folder: the store that a store server owns. Opened by :func:`open_lance`, never by clients.

The folder holds one table an index (``<name>.lance``) and ``backend-id``, its identity. There is one process that
writes to it, which its lock sees to (:mod:`.lock`).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lancedb
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
from .contents import LANCE_ERRORS
from .files import backend_id, clear_remains, fsync_path, table_names, table_path
from .schema import decode_meta, table_schema
from .settings import INDEX_STATE, LANCE_CAPABILITIES, check_lance_settings
from .table import LanceTable

_OPENING = 8
_INDEX_CACHE = 256 * 2**20
_METADATA_CACHE = 64 * 2**20
"""Bytes. The library's own caches take gigabytes where they are not bounded."""
_log = logging.getLogger(__name__)


async def open_lance(root: Path, *, fsync: bool = True) -> LanceStore:
    """Open the tables of a folder, which is made where there is none.

    ``fsync`` flushes every commit to the disk before it is acknowledged. Raises Terminal (``CannotOpen``) where the
    folder cannot be used.
    """
    try:
        root, identity = await asyncio.to_thread(_prepare, root)
        session = lancedb.Session(index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_METADATA_CACHE)
        database = await lancedb.connect_async(str(root), session=session)
        store = LanceStore(root, database, identity, fsync=fsync)
    except LANCE_ERRORS as error:
        raise Terminal(f"{root}: its tables cannot be opened: {error}", reason="CannotOpen") from error
    await store.load()
    return store


def _prepare(root: Path) -> tuple[Path, str]:
    root = root.resolve()  # lancedb takes a name without a slash for a database in its maker's cloud
    root.mkdir(parents=True, exist_ok=True)
    clear_remains(root)
    return root, backend_id(root)


class LanceStore(StoreWithoutAliases, StoreWithoutNamespaces):
    """The store of one folder. Made by :func:`open_lance`."""

    capabilities = LANCE_CAPABILITIES

    def __init__(self, root: Path, database: Any, identity: str, *, fsync: bool) -> None:
        self._root = root
        self._database = database
        self._identity = identity
        self._fsync = fsync
        self._tables: dict[str, LanceTable] = {}
        self._unreadable: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._removals: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Open every table. One that cannot be read is listed, refused, and does not keep the others from work."""
        limit = asyncio.Semaphore(_OPENING)

        async def load_one(name: str) -> None:
            async with limit:
                await self._load_table(name)

        async with asyncio.TaskGroup() as group:
            for name in await asyncio.to_thread(table_names, self._root):
                group.create_task(load_one(name))

    async def _load_table(self, name: str) -> None:
        try:
            handle = await self._database.open_table(name)
            description = decode_meta(await handle.schema())
            if description is None:
                self._unreadable[name] = "was not made by Vectorwright"
                return
            table = self._opened(handle, replace(description, name=name))
            await table.load()
        except LANCE_ERRORS:
            _log.exception("index %s: its table cannot be read", name)
            self._unreadable[name] = "cannot be read: the store server's log says why"
        else:
            self._tables[name] = table

    def _opened(self, handle: Any, description: IndexDescription) -> LanceTable:
        return LanceTable(handle, table_path(self._root, description.name), description, fsync=self._fsync)

    @property
    def broken(self) -> bool:
        """Whether this process must be started again for all tables to take writes."""
        return any(table.broken for table in self._tables.values())

    def _table(self, name: str) -> LanceTable:
        table = self._tables.get(name)
        if table is None:
            if name in self._unreadable:
                raise Terminal(
                    f"index {name!r}: its table {self._unreadable[name]}; repair it or move it away, then start the "
                    "store server again",
                    reason="UnreadableIndex",
                )
            raise NotFound(f"index {name[:200]!r} does not exist in this store")
        return table

    async def probe(self) -> StoreInfo:
        """Who is there."""
        return StoreInfo(
            f"lance {version('lancedb')}, vectorwright {__version__}",
            self._identity,
            str(self._root),
            self.capabilities,
        )

    async def list_indexes(self) -> list[IndexDescription]:
        """Every table, sorted by name, with exact counts, from memory."""
        found = [table.describe() for table in self._tables.values()]
        found += [IndexDescription(name, None, None, incarnation=f"unreadable:{name}") for name in self._unreadable]
        return sorted(found, key=lambda one: one.name)

    async def describe_index(self, name: str) -> IndexDescription:
        """One index. Raises NotFound, or Terminal where its table cannot be read."""
        return self._table(name).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a table. Raises Conflict when the name is taken, Terminal for a bad definition."""
        check_definition(definition, self.capabilities, self.capabilities.mutable_settings)
        check_lance_settings(definition.settings)
        name = definition.name
        description = definition.described(str(uuid.uuid4()))
        async with self._lock:
            if name in self._tables or name in self._unreadable:
                raise Conflict(f"an index named {name!r} exists already in this store", reason="AlreadyExists")
            try:
                handle = await self._database.create_table(name, schema=table_schema(description))
                table = self._opened(handle, description)
                await table.load()
                if self._fsync:
                    await asyncio.to_thread(self._flush, table)
            except LANCE_ERRORS as error:
                _log.exception("index %s: it cannot be made", name)
                raise Retryable(
                    f"index {name}: the store could not make its table ({type(error).__name__}); its log says why",
                    reason="StoreFailed",
                ) from None
            self._tables[name] = table
        return table.describe()

    def _flush(self, table: LanceTable) -> None:
        table.flush_all()
        fsync_path(self._root)

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings and declare fields, filled from the metadata that is there. Raises NotFound, Terminal."""
        table = self._table(name)
        check_lance_settings(settings)
        check_fields(new_fields, self.capabilities)
        await table.update(settings, new_fields)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint. Raises NotFound."""
        await self._table(name).set_mark(mark, model_fingerprint)

    async def delete_index(self, name: str) -> None:
        """Drop a table, in one step; its files go in the background. Raises NotFound."""
        async with self._lock:
            remains = await self._table(name).drop()
            del self._tables[name]
        removal = asyncio.create_task(asyncio.to_thread(shutil.rmtree, remains, ignore_errors=True))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and what its vector index waits for. Raises NotFound."""
        table = self._table(name)
        details = {key: value for key, value in table.describe().settings.items() if key == INDEX_STATE}
        return IndexStatistics(await table.count(None), details=details)

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound."""
        return await self._table(name).count(where)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records; returns when they are committed. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        await self._table(name).upsert(batch)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        return await self._table(name).fetch(ids, vectors=vectors, metadata=metadata)

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest: exactly, unless a vector index was asked for and is built. Raises NotFound, Terminal."""
        asked = np.ascontiguousarray(vector, np.float32)
        return await self._table(name).query(asked, top_k, where, vectors=vectors)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""
        await self._table(name).delete(ids)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        await self._table(name).delete_where(where)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages. Raises NotFound."""
        async for records in self._table(name).scroll(where, vectors=vectors, metadata=metadata, page=page):
            yield records

    async def close(self) -> None:
        """Finish what was accepted, then close. Safe to call twice."""
        await asyncio.gather(*(table.close() for table in self._tables.values()), *self._removals)
        self._tables.clear()
        self._database.close()
