"""What the stages of a run share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from vectorwright.errors import NotFound, Terminal, VectorwrightError
from vectorwright.stores.base import Record, Store

from .dead_letters import DeadLetters
from .identity import Identity, id_digest
from .items import Pending
from .ledger import Ledger
from .limits import Limits, StoreBuckets
from .progress import Progress
from .retry import Retrier
from .runspec import RunSpec

T = TypeVar("T")

IDS_A_REQUEST = 500
"""Ids in one fetch or delete: every store takes as many, and a lost request costs little."""


class Halt:
    """A run that has to end early: why, and whether what was begun is finished first."""

    def __init__(self) -> None:
        self.error: VectorwrightError | None = None
        self.at_once = False
        """Whether only writes and embeddings in flight are finished, and nothing new is embedded."""
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` at every request, and now if there was one."""
        self._listeners.append(listener)
        if self.error is not None:
            listener()

    def request(self, error: VectorwrightError, *, at_once: bool) -> None:
        """End the run with ``error``. The first error is told; a later request can only hurry."""
        if self.error is None:
            self.error = error
        self.at_once = self.at_once or at_once
        for listener in self._listeners:
            listener()

    @property
    def requested(self) -> bool:
        """Whether the run has to end."""
        return self.error is not None


class StoreCalls:
    """Calls to the store within the limits, repeated when they fail for outside reasons."""

    def __init__(self, store: Store, index: str, limits: Limits | StoreBuckets, retrier: Retrier) -> None:
        self.store = store
        self.index = index
        self._limits = limits
        self._retrier = retrier

    async def call(self, function: Callable[[], Awaitable[T]], *, size: int = 0) -> T:
        """The result of ``function``, one request of ``size`` bytes of records.

        Raises Retryable when all attempts failed, Terminal (``IndexLost``) when the index is gone.
        """

        async def attempt() -> T:
            await self._limits.requests.take()
            if size:
                await self._limits.bytes.take(size)
            return await function()

        try:
            return await self._retrier.call(attempt)
        except NotFound as error:
            raise self._lost(error) from None

    def _lost(self, error: NotFound) -> Terminal:
        return Terminal(f"index {self.index!r} is gone from the store: {error.message}", reason="IndexLost")

    async def scroll(
        self, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncGenerator[list[Record], None]:
        """All records, in pages, each within the limits. Not repeated: a scroll that broke off is begun anew.

        Raises Retryable, Terminal (``IndexLost``).
        """
        try:
            await self._limits.requests.take()
            pages = self.store.scroll(self.index, vectors=vectors, metadata=metadata, page=page)
            async with aclosing(pages) as opened:  # type: ignore[type-var]
                async for records in opened:
                    yield records
                    await self._limits.requests.take()
        except NotFound as error:
            raise self._lost(error) from None

    async def fetch(self, ids: Sequence[str], *, metadata: bool, vectors: bool = False) -> Mapping[str, Record]:
        """The records that exist, of any number of ids."""
        found: dict[str, Record] = {}
        for start in range(0, len(ids), IDS_A_REQUEST):
            part = ids[start : start + IDS_A_REQUEST]
            found |= await self.call(partial(self.store.fetch, self.index, part, metadata=metadata, vectors=vectors))
        return found

    async def pause(self, attempt: int, after: float | None) -> None:
        """Wait before something larger than a call is begun anew."""
        await self._retrier.pause(attempt, after)

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records, at most :data:`IDS_A_REQUEST`."""
        await self.call(partial(self.store.delete, self.index, ids))


class Claims:
    """Ids that records of this run came with: who has them first keeps them, and nothing deletes them."""

    def __init__(self) -> None:
        self._held: dict[bytes, bool] = {}

    def take(self, record_id: str, *, holds: bool) -> bool:
        """Claim an id. ``holds``: a record is stored under it, and not under computed ids. False: it is taken."""
        key = id_digest(record_id)
        if key in self._held:
            return False
        self._held[key] = holds
        return True

    def holds(self, record_id: str) -> bool:
        """Whether a record of this run is stored under this id."""
        return self._held.get(id_digest(record_id), False)


@dataclass(slots=True)
class RunContext:
    """One run, as its stages see it."""

    spec: RunSpec
    calls: StoreCalls
    ledger: Ledger
    identity: Identity
    limits: Limits
    retrier: Retrier
    looks: Retrier
    """Repeats what was not found right after it was written: some stores show writes a few seconds late."""
    progress: Progress
    dead_letters: DeadLetters
    halt: Halt
    strangers: int | None = None
    """Records in the index at the start that are not of this source; None where others may write, or it is not known.
    """
    claims: Claims = field(default_factory=Claims)
    unseen: list[str] = field(default_factory=list)
    """Keys of entries that could not be fetched or parsed: none of their documents counts as vanished."""
    late: list[int] = field(default_factory=list)
    """Rows of old versions that came with their ids: deleted at the end, when it is known who has those ids now."""
    replacing: asyncio.Queue[Pending | None] = field(default_factory=lambda: asyncio.Queue(1000))
    """Documents whose new version is stored and whose old one waits to be deleted."""

    async def settle(self, document: Pending, chunks: int = 1) -> None:
        """``chunks`` chunks of a document are stored or in the dead letters."""
        document.open -= chunks
        if document.open == 0:
            await self.complete(document)

    async def complete(self, document: Pending) -> None:
        """Every chunk of a document is stored or in the dead letters."""
        if document.failed:
            return
        if document.old:
            await self.replacing.put(document)
        else:
            self.progress.counts.documents_new += 1
