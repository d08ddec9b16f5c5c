"""One index at work: changes through its log, reads from memory."""

from __future__ import annotations

import errno
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from vectorwright.errors import NotFound, Retryable, Terminal

from ..base import (
    FieldDefinition,
    IndexDescription,
    IndexStatistics,
    Match,
    OwnershipMark,
    Record,
    RecordBatch,
    Setting,
    Vectors,
)
from ..filters import Filter
from ..server_checks import check_batch, check_query
from .catalog import write_entry
from .committer import Committer
from .files import TRASH, Files, size_of
from .keys import KeyRing
from .opening import Opened
from .pools import READS, WRITES
from .records import Change, Removal, Upsert, upsert_of
from .rwlock import ReadWriteLock
from .settings import FAISS_CAPABILITIES, probes_of
from .upkeep import MIN_LOG, Upkeep

_FULL = {errno.ENOSPC, errno.EDQUOT}
P = ParamSpec("P")
R = TypeVar("R")


class FaissIndex:
    """An index. Its methods belong to one event loop; what takes time is done in threads."""

    def __init__(self, folder: Path, opened: Opened, files: Files, ring: KeyRing, min_log: int = MIN_LOG) -> None:
        self._folder = folder
        self._files = files
        self._entry = opened.entry
        self._table = opened.table
        self._log = opened.log
        self._lock = ReadWriteLock()
        self._committer = Committer(self.name, self._commit)
        self._dropped = False
        self._failed = False
        self.upkeep = Upkeep(
            folder,
            opened,
            files,
            ring,
            lock=self._lock,
            committer=self._committer,
            describe=self.describe,
            min_log=min_log,
        )

    @property
    def name(self) -> str:
        """The index's name."""
        return self._entry.description.name

    @property
    def broken(self) -> bool:
        """Whether the process must be started again for this index to take writes."""
        return self._log.broken or self._failed or self._committer.broken

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        return self._table.nbytes

    def describe(self) -> IndexDescription:
        """The index with its exact count."""
        return replace(self._entry.description, count=len(self._table))

    async def statistics(self) -> IndexStatistics:
        """What it holds, exactly."""
        size = await READS.run(size_of, self._folder)
        details = {**self.upkeep.details(), "memory_bytes": self.nbytes}
        return IndexStatistics(len(self._table), storage_bytes=size, details=details)

    # --- changes -----------------------------------------------------------------------------------------------------

    async def prepare(self, batch: RecordBatch) -> Upsert:
        """A batch, checked. Raises BatchRejected, BatchTooLarge."""
        return await READS.run(self._prepared, batch)

    def _prepared(self, batch: RecordBatch) -> Upsert:
        shape = self._entry.description
        encoded = check_batch(
            batch,
            index=self.name,
            dimension=shape.dimension or 0,
            metric=shape.metric or "",
            capabilities=FAISS_CAPABILITIES,
        )
        return upsert_of(batch, encoded)

    async def upsert(self, change: Upsert) -> None:
        """Write records, all or none; returns when they are on the disk."""
        if change.ids:
            await self._committer.write(change)

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records, all or none."""
        if ids:
            await self._committer.write(Removal(list(dict.fromkeys(ids))))

    async def delete_where(self, where: Filter) -> None:
        """Delete the records that match once all earlier changes are made, all or none."""

        async def change() -> None:
            ids = await READS.run(self._reading(self._table.ids), where)
            if ids:
                await self._commit([Removal(ids)])

        await self._committer.run(change)

    async def update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        """Change settings and declare fields. Raises Terminal (``InvalidField``)."""

        async def change() -> None:
            shape = self._entry.description
            declared = {one.name: one for one in shape.fields or ()}
            for one in new_fields:
                if declared.get(one.name, one) != one:
                    raise Terminal(
                        f"index {self.name}: metadata field {one.name!r} is declared as {declared[one.name].type} "
                        "already",
                        reason="InvalidField",
                    )
            declared |= {one.name: one for one in new_fields}
            await WRITES.run(self._writing(self._table.add_fields), [one.name for one in new_fields])
            await self._describe_as(
                replace(shape, settings={**shape.settings, **settings}, fields=tuple(declared.values()))
            )

        await self._committer.run(change)
        self.upkeep.nudge()

    async def set_mark(self, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint."""

        async def change() -> None:
            shape = self._entry.description
            await self._describe_as(replace(shape, mark=mark, model_fingerprint=model_fingerprint))

        await self._committer.run(change)

    async def _describe_as(self, description: IndexDescription) -> None:
        if description == self._entry.description:
            return
        self._check_usable()
        entry = self._entry.changed(description)
        await self._on_disk(partial(WRITES.run, write_entry, self._folder, entry, self._files))
        self._entry = entry

    async def _commit(self, changes: Sequence[Change]) -> None:
        self._check_usable()
        await self._on_disk(partial(WRITES.run, self._log.append, changes))
        # From here on they are durable: whatever keeps them from being seen, the log brings them back.
        try:
            await WRITES.run(self._apply, changes)
        except BaseException:
            self._failed = True
            raise
        self.upkeep.nudge()

    def _apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            with self._lock.writing():
                self._table.apply(change)

    def _check_usable(self) -> None:
        if self._dropped:
            raise NotFound(f"index {self.name!r} does not exist in this store")
        if self.broken:
            raise Retryable(
                f"index {self.name}: its log cannot be written any more until the store server is started again",
                reason="StoreFailed",
            )

    async def _on_disk(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except OSError as error:
            raise Retryable(
                f"index {self.name}: its volume refused a write: {error.strerror or type(error).__name__}",
                reason="VolumeFull" if error.errno in _FULL else "StoreFailed",
            ) from None

    async def drop(self) -> Path:
        """Take the index away, in one step. Returns the folder that is still to be removed."""
        await self.upkeep.close()
        trash = self._folder.with_name(f"{TRASH}{uuid.uuid4().hex}")

        async def change() -> None:
            self._check_usable_to_drop()
            await self._on_disk(partial(WRITES.run, self._move, trash))
            self._dropped = True

        try:
            await self._committer.run(change)
        except Retryable:
            self.upkeep.resume()
            raise
        await self.close()
        return trash

    def _check_usable_to_drop(self) -> None:
        if self._dropped:
            raise NotFound(f"index {self.name!r} does not exist in this store")

    def _move(self, trash: Path) -> None:
        self._files.rename(self._folder, trash)
        self._files.flush_folder(self._folder.parent)

    async def close(self) -> None:
        """Finish what was accepted, then close. Safe to call twice."""
        await self.upkeep.close()
        await self._committer.close()
        await WRITES.run(self._log.close)

    # --- reading -----------------------------------------------------------------------------------------------------

    def _reading(self, call: Callable[P, R]) -> Callable[P, R]:
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._lock.reading():
                return call(*args, **kwargs)

        return locked

    def _writing(self, call: Callable[P, R]) -> Callable[P, R]:
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._lock.writing():
                return call(*args, **kwargs)

        return locked

    async def count(self, where: Filter | None) -> int:
        """Exact number of records, of those that match."""
        return len(self._table) if where is None else await READS.run(self._reading(self._table.count), where)

    async def fetch(self, ids: Sequence[str], *, vectors: bool, metadata: bool) -> dict[str, Record]:
        """The records that exist, by id."""
        read = self._reading(self._table.records)
        return {one.id: one for one in await READS.run(read, ids, vectors=vectors, metadata=metadata)}

    async def query(self, asked: Vectors, top_k: int, where: Filter | None, *, vectors: bool) -> list[Match]:
        """The nearest. Raises Terminal (``InvalidQuery``)."""
        shape = self._entry.description
        check_query(asked, top_k, index=self.name, dimension=shape.dimension or 0, metric=shape.metric or "")
        probes = partial(probes_of, shape.settings)
        return await READS.run(self._reading(self._table.query), asked, top_k, where, probes, vectors=vectors)

    async def scroll(
        self, where: Filter | None, *, vectors: bool, metadata: bool, page: int
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages; one that is deleted meanwhile is left out."""
        ids = await READS.run(self._reading(self._table.ids), where)
        read = self._reading(self._table.records)
        for start in range(0, len(ids), max(1, page)):
            found = await READS.run(read, ids[start : start + max(1, page)], vectors=vectors, metadata=metadata)
            if found:
                yield found
