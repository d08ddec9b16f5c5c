"""The writing stage: batches by count and bytes, several in flight, each repeated, halved or bisected as it needs.

An id is in one batch at a time: every id is admitted once a run, and a batch is split and repeated by the one task that
has it.
"""

from __future__ import annotations

import asyncio

import numpy as np

from vectorwright.stores.base import RecordBatch

from .batch_writer import BatchWriter
from .batching import batched, spread
from .context import RunContext
from .items import Item
from .verification import Written

DEFAULT_RECORDS = 100
DEFAULT_WORKERS = 4
LINGER = 1.0
"""Seconds that an incomplete batch waits for more: what was embedded for it would be lost with the process."""


class Writer:
    """Writes items, and tells their documents."""

    def __init__(self, context: RunContext, written: Written) -> None:
        self._context = context
        self._written = written
        store, batch = context.calls.store, context.spec.batch
        self._records = min(batch.max_records or DEFAULT_RECORDS, store.capabilities.max_batch_records)
        self._bytes = min(batch.max_bytes or store.capabilities.max_batch_bytes, store.capabilities.max_batch_bytes)
        self._workers = batch.workers or DEFAULT_WORKERS
        self._batches = BatchWriter(context.calls, context.progress)

    @property
    def in_flight(self) -> int:
        """Records that may be in flight at a time."""
        return self._records * self._workers

    async def run(self, source: asyncio.Queue[Item | None]) -> None:
        """Write everything from ``source``, until a None comes."""
        batches = batched(
            source, most=self._records, most_bytes=self._bytes, size=lambda item: item.bytes, linger=LINGER
        )
        await spread(batches, self._take, self._workers)

    async def _take(self, items: list[Item]) -> None:
        mine = await self._not_taken(items)
        if mine:
            await self._write(mine)

    async def _not_taken(self, items: list[Item]) -> list[Item]:
        """Items without those whose own id is a record of somebody else, which must not be overwritten."""
        context = self._context
        if context.strangers == 0:
            return items
        unsure = [item.id for item in items if item.own_id and not context.ledger.has_own_id(item.id)]
        if not unsure:
            return items
        found = await context.calls.fetch(unsure, metadata=True)
        mine = []
        for item in items:
            record = found.get(item.id)
            if record is None or record.metadata.get("vw_source") == context.identity.source:
                mine.append(item)
                continue
            owner = record.metadata.get("vw_source")
            whose = f"source {owner!r}" if isinstance(owner, str) else "somebody else"
            context.dead_letters.chunk(item, "IdTaken", f"the index has a record with id {item.id!r} of {whose}")
            await context.settle(item.document)
        return mine

    async def _write(self, items: list[Item]) -> None:
        batch = RecordBatch(
            [item.id for item in items],
            np.stack([item.vector for item in items if item.vector is not None]),
            [item.metadata for item in items],
            [item.text or None for item in items],
        )

        async def wrote(start: int, stop: int) -> None:
            await self._wrote(items[start:stop])

        async def refused(place: int, reason: str, message: str) -> None:
            self._context.dead_letters.chunk(items[place], reason, message)
            await self._context.settle(items[place].document)

        await self._batches.write(batch, [item.bytes for item in items], wrote, refused)

    async def _wrote(self, items: list[Item]) -> None:
        context = self._context
        for item in items:
            self._written.add(item.id, replaces=item.own_id and context.ledger.has_own_id(item.id))
            if item.document.old:
                item.document.written.append(item.id)
        for item in items:
            await context.settle(item.document)
