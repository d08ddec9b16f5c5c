"""Token buckets: what a worker may ask of the store and of the embedding endpoint.

Several workers share one backend: the operator divides its limit and hands every worker its share. A worker that has
not heard from the operator for a minute cannot know how many others there are now, and falls to a quarter of its last
share until it hears again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vectorwright.errors import Terminal

from .runspec import RunSpec

CONTACT_SECONDS = 60.0
"""Silence of the operator after which the floor applies. It polls every 5 s: twelve polls were missed by then."""
FLOOR = 0.25
"""Share of the last budget that is used without contact."""


class TokenBucket:
    """Lets ``rate`` units a second pass, with bursts of one second's worth. ``rate=None`` lets everything pass.

    A request for more than a burst passes when the bucket is full and leaves it in debt, so the mean holds for requests
    of any size.
    """

    def __init__(self, rate: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = rate
        self._level = self._burst
        self._at = clock()
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> float | None:
        """Units a second."""
        return self._rate

    @property
    def _burst(self) -> float:
        return max(1.0, self._rate or 0.0)

    def set_rate(self, rate: float | None) -> None:
        """Change the rate from now on."""
        self._refill()
        self._rate = rate
        self._level = min(self._level, self._burst)

    def _refill(self) -> None:
        now = self._clock()
        if self._rate is not None:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now

    async def take(self, units: float = 1.0) -> None:
        """Wait until ``units`` may pass. Callers pass in the order they came."""
        if self._rate is None:
            return
        async with self._turn:
            while self._rate is not None:
                self._refill()
                needed = min(units, self._burst)
                if self._level >= needed:
                    self._level -= units
                    return
                # Short naps: the rate may be raised meanwhile.
                await asyncio.sleep(min(0.25, (needed - self._level) / self._rate + 0.001))

    def settle(self, units: float) -> None:
        """Book units that were used beyond those taken (negative: that were not used)."""
        if self._rate is not None:
            self._level = min(self._burst, self._level - units)


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's share of the limits of its backends. None: no limit."""

    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    embed_requests_per_minute: float | None = None
    embed_tokens_per_minute: float | None = None
    source_requests_per_second: float | None = None
    """Of the store that a copy reads from, where that is another one."""


@dataclass(frozen=True, slots=True)
class StoreBuckets:
    """What one store may be asked for."""

    requests: TokenBucket
    bytes: TokenBucket


_NAMES = {
    "requestsPerSecond": "requests_per_second",
    "bytesPerSecond": "bytes_per_second",
    "embedRequestsPerMinute": "embed_requests_per_minute",
    "embedTokensPerMinute": "embed_tokens_per_minute",
    "sourceRequestsPerSecond": "source_requests_per_second",
}


class Limits:
    """The buckets of a run. Until the operator says otherwise they follow ``run.json``."""

    def __init__(self, share: Share | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._share = share or Share()
        self._heard = clock()
        self._alone = False
        rates = self._rates(1.0)
        self.requests, self.bytes, self.embed_requests, self.embed_tokens, self.source_requests = (
            TokenBucket(rate, clock=clock) for rate in rates
        )

    @classmethod
    def of(cls, spec: RunSpec) -> Limits:
        """The limits that ``run.json`` starts with."""
        limits = spec.embedder.spec.limits if spec.embedder is not None else None
        return cls(
            Share(
                spec.store.requests_per_second,
                spec.store.bytes_per_second,
                limits.requests_per_minute if limits else None,
                limits.tokens_per_minute if limits else None,
                spec.source_store.requests_per_second if spec.source_store is not None else None,
            )
        )

    @property
    def source(self) -> StoreBuckets:
        """For the store that a copy reads from; reads take nothing of the bytes that are written."""
        return StoreBuckets(self.source_requests, TokenBucket(None))

    @property
    def share(self) -> Share:
        """What was granted last."""
        return self._share

    @property
    def alone(self) -> bool:
        """Whether the floor applies."""
        return self._alone

    def _rates(self, factor: float) -> tuple[float | None, ...]:
        """Units a second of the buckets, in their order."""
        per_second = (
            (self._share.requests_per_second, 1.0),
            (self._share.bytes_per_second, 1.0),
            (self._share.embed_requests_per_minute, 60.0),
            (self._share.embed_tokens_per_minute, 60.0),
            (self._share.source_requests_per_second, 1.0),
        )
        return tuple(None if limit is None else limit * factor / seconds for limit, seconds in per_second)

    def _apply(self, factor: float) -> None:
        buckets = (self.requests, self.bytes, self.embed_requests, self.embed_tokens, self.source_requests)
        for bucket, rate in zip(buckets, self._rates(factor), strict=True):
            bucket.set_rate(rate)

    def heard(self) -> None:
        """The operator was in touch: its last share holds."""
        self._heard = self._clock()
        if self._alone:
            self._alone = False
            self._apply(1.0)

    def check_contact(self) -> None:
        """Fall to the floor after :data:`CONTACT_SECONDS` of silence. Called every second or so."""
        if not self._alone and self._clock() - self._heard > CONTACT_SECONDS:
            self._alone = True
            self._apply(FLOOR)

    def grant(self, budget: Mapping[str, object]) -> None:
        """Take a new share: fields that are left out stay, null lifts a limit.

        Raises Terminal (``InvalidBudget``) for an unknown field or a value that is no positive number; nothing changes
        then.
        """
        new: dict[str, float | None] = {}
        for name, value in budget.items():
            if name not in _NAMES:
                raise Terminal(f"unknown budget {name[:64]!r}; known are {', '.join(_NAMES)}", reason="InvalidBudget")
            number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
            if value is not None and (number is None or not 0 < number < float("inf")):
                raise Terminal(f"{name}: expected a positive number or null", reason="InvalidBudget")
            new[_NAMES[name]] = None if number is None else float(number)
        current = {field: getattr(self._share, field) for field in _NAMES.values()}
        self._share = Share(**(current | new))
        self._alone = False
        self._heard = self._clock()
        self._apply(1.0)
