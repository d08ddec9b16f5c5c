"""One Lance table on a volume: its changes through one committer, its reads beside them."""

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

from vectorwright.errors import NotFound, Retryable

from ..base import FieldDefinition, IndexDescription, Match, OwnershipMark, Record, RecordBatch, Setting, Vectors
from ..filters import Filter
from ..server_checks import check_batch, check_query
from .committer import IDLE_AFTER, Committer
from .contents import LANCE_ERRORS, Contents
from .files import DurableFolder, discard
from .reading import Reader, record_columns
from .schema import decode_rows, encode_rows, newest_of_each
from .settings import LANCE_CAPABILITIES
from .upkeep import Backlog, compact

_LOW_SPACE = 64 * 2**20

T = TypeVar("T")
_log = logging.getLogger(__name__)


class LanceTable:
    """A table that is open. ``handle`` is lancedb's; nobody else writes to it."""

    def __init__(self, handle: Any, path: Path, description: IndexDescription, *, fsync: bool) -> None:
        self._contents = Contents(handle, description)
        self._path = path
        self._name = description.name
        self._folder = DurableFolder(path) if fsync else None
        self._committer = Committer(description.name, self._commit, self._upkeep, IDLE_AFTER)
        self._dropped = False

    async def load(self) -> None:
        """Read what descriptions and queries need. Raises one of LANCE_ERRORS where the table cannot be read."""
        await self._contents.load()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.skip_present)
        if self._contents.index_due:
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
        return self._contents.describe()

    # --- reading -----------------------------------------------------------------------------------------------------

    def _check_there(self) -> None:
        if self._dropped:
            raise NotFound(f"index {self._name!r} does not exist in this store")

    def _reader(self) -> Reader:
        self._check_there()
        return self._contents.reader()

    async def count(self, where: Filter | None) -> int:
        """Exact number of records, of those that match."""
        reader = self._reader()
        return self._contents.count if where is None else await self._read(reader.count(where))

    async def fetch(self, ids: Sequence[str], *, vectors: bool, metadata: bool) -> dict[str, Record]:
        """The records that exist, by id."""
        return await self._read(self._reader().fetch(ids, vectors=vectors, metadata=metadata))

    async def query(self, vector: Vectors, top_k: int, where: Filter | None, *, vectors: bool) -> list[Match]:
        """The nearest. Raises Terminal where the question makes no sense."""
        shape = self._contents.description
        check_query(vector, top_k, index=self._name, dimension=shape.dimension or 0, metric=shape.metric or "")
        return await self._read(self._reader().query(vector, top_k, where, vectors=vectors))

    async def scroll(
        self, where: Filter | None, *, vectors: bool, metadata: bool, page: int
    ) -> AsyncIterator[list[Record]]:
        """All records that match, as they are when it begins. Holds their version until it ends or is closed."""
        reader = self._reader()
        with self._contents.versions.reading():
            try:
                async for rows in reader.matching(where, record_columns(vectors=vectors, metadata=metadata)):
                    for start in range(0, rows.num_rows, max(1, page)):
                        part = rows.slice(start, max(1, page))
                        yield decode_rows(part, vectors=vectors, metadata=metadata)
            except LANCE_ERRORS as error:
                raise self._failed("reading", error) from None

    async def _read(self, call: Awaitable[T]) -> T:
        with self._contents.versions.reading():
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
        shape = self._contents.description
        encoded = check_batch(
            batch,
            index=self._name,
            dimension=shape.dimension or 0,
            metric=shape.metric or "",
            capabilities=LANCE_CAPABILITIES,
        )
        if len(batch):
            await self._committer.write(encode_rows(batch, encoded, self._contents.schema, self._contents.types))

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records by id; ids that do not exist are fine."""
        if ids:
            await self._committer.change(lambda: self._changing(lambda: self._contents.delete(ids)))

    async def delete_where(self, where: Filter) -> None:
        """Delete all records that match."""
        await self._committer.change(lambda: self._changing(lambda: self._contents.delete_where(where)))

    async def set_mark(self, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint."""

        async def change() -> None:
            contents = self._contents
            await contents.write_meta(replace(contents.description, mark=mark, model_fingerprint=model_fingerprint))

        await self._committer.change(lambda: self._changing(change))

    async def update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        """Change settings and declare fields. A vector index that they ask for is built when nobody writes."""
        await self._committer.change(lambda: self._changing(lambda: self._contents.update(settings, new_fields)))

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
        self._contents.handle.close()

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
        self._contents.versions.current_since = began
        return result

    async def _recover(self) -> None:
        self._contents.forget_ids()
        try:
            await self._contents.handle.checkout_latest()
            await self.load()
        except LANCE_ERRORS:
            _log.exception("index %s: it cannot be read after a failed change", self._name)

    async def _commit(self, tables: Sequence[pa.Table]) -> None:
        await self._changing(lambda: self._contents.write(newest_of_each(pa.concat_tables(tables))))

    # --- upkeep ------------------------------------------------------------------------------------------------------

    async def _upkeep(self, idle: bool) -> bool:
        """Merge files and build the vector index where that is due; what fails is tried again after more writes."""
        contents = self._contents
        try:
            if self._dropped:
                return False
            if contents.backlog.is_due(contents.count):
                await self._changing(lambda: compact(contents.handle, contents.versions, self._name))
                contents.backlog = Backlog()
            if idle and contents.index_due:
                await self._changing(contents.build_index)
        except Retryable:
            contents.backlog = Backlog()
            return False
        return contents.index_due
