"""One table in a bucket: its changes through this process' committer and the table's lease, its reads beside them."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa

from vectorwright.errors import BatchRejected, Retryable, VectorwrightError

from ..base import FieldDefinition, IndexDescription, Match, OwnershipMark, Record, RecordBatch, Setting, Vectors
from ..filters import Filter
from ..server_checks import check_batch, check_query
from .bucket import Bucket
from .bucket_errors import bucket_error, is_commit_conflict, is_missing
from .committer import IDLE_AFTER, Committer
from .contents import LANCE_ERRORS, reader_of
from .fenced import FencedContents, Interfered
from .heads import READY, Head, HeadMoved, Heads, told
from .lease import Lease
from .reading import Reader, record_columns
from .schema import decode_rows, encode_rows, field_types, newest_of_each, table_schema
from .settings import BUCKET_CAPABILITIES, COMPACT_AFTER
from .upkeep import MIN_COMMITS

_HANDLES = 4
_TRIES = 5
_READING, _CHANGING, _UPKEEP = 4, 10, 60
"""Times the timeout of one request that a read, a change, and a merge of files or the building of an index may take."""

T = TypeVar("T")
OpenTable = Callable[[str], Awaitable[Any]]
"""Opens the table of a folder, by its name for lancedb."""
_log = logging.getLogger(__name__)


class BucketTable:
    """A table by its name. ``open_table`` opens the table of a folder."""

    def __init__(
        self, name: str, bucket: Bucket, heads: Heads, open_table: OpenTable, limit: asyncio.Semaphore
    ) -> None:
        self._name = name
        self._bucket = bucket
        self._heads = heads
        self._open_table = open_table
        self._limit = limit
        self._lease = Lease(heads, name)
        self._committer = Committer(name, self._commit, self._upkeep, IDLE_AFTER)
        self._contents: FencedContents | None = None
        self._encoding: Head | None = None
        self._handles: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._opening = asyncio.Lock()
        self._wrote = False

    @property
    def broken(self) -> bool:
        """Whether its committer ended by itself."""
        return self._committer.broken

    async def head(self) -> Head:
        """The head as it is now. Raises NotFound."""
        seen = await self._heads.read(self._name)
        if seen is None or seen.head.state != READY:
            self._encoding = None
            raise self._lease.absent()
        return seen.head

    # --- reading -----------------------------------------------------------------------------------------------------

    async def describe(self) -> IndexDescription:
        """The table as it is now."""
        return told(await self.head())

    async def count(self, where: Filter | None) -> int:
        """Exact number of records, of those that match."""
        head = await self.head()
        if where is None:
            return head.description.count or 0
        return await self._read(head, lambda reader: reader.count(where))

    async def fetch(self, ids: Sequence[str], *, vectors: bool, metadata: bool) -> dict[str, Record]:
        """The records that exist, by id."""
        head = await self.head()
        if not ids:
            return {}
        return await self._read(head, lambda reader: reader.fetch(ids, vectors=vectors, metadata=metadata))

    async def query(self, vector: Vectors, top_k: int, where: Filter | None, *, vectors: bool) -> list[Match]:
        """The nearest. Raises Terminal where the question makes no sense."""
        head = await self.head()
        shape = head.description
        check_query(vector, top_k, index=self._name, dimension=shape.dimension or 0, metric=shape.metric or "")
        return await self._read(head, lambda reader: reader.query(vector, top_k, where, vectors=vectors))

    async def scroll(
        self, where: Filter | None, *, vectors: bool, metadata: bool, page: int
    ) -> AsyncIterator[list[Record]]:
        """All records that match, of the version that is the table when it begins."""
        head = await self.head()
        columns = record_columns(vectors=vectors, metadata=metadata)
        try:
            pages = (await self._answered(head, _itself)).matching(where, columns)
            while (rows := await self._next(pages)) is not None:
                for start in range(0, rows.num_rows, max(1, page)):
                    part = rows.slice(start, max(1, page))
                    yield decode_rows(part, vectors=vectors, metadata=metadata)
        except LANCE_ERRORS as error:
            if is_missing(str(error)):
                await self.head()  # NotFound where it was dropped meanwhile
            raise self._failed("reading", error) from None

    async def _next(self, pages: AsyncIterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        async with asyncio.timeout(_READING * self._bucket.timeout):
            return await anext(pages, None)

    async def _read(self, head: Head, call: Callable[[Any], Awaitable[T]]) -> T:
        async with self._limit:
            try:
                return await self._answered(head, call)
            except LANCE_ERRORS as error:
                if not is_missing(str(error)):
                    raise self._failed("reading", error) from None
                now = await self._after_missing(head, error)
            try:
                return await self._answered(now, call)
            except LANCE_ERRORS as error:
                raise self._failed("reading", error) from None

    async def _answered(self, head: Head, call: Callable[[Any], Awaitable[T]]) -> T:
        async with asyncio.timeout(_READING * self._bucket.timeout):
            return await call(await self._reader(head))

    async def _after_missing(self, head: Head, error: BaseException) -> Head:
        """The head, where the table moved on from the one that was read. Raises NotFound where it was dropped."""
        now = await self.head()
        if (now.location, now.version) == (head.location, head.version):
            raise self._failed("reading", error) from None
        return now

    async def _reader(self, head: Head) -> Any:
        """A reader of the very version that the head names."""
        key = (head.location, head.version)
        async with self._opening:
            handle = self._handles.get(key)
            if handle is None:
                handle = await self._open_table(head.location)
                await handle.checkout(head.version)
                self._handles[key] = handle
                while len(self._handles) > _HANDLES:
                    self._handles.popitem(last=False)
            self._handles.move_to_end(key)
        return reader_of(handle, head.description, head.indexes, mixed=head.mixed)

    def _failed(self, what: str, error: BaseException) -> VectorwrightError:
        failed = bucket_error(self._bucket, f"{what} of index {self._name}", error)
        if failed.reason == "StoreFailed":
            _log.error("index %s: %s failed", self._name, what, exc_info=error)
        return failed

    # --- writing -----------------------------------------------------------------------------------------------------

    async def upsert(self, batch: RecordBatch) -> None:
        """Write records; returns when they are committed. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        remembered = self._encoding is not None
        while True:
            try:
                if self._encoding is None:
                    self._encoding = await self.head()
                if (rows := _encoded(batch, self._encoding.description)) is not None:
                    self._wrote = True
                    await self._committer.write(rows)
            except (BatchRejected, _Replaced):
                # What is remembered of an index refuses nothing: it may have been made anew.
                if not remembered:
                    raise
                remembered, self._encoding = False, None
            else:
                return

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records by id; ids that do not exist are fine."""
        if ids:
            await self._change(lambda contents: contents.delete(ids))
        else:
            await self.head()

    async def delete_where(self, where: Filter) -> None:
        """Delete all records that match."""
        await self._change(lambda contents: contents.delete_where(where))

    async def set_mark(self, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint."""

        async def change(contents: FencedContents) -> None:
            await contents.write_meta(replace(contents.description, mark=mark, model_fingerprint=model_fingerprint))

        await self._change(change)

    async def update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        """Change settings and declare fields."""
        await self._change(lambda contents: contents.update(settings, new_fields))

    async def close(self) -> None:
        """Finish what was accepted; build the vector index that these writes made due; close."""
        await self._committer.close()
        if self._wrote and self._contents is not None and self._contents.index_due and not self._committer.broken:
            try:
                await self._changing(FencedContents.reindex, _UPKEEP)
            except VectorwrightError as error:
                _log.warning("index %s: its vector index was not built: %s", self._name, error.message)
        await self._lease.close()
        self._wrote = False
        self._handles.clear()

    async def _change(self, call: Callable[[FencedContents], Awaitable[None]]) -> None:
        await self._committer.change(lambda: self._changing(call))

    async def _commit(self, tables: Sequence[pa.Table]) -> None:
        rows = newest_of_each(_joined(tables))

        async def write(contents: FencedContents) -> None:
            if not contents.fits(rows):
                raise _Replaced(
                    f"index {self._name} was dropped and made anew meanwhile: try again", reason="IndexVanished"
                )
            await contents.write(rows)

        await self._changing(write)

    async def _changing(self, call: Callable[[FencedContents], Awaitable[None]], factor: float = _CHANGING) -> None:
        """Make a change under the lease, and make it the table. A change that others cut short is made again."""
        for _ in range(_TRIES):
            head = await self._lease.take()
            try:
                async with self._lease.kept():
                    contents = await self._opened(head)
                    async with asyncio.timeout(factor * self._bucket.timeout):
                        await contents.align(head)
                        await call(contents)
                    # Within the lease's renewal: a change is published by who has it, or it was never made.
                    await self._lease.publish(contents.head_of(self._lease.head), more=self._committer.waiting)
            except (Interfered, HeadMoved):
                self._spoilt()
                await self._lease.give_back()
                _log.info("index %s: another writer came in between; its change is made again", self._name)
            except LANCE_ERRORS as error:
                self._spoilt()
                await self._lease.give_back()
                if is_missing(str(error)):
                    await self.head()  # NotFound where it was dropped meanwhile
                if not is_commit_conflict(str(error)):
                    raise self._failed("a change", error) from None
            except VectorwrightError:
                self._spoilt()
                await self._lease.give_back()
                raise
            else:
                self._encoding = replace(head, description=contents.description)
                return
        raise Retryable(f"index {self._name}: other writers came in between {_TRIES} times", reason="CommitFailed")

    def _spoilt(self) -> None:
        self._encoding = None
        if self._contents is not None:
            self._contents.spoilt()

    async def _opened(self, head: Head) -> FencedContents:
        if self._contents is None or self._contents.location != head.location:
            handle = await self._open_table(head.location)
            self._contents = FencedContents(handle, head.description, head.location)
        return self._contents

    # --- upkeep ------------------------------------------------------------------------------------------------------

    async def _upkeep(self, idle: bool) -> bool:
        """Merge files, and build the vector index where this process writes; what fails is tried after more writes."""
        contents = self._contents
        if contents is None or contents.at < 0:
            return False
        try:
            after = contents.description.settings.get(COMPACT_AFTER, MIN_COMMITS)
            if contents.backlog.is_due(contents.count, int(after)):
                await self._changing(_compacted, _UPKEEP)
            if idle and self._wrote and contents.index_due:
                await self._changing(FencedContents.reindex, _UPKEEP)
        except VectorwrightError as error:
            _log.warning("index %s: its upkeep was put off: %s", self._name, error.message)
            return False
        return self._wrote and contents.index_due


async def _itself(reader: Reader) -> Reader:
    return reader


class _Replaced(Retryable):
    """Rows were encoded for an index that is another by now."""


def _encoded(batch: RecordBatch, shape: IndexDescription) -> pa.Table | None:
    """The rows of a batch; None where it has none. Raises BatchRejected, BatchTooLarge."""
    encoded = check_batch(
        batch,
        index=shape.name,
        dimension=shape.dimension or 0,
        metric=shape.metric or "",
        capabilities=BUCKET_CAPABILITIES,
    )
    return encode_rows(batch, encoded, table_schema(shape), field_types(shape)) if len(batch) else None


async def _compacted(contents: FencedContents) -> None:
    after = contents.description.settings.get(COMPACT_AFTER, MIN_COMMITS)
    if contents.backlog.is_due(contents.count, int(after)):  # unless another writer did it meanwhile
        await contents.compact()


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of callers, who may have encoded them before or after a field was declared."""
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    fewest = min(tables, key=lambda table: table.num_columns)
    # What a column lacks is in the metadata: as mixed records they are judged by that.
    narrow = []
    for table in tables:
        if table.num_columns > fewest.num_columns:
            unsure = pa.array([True] * table.num_rows, pa.bool_())
            at = table.schema.get_field_index("mixed")
            table = table.set_column(at, table.schema.field(at), unsure).select(fewest.column_names)  # noqa: PLW2901
        narrow.append(table)
    return pa.concat_tables(narrow)
