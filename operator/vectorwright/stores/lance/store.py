"""Lance tables in one folder: the store that a store server owns. Opened by :func:`open_lance`, never by clients.

The folder holds one table an index (``<name>.lance``) and ``backend-id``, its identity. There is one process that
writes to it, which its lock sees to (:mod:`.lock`).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lancedb

from vectorwright.errors import Retryable, Terminal

from ..base import IndexDescription, IndexStatistics, RecordBatch, Setting
from ..folder_store import FolderStore
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


class LanceStore(FolderStore[LanceTable]):
    """The store of one folder. Made by :func:`open_lance`."""

    capabilities = LANCE_CAPABILITIES
    library = ("lance", "lancedb")
    mending = "repair its table or move it away"

    def __init__(self, root: Path, database: Any, identity: str, *, fsync: bool) -> None:
        super().__init__(root, identity)
        self._database = database
        self._fsync = fsync

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
                self._unreadable[name] = "its table was not made by Vectorwright"
                return
            table = self._opened(handle, replace(description, name=name))
            await table.load()
        except LANCE_ERRORS:
            _log.exception("index %s: its table cannot be read", name)
            self._unreadable[name] = "its table cannot be read: the store server's log says why"
        else:
            self._indexes[name] = table

    def _opened(self, handle: Any, description: IndexDescription) -> LanceTable:
        return LanceTable(handle, table_path(self._root, description.name), description, fsync=self._fsync)

    def _check_settings(self, settings: Mapping[str, Setting]) -> None:
        check_lance_settings(settings)

    async def _make(self, description: IndexDescription) -> LanceTable:
        name = description.name
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
        return table

    def _flush(self, table: LanceTable) -> None:
        table.flush_all()
        fsync_path(self._root)

    async def _remove(self, remains: Path) -> None:
        await asyncio.to_thread(shutil.rmtree, remains, ignore_errors=True)

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and what its vector index waits for. Raises NotFound."""
        table = self._index(name)
        details = {key: value for key, value in table.describe().settings.items() if key == INDEX_STATE}
        return IndexStatistics(await table.count(None), details=details)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records; returns when they are committed. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        await self._index(name).upsert(batch)

    async def close(self) -> None:
        """Finish what was accepted, then close. Safe to call twice."""
        await super().close()
        self._database.close()
