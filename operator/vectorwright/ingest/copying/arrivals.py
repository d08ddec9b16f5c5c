"""Which records of a copy are in the target, for the check at the end: in memory that does not grow without bound."""

from __future__ import annotations

import random

from vectorwright.ingest.context import StoreCalls
from vectorwright.ingest.identity import id_digest
from vectorwright.ingest.retry import Retrier
from vectorwright.ingest.verification import EXACT, NAMESPACE, SAMPLE, SAMPLED, SET_LIMIT, difference


class Arrivals:
    """Ids under which records of this run are in the target: all of them up to a limit, and a random sample."""

    def __init__(self, limit: int = SET_LIMIT, *, rng: random.Random | None = None) -> None:
        self._limit = limit
        self._rng = rng or random.Random()  # noqa: S311 - a sample, not a secret
        self._digests: set[bytes] | None = set()
        self.seen = 0
        self.sample: list[str] = []

    def add(self, record_id: str) -> None:
        """A record is in the target: it was written, or found to be there already."""
        self.seen += 1
        if self._digests is not None:
            self._digests.add(id_digest(record_id))
            if len(self._digests) > self._limit:
                self._digests = None
        if len(self.sample) < SAMPLE:
            self.sample.append(record_id)
        elif (place := self._rng.randrange(self.seen)) < SAMPLE:
            self.sample[place] = record_id

    async def verify(self, calls: StoreCalls, looks: Retrier, *, total: int | None) -> str:
        """``Exact``, ``Namespace`` or ``Sampled``. ``total``: records that the target should hold, where that is known.

        Raises Retryable: ``VerificationFailed`` for a difference, anything else when the store could not be asked.
        """
        if self._digests is not None:
            await looks.call(lambda: self._compare(calls))
            return EXACT
        if total is not None:
            await looks.call(lambda: _count(calls, total))
            return NAMESPACE
        await looks.call(lambda: self._fetch(calls))
        return SAMPLED

    async def _compare(self, calls: StoreCalls) -> None:
        absent = set(self._digests or ())
        async for page in calls.scroll(metadata=False):
            absent.difference_update(id_digest(record.id) for record in page)
        if absent:
            raise difference(f"of {self.seen:,} records that were copied, {len(absent):,} are not in the index")

    async def _fetch(self, calls: StoreCalls) -> None:
        found = await calls.fetch(self.sample, metadata=False)
        absent = len(self.sample) - len(found)
        if absent:
            raise difference(
                f"of {len(self.sample):,} records drawn from those copied, {absent:,} are not in the index"
            )


async def _count(calls: StoreCalls, total: int) -> None:
    found = await calls.call(lambda: calls.store.count(calls.index))
    if found != total:
        raise difference(f"the index holds {found:,} records; there should be {total:,}")
