"""One pass over the origin: what the target lacks, or has otherwise, is written; what is there and equal is left alone.

So a pass that was killed is continued by beginning it again, and a pass over two equal indexes writes nothing. Memory
holds a page, a queue and the batches in flight, whatever the size of the index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
import orjson

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.ingest.batch_writer import BatchWriter
from vectorwright.ingest.batching import BoundedQueue, batched, spread
from vectorwright.ingest.checks import Defect, check_sizes, check_vectors
from vectorwright.ingest.context import IDS_A_REQUEST, Halt, StoreCalls
from vectorwright.ingest.dead_letters import DeadLetters
from vectorwright.ingest.progress import Progress
from vectorwright.ingest.run_frame import principal
from vectorwright.ingest.runspec import RunSpec
from vectorwright.stores.base import Metadata, Record, RecordBatch

from .arrivals import Arrivals
from .ids import Placed, place, without_rivals
from .origin import Origin
from .sameness import canonical, same_record

DEFAULT_RECORDS = IDS_A_REQUEST
DEFAULT_BYTES = 8 * 2**20
"""A batch is held once more while it is compared with what is there."""
DEFAULT_WORKERS = 4
_LINGER = 1.0
_PAGE_BYTES = 8 * 2**20
"""Aim for a page of the origin: texts and metadata are taken for 4 KiB a record."""
_QUEUE_BYTES = 32 * 2**20


@dataclass(slots=True)
class CopyContext:
    """One copy, as its parts see it."""

    spec: RunSpec
    origin: Origin
    target: StoreCalls
    progress: Progress
    dead_letters: DeadLetters
    halt: Halt
    empty: bool = False
    """Whether nothing was in the target at the start, and nobody else writes to it."""
    sources: set[str | None] = field(default_factory=set)
    """``vw_source`` of the origin's records; None stands for records without one. As many as jobs filled it."""
    arrivals: Arrivals = field(default_factory=Arrivals)
    added: int = 0
    """Records by which the target grew."""

    @property
    def owns_nameless(self) -> bool:
        """Whether records of the target without ``vw_source`` can only have come from this copy."""
        return self.spec.store.sole_writer and self.spec.store.made_for_us

    def is_ours(self, metadata: Metadata, source: str | None) -> bool:
        """Whether a record of the target is of this source of the origin, and may be replaced or deleted."""
        owner = _source(metadata)
        return owner == source and (owner is not None or self.owns_nameless)


def _source(metadata: Metadata) -> str | None:
    found = metadata.get("vw_source")
    return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class _Write:
    placed: Placed
    bytes: int
    new: bool


class Copier:
    """Copies all records of an origin."""

    def __init__(self, context: CopyContext) -> None:
        self._context = context
        capabilities, batch = context.target.store.capabilities, context.spec.batch
        dimension = context.spec.store.dimension
        self._records = min(
            batch.max_records or max(1, min(DEFAULT_RECORDS, DEFAULT_BYTES // (4 * dimension))),
            capabilities.max_batch_records,
        )
        self._bytes = min(batch.max_bytes or DEFAULT_BYTES, capabilities.max_batch_bytes)
        self._workers = batch.workers or DEFAULT_WORKERS
        self._page = max(1, min(1000, _PAGE_BYTES // (4 * dimension + 4096)))
        self._scaled = capabilities.normalises and context.spec.store.metric == "cosine"
        self._writer = BatchWriter(context.target, context.progress)
        self._planned = 0
        """Writes that were decided on, for the budget."""
        self._total = 0
        self._seen = 0

    async def run(self, attempts: int) -> None:
        """Copy. A scroll that breaks off is begun anew, up to ``attempts`` times without a write in between.

        Raises Terminal, and Retryable when all attempts failed.
        """
        context = self._context
        self._total = await context.origin.count()
        failures = 0
        while True:
            written = context.progress.counts.vectors_written
            self._begin()
            try:
                await self._pass()
            except Retryable as error:
                failures = 1 if context.progress.counts.vectors_written > written else failures + 1
                if failures >= attempts or context.halt.requested:
                    raise
                await context.target.pause(failures, error.after)
                context.empty = False
            else:
                return

    def _begin(self) -> None:
        counts = self._context.progress.counts
        counts.documents_listed = self._total
        counts.documents_unchanged = counts.documents_new = counts.documents_replaced = counts.documents_failed = 0
        counts.vectors_failed = 0
        self._context.progress.dead_letters.clear()
        self._context.arrivals = Arrivals()
        self._seen = 0

    async def _pass(self) -> None:
        queue = BoundedQueue[Record](2 * self._records, _QUEUE_BYTES, _size)
        batches = batched(queue, most=self._records, most_bytes=self._bytes, size=_size, linger=_LINGER)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(queue))
                group.create_task(spread(batches, self._take, self._workers))
        except BaseExceptionGroup as group:
            expected, defects = group.split(VectorwrightError)
            if expected is None or defects is not None:
                raise
            raise principal(expected) from None
        if not self._context.halt.requested:
            self._context.progress.counts.documents_listed = self._seen

    async def _read(self, queue: asyncio.Queue[Record | None]) -> None:
        context = self._context
        async with aclosing(context.origin.pages(self._page)) as pages:
            async for records in pages:
                for record in records:
                    self._note(record)
                    await queue.put(record)
                    context.progress.counts.bytes_read += _size(record)
                if context.halt.requested:
                    break
        await queue.put(None)

    def _note(self, record: Record) -> None:
        """Count a record. Raises Terminal where somebody else fills the target with records of its source."""
        context = self._context
        source = _source(record.metadata)
        if source is not None and source in context.spec.store.other_sources:
            raise Terminal(
                f"the source index holds records of {source!r}, which another IngestionJob writes to this index by "
                "itself: two would write the same records. Delete this copy once the other job has taken over, or give "
                "that one another spec.sourceName. What was copied stays",
                reason="SourceNameTaken",
            )
        context.sources.add(source)
        self._seen += 1
        counts = context.progress.counts
        counts.documents_listed = max(self._total, self._seen)
        most = context.spec.budget.max_documents
        if most is not None and self._seen > most:
            self._over_budget("maxDocuments", most)

    def _over_budget(self, name: str, most: int) -> None:
        error = Terminal(
            f"this copy would go over budget.{name} ({most:,}): raise it. What was copied so far stays",
            reason="BudgetExceeded",
        )
        self._context.halt.request(error, at_once=False)

    async def _take(self, records: list[Record]) -> None:
        """One batch: what of it can be kept and is not there yet is written."""
        if self._context.halt.requested:
            return
        context = self._context
        placed = await self._placed(records)
        there: dict[str, Record] = {}
        if not context.empty:
            ids = [one.id for one in placed]
            there |= await context.target.fetch(ids, metadata=True, vectors=True)
        writes = []
        for one in placed:
            write = self._decide(one, there.get(one.id))
            if write is not None:
                writes.append(write)
        await self._write(self._affordable(writes))

    async def _placed(self, records: Sequence[Record]) -> list[Placed]:
        """Records as the target would hold them, each id once; what it cannot hold goes to the dead letters."""
        context = self._context
        sound: list[Placed] = []
        for record, broken in zip(records, self._broken(records), strict=True):
            found = broken or place(record, context.target.store.capabilities)
            defect = found if isinstance(found, Defect) else self._too_much(found)
            if defect is not None:
                context.dead_letters.record(record.id, defect.reason, defect.message)
            elif isinstance(found, Placed):
                sound.append(found)
        once: dict[str, Placed] = {}
        for one, result in zip(sound, await without_rivals(sound, context.origin), strict=True):
            if isinstance(result, Defect):
                context.dead_letters.record(one.origin.id, result.reason, result.message)
            else:
                once.setdefault(result.id, result)
        return list(once.values())

    def _broken(self, records: Sequence[Record]) -> Iterable[Defect | None]:
        dimension = self._context.spec.store.dimension
        found: list[Defect | None] = [
            None
            if record.vector is not None and record.vector.shape == (dimension,)
            else Defect("WrongDimension", f"it has no vector of dimension {dimension}")
            for record in records
        ]
        whole = [at for at, defect in enumerate(found) if defect is None]
        if whole:
            matrix = np.stack([vector for at in whole if (vector := records[at].vector) is not None])
            for row, defect in check_vectors(matrix, self._context.spec.store.metric):
                found[whole[row]] = defect
        return found

    def _too_much(self, one: Placed) -> Defect | None:
        capabilities = self._context.target.store.capabilities
        if not capabilities.list_metadata:
            lists = sorted(name for name, value in one.metadata.items() if isinstance(value, list))
            if lists:
                return Defect(
                    "MetadataNotHeld",
                    f"its metadata field {lists[0]!r} is a list, and this store holds no lists",
                )
        try:
            size = len(canonical(one.metadata))
        except orjson.JSONEncodeError as error:
            return Defect("MetadataNotHeld", f"its metadata cannot be written as JSON: {error}")
        return check_sizes(size, len((one.origin.text or "").encode("utf-8", "replace")), capabilities)

    def _decide(self, one: Placed, there: Record | None) -> _Write | None:
        """What to do about a record. Counts what needs no write."""
        context = self._context
        if there is None:
            return _Write(one, _size(one.origin), new=True)
        if same_record(one.metadata, one.origin, there, scaled=self._scaled):
            context.progress.counts.documents_unchanged += 1
            context.arrivals.add(one.id)
            return None
        if context.is_ours(there.metadata, _source(one.metadata)):
            return _Write(one, _size(one.origin), new=False)
        owner = _source(there.metadata)
        whose = f"source {owner!r}" if owner is not None else "somebody else"
        message = f"the index has a record with id {one.id!r} of {whose}, which differs from it"
        context.dead_letters.record(one.origin.id, "IdTaken", message)
        return None

    def _affordable(self, writes: list[_Write]) -> list[_Write]:
        most = self._context.spec.budget.max_vectors
        if most is not None and self._planned + len(writes) > most:
            self._over_budget("maxVectors", most)
            writes = writes[: max(0, most - self._planned)]
        self._planned += len(writes)
        return writes

    async def _write(self, writes: list[_Write]) -> None:
        if not writes:
            return
        context = self._context
        batch = RecordBatch(
            [write.placed.id for write in writes],
            np.stack([vector for write in writes if (vector := write.placed.origin.vector) is not None]),
            [write.placed.metadata for write in writes],
            [write.placed.origin.text for write in writes],
        )

        async def wrote(start: int, stop: int) -> None:
            counts = context.progress.counts
            for write in writes[start:stop]:
                context.arrivals.add(write.placed.id)
                counts.documents_new += write.new
                counts.documents_replaced += not write.new
                context.added += write.new

        async def refused(at: int, reason: str, message: str) -> None:
            context.dead_letters.record(writes[at].placed.origin.id, reason, message)

        await self._writer.write(batch, [write.bytes for write in writes], wrote, refused)


def _size(record: Record) -> int:
    """Bytes of a record in a write, about: metadata is counted by its values."""
    vector = 0 if record.vector is None else 4 * len(record.vector)
    metadata = 0
    for name, value in record.metadata.items():
        metadata += len(name) + 8
        if isinstance(value, str):
            metadata += len(value)
        elif isinstance(value, list):
            metadata += sum(len(part) + 4 for part in value)
    return vector + len(record.text or "") + metadata + len(record.id)
