"""Verification: a run has succeeded when its own ids are found in the store."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import numpy as np
import numpy.typing as npt

from vectorwright.errors import Retryable
from vectorwright.stores.filters import Eq

from .context import StoreCalls
from .identity import id_digest, uuid_bytes
from .ledger import Ledger
from .retry import Retrier

SET_LIMIT = 200_000
"""Ids that are compared one by one: some 20 MB of memory and 200 pages to list."""
SAMPLE = 1_000
"""Ids that are fetched where nothing else is affordable: a loss of 0.5 % is found with a probability of 99 %."""
EXACT, NAMESPACE, SAMPLED = "Exact", "Namespace", "Sampled"


class Written:
    """Ids that this run wrote: 16 bytes each, and a random sample in full."""

    def __init__(self, *, rng: random.Random | None = None) -> None:
        self._digests = bytearray()
        self._seen = 0
        self._replaced = 0
        self._rng = rng or random.Random()  # noqa: S311 - a sample, not a secret
        self.sample: list[str] = []

    def __len__(self) -> int:
        return self._seen

    def add(self, record_id: str, *, replaces: bool) -> None:
        """A record was written. ``replaces``: under an id that this source had in the index before."""
        self._digests += uuid_bytes(record_id) or id_digest(record_id)
        self._seen += 1
        self._replaced += replaces
        if len(self.sample) < SAMPLE:
            self.sample.append(record_id)
        elif (place := self._rng.randrange(self._seen)) < SAMPLE:
            self.sample[place] = record_id

    @property
    def added(self) -> int:
        """Records by which the index grew."""
        return self._seen - self._replaced

    def digests(self) -> npt.NDArray[np.uint8]:
        """Shape (n, 16)."""
        return np.frombuffer(bytes(self._digests), dtype=np.uint8).reshape(-1, 16)


class Verifier:
    """Compares the store with what ledger and run say should be there."""

    def __init__(
        self,
        calls: StoreCalls,
        ledger: Ledger,
        written: Written,
        *,
        source: str,
        strangers: int | None,
        looks: Retrier,
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._written = written
        self._source = source
        self._strangers = strangers
        self._looks = looks

    async def verify(self) -> str:
        """``Exact``, ``Namespace`` or ``Sampled``.

        Raises Retryable: ``VerificationFailed`` for a difference, anything else when the store could not be asked.
        """
        live = self._ledger.live_digests()
        expected = len(live) + self._written.added
        if not self._written and len(live) == len(self._ledger):
            # Nothing was written or deleted since the ledger was read from the store: that was the comparison.
            return EXACT
        capabilities = self._calls.store.capabilities
        if expected <= SET_LIMIT:
            ids = {row.tobytes() for row in live} | {row.tobytes() for row in self._written.digests()}
            await self._looks.call(lambda: self._compare_ids(ids))
            return EXACT
        where = Eq("vw_source", self._source)
        if capabilities.filtered_count and capabilities.exact_counts:
            await self._looks.call(self._comparing(expected, lambda: self._calls.store.count(self._calls.index, where)))
            return EXACT
        if self._strangers is not None:
            total = expected + self._strangers
            await self._looks.call(self._comparing(total, lambda: self._calls.store.count(self._calls.index)))
            return NAMESPACE
        await self._looks.call(self._fetch_sample)
        return SAMPLED

    async def _compare_ids(self, expected: set[bytes]) -> None:
        async def listed() -> set[bytes]:
            found: set[bytes] = set()
            where = Eq("vw_source", self._source)
            async for page in self._calls.store.scroll(self._calls.index, where, metadata=False):
                found.update(id_digest(record.id) for record in page)
            return found

        found = await self._calls.call(listed)
        if found != expected:
            raise difference(
                f"of {len(expected):,} records of this source, {len(expected - found):,} are not in the index, and "
                f"{len(found - expected):,} are there that no run wrote"
            )

    def _comparing(self, expected: int, count: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[None]]:
        async def compare() -> None:
            found = await self._calls.call(count)
            if found != expected:
                raise difference(f"the index holds {found:,} records; there should be {expected:,}")

        return compare

    async def _fetch_sample(self) -> None:
        sample = self._written.sample
        found = await self._calls.fetch(sample, metadata=False)
        absent = len(sample) - len(found)
        if absent:
            raise difference(f"of {len(sample):,} records drawn from those written, {absent:,} are not in the index")


def difference(what: str) -> Retryable:
    """The error of a store that does not hold what it should."""
    return Retryable(
        f"{what}. The next run writes what is missing; if this stays, something else writes records with this source's "
        "name",
        reason="VerificationFailed",
    )
