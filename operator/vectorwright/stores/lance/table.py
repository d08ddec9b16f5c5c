"""One Lance table: its changes through one committer, its reads beside them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from vectorwright.errors import NotFound, Retryable, Terminal

from ..base import FieldDefinition, IndexDescription, Match, OwnershipMark, Record, RecordBatch, Setting, Vectors
from ..filters import Filter
from ..server_checks import check_batch, check_query
from .committer import IDLE_AFTER, Committer
from .files import DurableFolder, discard
from .filters import column_name, id_list, translate
from .ids import KnownIds
from .reading import IDS_A_REQUEST, Reader, record_columns
from .schema import (
    META_KEY,
    column_field,
    decode_meta,
    decode_rows,
    encode_meta,
    encode_rows,
    field_types,
    new_field_rows,
    newest_of_each,
)
from .settings import EXACT, INDEX_STATE, INDEX_TYPE, IVF_PQ, LANCE_CAPABILITIES, MIN_INDEXED_ROWS
from .upkeep import Backlog, Versions, backlog_of, build_index, compact, index_due, serving, vector_indexes

LANCE_ERRORS = (RuntimeError, ValueError, OSError, pa.lib.ArrowException)
"""What the library raises. Their texts hold paths of this machine: they are logged, not sent."""
_IDS_A_DELETE = 10_000
_LOW_SPACE = 64 * 2**20
_REFINE = 10
"""Times as many candidates are compared by their true vectors where an index holds compressed ones."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class LanceTable:
    """A table that is open. ``handle`` is lancedb's; nobody else writes to it."""

    def __init__(self, handle: Any, path: Path, description: IndexDescription, *, fsync: bool) -> None:
        self._handle = handle
        self._path = path
        self._name = description.name
        self._description = description
        self._types = field_types(description)
        self._folder = DurableFolder(path) if fsync else None
        self._committer = Committer(description.name, self._commit, self._upkeep, IDLE_AFTER)
        self._schema: pa.Schema = pa.schema([])
        self._known: KnownIds | None = None
        self._versions = Versions()
        self._backlog = Backlog()
        self._count = 0
        self._mixed = False
        self._indexes: list[str] = []
        self._dropped = False

    async def load(self) -> None:
        """Read what descriptions and queries need. Raises one of LANCE_ERRORS where the table cannot be read."""
        self._schema = await self._handle.schema()
        self._description = replace(decode_meta(self._schema) or self._description, name=self._name)
        self._types = field_types(self._description)
        self._count = await self._handle.count_rows()
        self._mixed = bool(self._count) and await self._handle.count_rows("mixed") > 0
        self._indexes = await vector_indexes(self._handle)
        self._backlog = await backlog_of(self._handle)
        if self._folder is not None:
            await asyncio.to_thread(self._folder.skip_present)
        if index_due(self._description.settings, self._indexes, self._count):
            self._committer.start()

    def flush_all(self) -> None:
        """Flush all files of the table, from any thread while nobody writes."""
        DurableFolder(self._path).flush()

    @property
    def broken(self) -> bool:
        """Whether the process must be started again for this table to take writes."""
        return self._committer.broken

    def describe(self) -> IndexDescription:
        """The table as it is now, with its exact count and what became of its vector index."""
        settings = self._description.settings
        if settings.get(INDEX_TYPE, EXACT) == EXACT:
            state = "exact"
        elif serving(settings, self._indexes):
            state = "built"
        else:
            state = f"exact until {MIN_INDEXED_ROWS} vectors" if self._count < MIN_INDEXED_ROWS else "exact, building"
        told = {**settings, INDEX_TYPE: settings.get(INDEX_TYPE, EXACT), INDEX_STATE: state}
        return replace(self._description, settings=told, count=self._count)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _check_there(self) -> None:
        if self._dropped:
            raise NotFound(f"index {self._name!r} does not exist in this store")

    def _reader(self) -> Reader:
        self._check_there()
        return Reader(
            self._handle,
            self._description.metric or "",
            self._types,
            self._mixed,
            indexed=serving(self._description.settings, self._indexes),
            refine=_REFINE if self._description.settings.get(INDEX_TYPE) == IVF_PQ else None,
        )

    async def count(self, where: Filter | None) -> int:
        """Exact number of records, of those that match."""
        reader = self._reader()
        return self._count if where is None else await self._read(reader.count(where))

    async def fetch(self, ids: Sequence[str], *, vectors: bool, metadata: bool) -> dict[str, Record]:
        """The records that exist, by id."""
        return await self._read(self._reader().fetch(ids, vectors=vectors, metadata=metadata))

    async def query(self, vector: Vectors, top_k: int, where: Filter | None, *, vectors: bool) -> list[Match]:
        """The nearest. Raises Terminal where the question makes no sense."""
        shape = self._description
        check_query(vector, top_k, index=self._name, dimension=shape.dimension or 0, metric=shape.metric or "")
        return await self._read(self._reader().query(vector, top_k, where, vectors=vectors))

    async def scroll(
        self, where: Filter | None, *, vectors: bool, metadata: bool, page: int
    ) -> AsyncIterator[list[Record]]:
        """All records that match, as they are when it begins. Holds their version until it ends or is closed."""
        reader = self._reader()
        with self._versions.reading():
            try:
                async for rows in reader.matching(where, record_columns(vectors=vectors, metadata=metadata)):
                    for start in range(0, rows.num_rows, max(1, page)):
                        part = rows.slice(start, max(1, page))
                        yield decode_rows(part, vectors=vectors, metadata=metadata)
            except LANCE_ERRORS as error:
                raise self._failed("reading", error) from None

    async def _read(self, call: Awaitable[T]) -> T:
        with self._versions.reading():
            try:
                return await call
            except LANCE_ERRORS as error:
                raise self._failed("reading", error) from None

    def _failed(self, what: str, error: BaseException) -> NotFound | Retryable:
        if self._dropped:
            return NotFound(f"index {self._name!r} was dropped")
        _log.error("index %s: %s failed", self._name, what, exc_info=error)
        if shutil.disk_usage(self._path.parent).free < _LOW_SPACE:
            return Retryable(f"index {self._name}: the volume of its store is full", reason="VolumeFull", after=30.0)
        return Retryable(
            f"index {self._name}: {what} failed in the store ({type(error).__name__}); its log says why",
            reason="StoreFailed",
        )

    # --- writing -----------------------------------------------------------------------------------------------------

    async def upsert(self, batch: RecordBatch) -> None:
        """Write records; returns when they are committed. Raises BatchRejected, BatchTooLarge, Retryable."""
        shape = self._description
        encoded = check_batch(
            batch,
            index=self._name,
            dimension=shape.dimension or 0,
            metric=shape.metric or "",
            capabilities=LANCE_CAPABILITIES,
        )
        if len(batch):
            await self._committer.write(encode_rows(batch, encoded, self._schema, self._types))

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records by id; ids that do not exist are fine."""
        if ids:
            await self._committer.change(lambda: self._changing(lambda: self._delete(ids)))

    async def delete_where(self, where: Filter) -> None:
        """Delete all records that match."""
        await self._committer.change(lambda: self._changing(lambda: self._delete_where(where)))

    async def set_mark(self, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint."""

        async def change() -> None:
            await self._write_meta(replace(self._description, mark=mark, model_fingerprint=model_fingerprint))

        await self._committer.change(lambda: self._changing(change))

    async def update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        """Change settings and declare fields. A vector index that they ask for is built when nobody writes."""
        await self._committer.change(lambda: self._changing(lambda: self._update(settings, new_fields)))

    async def drop(self) -> Path:
        """Take the table away, in one step. Returns the folder that is still to be removed."""

        async def change() -> Path:
            self._dropped = True
            try:
                return await asyncio.to_thread(discard, self._path)
            except OSError:
                self._dropped = False
                raise

        remains = await self._committer.change(lambda: self._changing(change))
        await self.close()
        return remains

    async def close(self) -> None:
        """Finish what was accepted, then close."""
        await self._committer.close()
        self._handle.close()

    async def _changing(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a change; where it fails, what is known of the table is read anew, as it may have been done in part."""
        self._check_there()  # a dropped table would be made again by a write
        began = time.time()
        try:
            result = await call()
            if self._folder is not None and not self._dropped:
                await asyncio.to_thread(self._folder.flush)
        except LANCE_ERRORS as error:
            failed = self._failed("a change", error)
            await self._recover()
            raise failed from None
        self._versions.current_since = began
        return result

    async def _recover(self) -> None:
        self._known = None
        try:
            await self._handle.checkout_latest()
            await self.load()
        except LANCE_ERRORS:
            _log.exception("index %s: it cannot be read after a failed change", self._name)

    async def _commit(self, tables: Sequence[pa.Table]) -> None:
        await self._changing(lambda: self._write(newest_of_each(pa.concat_tables(tables))))

    async def _write(self, rows: pa.Table) -> None:
        if rows.schema.names != self._schema.names:
            rows = self._completed(rows)
        ids = rows.column("id").to_pylist()
        known = await self._known_ids()
        if known.holds_any(ids):
            # No scalar index on id is kept for this search, and none would be used: with one, a merge after a
            # compaction missed rows or failed (lancedb#3177, lance#5321, lance#7803).
            merge = self._handle.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            await merge.use_index(False).execute(rows)
            self._count = await self._handle.count_rows()
        else:
            await self._handle.add(rows)
            self._count += rows.num_rows
        known.add(ids)
        self._mixed = self._mixed or any(rows.column("mixed").to_pylist())
        self._backlog.note(rows.num_rows)

    def _completed(self, rows: pa.Table) -> pa.Table:
        """Rows that were encoded before a field was declared: its column is empty, so their metadata has to be read."""
        for column in self._schema:
            if column.name not in rows.schema.names:
                rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
        unsure = pa.array([True] * rows.num_rows, pa.bool_())
        at = rows.schema.get_field_index("mixed")
        return rows.set_column(at, rows.schema.field(at), unsure)

    async def _known_ids(self) -> KnownIds:
        if self._known is None:
            known = KnownIds()
            async for rows in await self._handle.query().select(["id"]).to_batches():
                known.add(rows.column("id").to_pylist())
            self._known = known
        return self._known

    async def _delete(self, ids: Sequence[str]) -> None:
        if not (await self._known_ids()).holds_any(ids):
            return
        for start in range(0, len(ids), _IDS_A_DELETE):
            await self._delete_sql(id_list(ids[start : start + _IDS_A_DELETE]))

    async def _delete_where(self, where: Filter) -> None:
        sql, exact = translate(where, self._types)
        if exact and not self._mixed:
            await self._delete_sql(sql)
            return
        found = [
            record_id
            async for rows in self._reader().matching(where, ["id"])
            for record_id in rows.column("id").to_pylist()
        ]
        for start in range(0, len(found), IDS_A_REQUEST):
            await self._delete_sql(id_list(found[start : start + IDS_A_REQUEST]))

    async def _delete_sql(self, sql: str) -> None:
        result = await self._handle.delete(sql)
        self._count = await self._handle.count_rows()
        self._backlog.note(result.num_deleted_rows or 0)

    async def _update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        declared = {one.name: one for one in self._description.fields or ()}
        for one in new_fields:
            if declared.get(one.name, one) != one:
                raise Terminal(
                    f"index {self._name}: metadata field {one.name!r} is declared as {declared[one.name].type} already",
                    reason="InvalidField",
                )
        added = [one for one in new_fields if one.name not in declared]
        if added:
            await self._add_columns(added)
        await self._write_meta(
            replace(
                self._description,
                settings={**self._description.settings, **settings},
                fields=(*(self._description.fields or ()), *added),
            )
        )

    async def _add_columns(self, added: Sequence[FieldDefinition]) -> None:
        """Add columns and fill them from the metadata. Declared only afterwards: until then nobody reads them."""
        names = set((await self._handle.schema()).names)
        columns = [column_field(one.name, one.type) for one in added if column_name(one.name) not in names]
        if columns:
            await self._handle.add_columns(columns)
        schema = await self._handle.schema()
        with self._versions.reading():
            scan = self._handle.query().select(["id", "metadata", "mixed"])
            async for rows in await scan.to_batches():
                filled, count = new_field_rows(rows, added, schema)
                if count:
                    await self._handle.merge_insert("id").when_matched_update_all().use_index(False).execute(filled)
                    self._backlog.note(count)
        self._mixed = await self._handle.count_rows("mixed") > 0

    async def _write_meta(self, description: IndexDescription) -> None:
        update = {"path": "id", "metadata": {META_KEY: encode_meta(description)}}
        await self._handle.update_field_metadata(update)
        self._description = description
        self._types = field_types(description)
        self._schema = await self._handle.schema()

    # --- upkeep ------------------------------------------------------------------------------------------------------

    async def _upkeep(self, idle: bool) -> bool:
        """Merge files and build the vector index where that is due; what fails is tried again after more writes."""
        settings = self._description.settings
        try:
            if self._dropped:
                return False
            if self._backlog.is_due(self._count):
                await self._changing(lambda: compact(self._handle, self._versions, self._name))
                self._backlog = Backlog()
            if idle and index_due(settings, self._indexes, self._count):
                await self._changing(lambda: self._build_index(settings))
        except Retryable:
            self._backlog = Backlog()
            return False
        return index_due(settings, self._indexes, self._count)

    async def _build_index(self, settings: Mapping[str, Setting]) -> None:
        shape = self._description
        await build_index(
            self._handle,
            settings,
            self._indexes,
            metric=shape.metric or "",
            dimension=shape.dimension or 0,
            rows=self._count,
        )
        self._indexes = await vector_indexes(self._handle)
