"""Lance tables in a bucket (S3, GCS, Azure), reached directly by the operator and every worker: no store server.

Below the prefix are ``_vectorwright/<index>.head.json``, the head of each table (:mod:`.heads`), and a folder a table,
``<index>.<8 hex digits>.lance``. Listing and describing need the heads alone; the Lance library (160 MiB) is loaded for
the first request that reads or writes records or a schema.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from vectorwright import __version__
from vectorwright.errors import Conflict, NotFound, Retryable, VectorwrightError

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
from ..registry import Connection
from .bucket import Bucket
from .bucket_checks import backend_identity, check_conditional_writes
from .bucket_errors import bucket_error
from .heads import GONE, MAKING, READY, Head, HeadMoved, Heads, Objects, Seen, told
from .lease import LEASE_SECONDS
from .removal import Removals
from .settings import BUCKET_CAPABILITIES, INDEX_STATE, check_bucket_settings

if TYPE_CHECKING:
    from .bucket_table import BucketTable

SUFFIX = ".lance"
_CHECK_AGAIN = 3600.0
"""Seconds after which a probe checks the bucket anew by writing to it; between, it reads."""
_INDEX_CACHE = 256 * 2**20
_METADATA_CACHE = 64 * 2**20
_MAKING_POLL = 0.25
_log = logging.getLogger(__name__)


def open_bucket(connection: Connection, bucket: Bucket) -> BucketStore:
    """The store of a bucket. No request is made yet."""
    return BucketStore(bucket, connection.max_concurrency)


class BucketStore(StoreWithoutAliases, StoreWithoutNamespaces):
    """The tables below one prefix of a bucket."""

    capabilities = BUCKET_CAPABILITIES

    def __init__(self, bucket: Bucket, concurrency: int) -> None:
        self._bucket = bucket
        self._objects = Objects(bucket, asyncio.Semaphore(concurrency))
        self._reads = asyncio.Semaphore(concurrency)
        self._heads = Heads(self._objects)
        self._removals = Removals(self._objects, self._heads)
        self._tables: dict[str, BucketTable] = {}
        self._database: Any = None
        self._connecting = asyncio.Lock()
        self._checked: float | None = None
        self._closed = False

    # --- the library -------------------------------------------------------------------------------------------------

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._closed:
                raise Retryable(f"{self._bucket.label}: this store is closed", reason="Closed")
            if self._database is None:
                # It takes seconds to load: not in the event loop.
                lancedb = await asyncio.to_thread(importlib.import_module, "lancedb")
                errors = (await asyncio.to_thread(importlib.import_module, f"{__package__}.contents")).LANCE_ERRORS
                session = lancedb.Session(
                    index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_METADATA_CACHE
                )
                try:
                    self._database = await lancedb.connect_async(
                        self._bucket.uri, storage_options=dict(self._bucket.lance), session=session
                    )
                except errors as error:
                    raise bucket_error(self._bucket, "opening the bucket", error) from None
            return self._database

    async def _open_table(self, location: str) -> Any:
        return await (await self._connected()).open_table(location.removesuffix(SUFFIX))

    def _table(self, name: str) -> BucketTable:
        table = self._tables.get(name)
        if table is None or table.broken:
            from .bucket_table import BucketTable  # noqa: PLC0415 - what only reads heads needs no Arrow

            table = BucketTable(name, self._bucket, self._heads, self._open_table, self._reads)
            self._tables[name] = table
        return table

    # --- the store ---------------------------------------------------------------------------------------------------

    async def probe(self) -> StoreInfo:
        """Who is there, and whether tables can be held there: the bucket is written to, once an hour.

        Raises Terminal with the reason BucketNotFound, AccessDenied, WrongRegion or ConditionalWritesMissing.
        """
        now = time.monotonic()
        if self._checked is None or now - self._checked > _CHECK_AGAIN:
            await self._check()
        identity = await backend_identity(self._objects)
        return StoreInfo(
            f"lance {version('lancedb')}, vectorwright {__version__}",
            identity,
            self._bucket.label,
            self.capabilities,
        )

    async def _check(self) -> None:
        await check_conditional_writes(self._objects)
        await backend_identity(self._objects)  # made with the first index, not by who only looks
        self._checked = time.monotonic()

    async def _check_before_change(self) -> None:
        if self._checked is None:
            await self._check()

    async def list_indexes(self) -> list[IndexDescription]:
        """Every table, sorted by name, with exact counts: two requests a thousand, and one for each that changed."""
        heads = await self._heads.all()
        found: list[IndexDescription] = []
        locations: set[str] = set()
        for name, seen in heads.items():
            if isinstance(seen, VectorwrightError):
                found.append(IndexDescription(name, None, None, incarnation=f"unreadable:{name}"))
                continue
            locations.update((seen.head.location, *seen.head.remains))
            if seen.head.state == READY:
                found.append(told(seen.head))
            self._removals.notice(name, seen.head)
        prefix = f"{self._bucket.prefix}/" if self._bucket.prefix else ""
        taken = {one.name for one in found}
        for folder in await self._objects.folders("listing tables", prefix):
            name = folder.removesuffix(SUFFIX)
            if folder.endswith(SUFFIX) and folder not in locations and name not in taken and not _is_ours(name):
                found.append(IndexDescription(name, None, None, incarnation=f"foreign:{name}"))
        return sorted(found, key=lambda one: one.name)

    async def _ready(self, name: str) -> Head:
        seen = await self._heads.read(name)
        if seen is None or seen.head.state != READY:
            raise NotFound(f"index {name[:200]!r} does not exist in this store")
        return seen.head

    async def describe_index(self, name: str) -> IndexDescription:
        """One index: one request. Raises NotFound, or Terminal where its head cannot be read."""
        return told(await self._ready(name))

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a table. Raises Conflict when the name is taken, Terminal for a bad definition."""
        from ..server_checks import check_definition  # noqa: PLC0415 - numpy is for those who handle vectors

        check_definition(definition, self.capabilities, self.capabilities.mutable_settings)
        check_bucket_settings(definition.settings)
        await self._check_before_change()
        name = definition.name
        incarnation = str(uuid.uuid4())
        description = definition.described(incarnation, count=0)
        making, seen = await self._reserved(name, description, f"{name}.{incarnation[:8]}{SUFFIX}")
        await self._make(name, making)
        return told(await self._made(name, making, seen))

    async def _reserved(self, name: str, description: IndexDescription, location: str) -> tuple[Head, Seen]:
        """The head that takes a free name, as it was written. Raises Conflict where somebody else has the name."""
        while True:
            seen = await self._free(name)
            remains = (*seen.head.remains, *_unfinished(seen.head)) if seen else ()
            making = Head(MAKING, location, description, remains=remains)
            try:
                return making, await self._heads.write(name, making, seen)
            except HeadMoved:
                # Somebody took the name, or only removed what was left of the table before: that is looked at now.
                found = await self._heads.read(name)
                if found is not None and found.head.state != GONE:
                    raise _taken(name) from None

    async def _made(self, name: str, making: Head, seen: Seen) -> Head:
        """Make the head of what was being made ready. Raises Conflict where it is another's by now."""
        while True:
            ready = replace(seen.head, state=READY, version=1)
            try:
                return (await self._heads.write(name, ready, seen)).head
            except HeadMoved:
                found = await self._heads.read(name)  # remains of the table before it were removed meanwhile
            if found is None or found.head.state != MAKING or found.head.location != making.location:
                raise _taken(name)
            seen = found

    async def _free(self, name: str) -> Seen | None:
        """The head to write over. Raises Conflict where the name is taken; waits for one who is making it."""
        watched, since = "", 0.0
        while True:
            seen = await self._heads.read(name)
            if seen is None or seen.head.state == GONE:
                return seen
            if seen.head.state == READY:
                raise _taken(name)
            now = time.monotonic()
            if seen.head.nonce != watched:
                watched, since = seen.head.nonce, now
            elif now - since > LEASE_SECONDS:
                return seen  # who was making it died
            await asyncio.sleep(_MAKING_POLL)

    async def _make(self, name: str, making: Head) -> None:
        database = await self._connected()
        contents = importlib.import_module(f"{__package__}.contents")
        schema = importlib.import_module(f"{__package__}.schema").table_schema(making.description)
        try:
            handle = await database.create_table(making.location.removesuffix(SUFFIX), schema=schema)
        except contents.LANCE_ERRORS as error:
            failed = bucket_error(self._bucket, f"making index {name}", error)
            if failed.reason == "StoreFailed":
                _log.error("index %s: it cannot be made", name, exc_info=error)
            raise failed from None
        handle.close()

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings and declare fields, filled from the metadata that is there. Raises NotFound, Terminal."""
        from ..server_checks import check_fields  # noqa: PLC0415

        check_bucket_settings(settings)
        check_fields(new_fields, self.capabilities)
        await self._ready(name)
        await self._check_before_change()
        await self._table(name).update(settings, new_fields)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint. Raises NotFound."""
        await self._ready(name)
        await self._check_before_change()
        await self._table(name).set_mark(mark, model_fingerprint)

    async def delete_index(self, name: str) -> None:
        """Drop a table, in one step; its objects go in the background. Raises NotFound."""
        while True:
            seen = await self._heads.read(name)
            if seen is None or seen.head.state != READY:
                raise NotFound(f"index {name[:200]!r} does not exist in this store")
            head = seen.head
            gone = replace(head, state=GONE, holder=None, remains=(*head.remains, head.location))
            with suppress(HeadMoved):  # a writer was quicker: what it wrote goes, too
                await self._heads.write(name, gone, seen)
                break
        self._removals.start(name)

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and what its vector index waits for. Raises NotFound."""
        head = await self._ready(name)
        details: dict[str, Setting] = {INDEX_STATE: told(head).settings[INDEX_STATE], "version": head.version}
        return IndexStatistics(head.description.count or 0, details=details)

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound."""
        if where is None:
            return (await self._ready(name)).description.count or 0
        return await self._table(name).count(where)

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records; returns when they are committed. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        await self._check_before_change()
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
        import numpy as np  # noqa: PLC0415 - for those who handle vectors

        asked = np.ascontiguousarray(vector, np.float32)
        return await self._table(name).query(asked, top_k, where, vectors=vectors)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""
        await self._check_before_change()
        await self._table(name).delete(ids)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        await self._check_before_change()
        await self._table(name).delete_where(where)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records of the version that is the table when it begins, in pages. Raises NotFound."""
        async for records in self._table(name).scroll(where, vectors=vectors, metadata=metadata, page=page):
            yield records

    async def close(self) -> None:
        """Finish what was accepted, then close. Safe to call twice."""
        tables, self._tables = self._tables, {}
        await asyncio.gather(*(table.close() for table in tables.values()))
        await self._removals.close()
        self._closed = True
        if self._database is not None:
            self._database.close()
            self._database = None


def _taken(name: str) -> Conflict:
    return Conflict(f"an index named {name!r} exists already in this store", reason="AlreadyExists")


def _unfinished(head: Head) -> tuple[str, ...]:
    return (head.location,) if head.state == MAKING else ()


def _is_ours(name: str) -> bool:
    """Whether a folder without a head is what is left of a table of ours: its making or its removal goes on."""
    _, _, digits = name.rpartition(".")
    return len(digits) == 8 and all(digit in "0123456789abcdef" for digit in digits)
