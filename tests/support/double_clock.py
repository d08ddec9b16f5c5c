"""The clock of a double: tests say how much time went by for it, they need not wait, nor be quicker than it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class DoubleClock:
    """The machine's clock, ahead of it by what tests let pass."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass for the double, at once."""
        self._ahead += seconds

    def monotonic(self) -> float:
        """Seconds since some moment, as :func:`time.monotonic` counts them."""
        return time.monotonic() + self._ahead

    def now(self) -> datetime:
        """The time of day, with its zone."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead)
