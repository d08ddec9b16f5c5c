"""Attempts with exponential backoff and full jitter, and what the outside asked for in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from vectorwright.errors import Retryable

T = TypeVar("T")

FIRST_DELAY = 0.5
"""Upper bound of the first delay in seconds; it doubles with every attempt."""
LONGEST_DELAY = 30.0
LONGEST_RETRY_AFTER = 120.0
"""A worker that is told to wait longer than this ends instead: the runner starts the run again later."""

Sleep = Callable[[float], Awaitable[None]]


class Retrier:
    """Repeats calls that raise Retryable. Everything else passes through at once."""

    def __init__(
        self,
        attempts: int,
        *,
        on_retry: Callable[[], None] | None = None,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.attempts = attempts
        self._on_retry = on_retry
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets

    def delay(self, attempt: int, after: float | None) -> float:
        """Seconds before attempt number ``attempt + 1``: full jitter, never less than what was asked for."""
        jittered = self._rng.uniform(0.0, min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (attempt - 1)))
        return max(jittered, after or 0.0)

    async def call(self, function: Callable[[], Awaitable[T]], *, attempts: int | None = None) -> T:
        """The result of ``function``. Raises its last Retryable when all attempts failed."""
        last = attempts or self.attempts
        attempt = 1
        while True:
            try:
                return await function()
            except Retryable as error:
                if attempt >= last or (error.after or 0.0) > LONGEST_RETRY_AFTER:
                    raise
                pause = self.delay(attempt, error.after)
            attempt += 1
            if self._on_retry is not None:
                self._on_retry()
            await self._sleep(pause)

    async def pause(self, attempt: int, after: float | None) -> None:
        """Wait as after a failed attempt, for what is repeated in another way than by :meth:`call`."""
        if self._on_retry is not None:
            self._on_retry()
        await self._sleep(self.delay(attempt, after))
