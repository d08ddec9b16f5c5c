"""One write to a store, halved and bisected as it needs, down to the records to blame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from vectorwright.errors import BatchRejected, BatchTooLarge, Terminal
from vectorwright.stores.base import RecordBatch

from .context import StoreCalls
from .progress import Progress

_HOPELESS = 1000
"""Records refused one by one, before any was taken, after which the store is to blame."""

Wrote = Callable[[int, int], Awaitable[None]]
"""Called with the places, from and to, of records that the store took."""
Refused = Callable[[int, str, str], Awaitable[None]]
"""Called with the place of a record that the store refused, the reason and the message."""


class BatchWriter:
    """Writes batches within the limits. Several may be written at a time, if no id is in two of them."""

    def __init__(self, calls: StoreCalls, progress: Progress) -> None:
        self._calls = calls
        self._progress = progress
        self._refused = 0

    async def write(self, batch: RecordBatch, sizes: Sequence[int], wrote: Wrote, refused: Refused) -> None:
        """Write a batch; ``sizes`` are the bytes of its records.

        Raises Retryable when all attempts failed, and Terminal, also (``RecordRejected``) when the store takes nothing.
        """
        await self._part(batch, sizes, 0, len(batch), wrote, refused)

    async def _part(
        self, batch: RecordBatch, sizes: Sequence[int], start: int, stop: int, wrote: Wrote, refused: Refused
    ) -> None:
        calls, part = self._calls, batch.part(start, stop)
        try:
            await calls.call(lambda: calls.store.upsert(calls.index, part), size=sum(sizes[start:stop]))
        except BatchRejected as error:
            if stop - start > 1:
                middle = (start + stop) // 2
                await self._part(batch, sizes, start, middle, wrote, refused)
                await self._part(batch, sizes, middle, stop, wrote, refused)
            else:
                await self._blame(start, error, refused)
        else:
            self._progress.wrote(stop - start)
            await wrote(start, stop)

    async def _blame(self, place: int, error: BatchRejected, refused: Refused) -> None:
        self._refused += 1
        if self._refused >= _HOPELESS and not self._progress.counts.batches:
            raise Terminal(f"the store refuses every record: {error.message}", reason="RecordRejected")
        await refused(place, "RecordTooLarge" if isinstance(error, BatchTooLarge) else error.reason, error.message)
