"""The front of a run: fetch in the order of the listing, parse several documents at a time, admit in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Protocol

from vectorwright.errors import Retryable

from .admission import Admission, Parsed
from .context import RunContext
from .contracts import Document, Entry, Fetched, Rejected, Source
from .planning import Listing

_SLICE = 1024
"""Entries that a source is asked for at a time: it may fetch several hundred in one round trip."""
WINDOW = 4
"""Documents that are parsed or wait for their turn: bounds memory by as many documents of the largest size."""
_SOURCE_DOWN = 10
"""Entries in a row that failed for outside reasons, after which the source is down and the run ends."""


class Parser(Protocol):
    """Turns what was fetched into documents, in a process that can be killed."""

    async def parse(self, fetched: Fetched) -> list[Document | Rejected]:
        """Documents and records of an entry, in its order."""
        ...


class Feeder:
    """Brings entries to admission."""

    def __init__(self, context: RunContext, source: Source, parser: Parser) -> None:
        self._context = context
        self._source = source
        self._parser = parser
        self._window: asyncio.Queue[asyncio.Task[Parsed] | None] = asyncio.Queue(WINDOW)
        self._down = 0

    async def run(self, listing: Listing, admission: Admission) -> None:
        """Feed the whole listing. A halt stops fetching; what is parsed by then is given up."""
        async with asyncio.TaskGroup() as group:
            fetching = group.create_task(self._fetch_all(listing, group))
            self._context.halt.listen(lambda: _cancel(fetching))
            await self._admit_all(admission)
        admission.report()

    async def _fetch_all(self, listing: Listing, group: asyncio.TaskGroup) -> None:
        try:
            for entries in listing.slices(_SLICE):
                await self._fetch(entries, group)
        finally:
            await self._window.put(None)

    async def _fetch(self, entries: Sequence[Entry], group: asyncio.TaskGroup) -> None:
        async with aclosing(self._source.fetch(entries)) as answers:  # type: ignore[type-var]
            listed = iter(entries)
            async for fetched in answers:
                entry = next(listed)
                if isinstance(fetched.error, Retryable):
                    fetched = await self._fetch_again(entry, fetched)  # noqa: PLW2901
                else:
                    self._down = 0
                self._context.progress.counts.bytes_read += len(fetched.data or b"")
                await self._window.put(group.create_task(self._parse(entry, fetched)))

    async def _fetch_again(self, entry: Entry, fetched: Fetched) -> Fetched:
        """Try an entry that failed for outside reasons again. Raises Retryable when the source itself is down."""

        first = [fetched.error]

        async def attempt() -> Fetched:
            if first and isinstance(known := first.pop(), Retryable):
                # What just happened was the first attempt: it is followed by a pause like any other.
                raise known
            async with aclosing(self._source.fetch([entry])) as answers:  # type: ignore[type-var]
                async for again in answers:
                    if isinstance(again.error, Retryable):
                        raise again.error
                    return again
            return fetched

        try:
            again = await self._context.retrier.call(attempt)
        except Retryable as error:
            self._down += 1
            if self._down >= _SOURCE_DOWN:
                message = f"{self._down} documents in a row could not be fetched; the last: {error.message}"
                raise Retryable(message, reason="SourceUnavailable", after=error.after) from None
            return Fetched(entry, error=error)
        self._down = 0
        return again

    async def _parse(self, entry: Entry, fetched: Fetched) -> Parsed:
        if fetched.error is not None:
            return Parsed(entry, [Rejected(entry.key, fetched.error.reason, fetched.error.message)])
        return Parsed(entry, await self._parser.parse(fetched))

    async def _admit_all(self, admission: Admission) -> None:
        while (parsing := await self._window.get()) is not None:
            if self._context.halt.requested:
                parsing.cancel()
            else:
                await admission.take(await parsing)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
