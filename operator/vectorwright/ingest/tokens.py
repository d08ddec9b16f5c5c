"""Tokens: guessed before a call, counted after it, and never more than the budget."""

from __future__ import annotations

import asyncio

_FIRST_GUESS = 0.5
"""Tokens a byte before the first answer: about twice what English prose and code take."""
_MARGIN = 1.1


class TokenEstimate:
    """Guesses tokens from bytes: the highest ratio seen so far, with a margin."""

    def __init__(self) -> None:
        self._ratio: float | None = None

    def guess(self, size: int) -> int:
        """Tokens of ``size`` bytes of text, rather too many than too few."""
        ratio = _FIRST_GUESS if self._ratio is None else min(1.0, self._ratio * _MARGIN)
        return int(size * ratio) + 1

    def learn(self, size: int, tokens: int) -> None:
        """A call with ``size`` bytes of text took ``tokens``."""
        if size > 0 and tokens > 0:
            self._ratio = max(self._ratio or 0.0, tokens / size)


class TokenBudget:
    """Tokens that a run may use. What is in flight is reserved by its guess."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._used = 0
        self._reserved = 0
        self._settled = asyncio.Condition()

    async def reserve(self, guesses: list[int]) -> int:
        """How many of the next texts may be embedded, in their order; those are reserved.

        Waits for what is in flight where its guess, and not its use, is in the way. Fewer than asked for: the budget is
        used up.
        """
        if self.most is None:
            return len(guesses)
        async with self._settled:
            while True:
                room = self.most - self._used - self._reserved
                fitting = total = 0
                for guess in guesses:
                    if total + guess > room:
                        break
                    total += guess
                    fitting += 1
                if fitting == len(guesses) or self._reserved == 0:
                    self._reserved += total
                    return fitting
                await self._settled.wait()

    async def settle(self, reserved: int, used: int) -> None:
        """A call that had reserved so much has used so much."""
        if self.most is None:
            return
        async with self._settled:
            self._reserved -= reserved
            self._used += used
            self._settled.notify_all()
