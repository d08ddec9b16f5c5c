"""What an index of the double holds: namespaces of records, which reads show some time after they were written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.support.double_clock import DoubleClock

from .knobs import Knobs

Floats = npt.NDArray[np.float32]
Records = dict[str, "Held"]


@dataclass(frozen=True, slots=True)
class Held:
    """One record: its vector, shape (d,), and its metadata as the service keeps it."""

    values: Floats
    metadata: dict[str, Any]
    sparse: dict[str, Any] | None = None


@dataclass(slots=True)
class Namespace:
    """Records of one namespace. Writes are numbered, and shown in order once they are due."""

    clock: DoubleClock
    records: Records = field(default_factory=dict)
    written: int = 0
    """Number of the last write."""
    shown: int = 0
    """Number of the last write that reads show."""
    _pending: deque[tuple[float, Callable[[Records], None]]] = field(default_factory=deque)
    _matrix: tuple[list[str], Floats] | None = None

    def write(self, change: Callable[[Records], None], delay: float) -> int:
        """Take a change, and the number of it."""
        self.written += 1
        self._pending.append((self.clock.monotonic() + delay, change))
        return self.written

    def visible(self) -> Records:
        """What reads show now."""
        while self._pending and self._pending[0][0] <= self.clock.monotonic():
            _, change = self._pending.popleft()
            change(self.records)
            self.shown += 1
            self._matrix = None
        return self.records

    def matrix(self) -> tuple[list[str], Floats]:
        """Ids, and their vectors as rows: shape (n, d)."""
        records = self.visible()
        if self._matrix is None:
            rows = [held.values for held in records.values()]
            self._matrix = list(records), np.stack(rows) if rows else np.empty((0, 0), np.float32)
        return self._matrix


@dataclass(slots=True)
class Index:
    """One index with its definition, as the control plane tells it."""

    name: str
    dimension: int
    metric: str
    deployment: dict[str, Any]
    read_capacity: dict[str, Any] | None
    deletion_protection: str
    tags: dict[str, str]
    ready_at: float
    clock: DoubleClock
    gone_at: float | None = None
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    _counts: tuple[float, dict[str, int]] | None = None

    @property
    def ready(self) -> bool:
        return self.gone_at is None and self.clock.monotonic() >= self.ready_at

    @property
    def state(self) -> str:
        if self.gone_at is not None:
            return "Terminating"
        return "Ready" if self.ready else "Initializing"

    def counts(self, knobs: Knobs) -> dict[str, int]:
        """Records by namespace, as old as the knob allows."""
        now = self.clock.monotonic()
        if self._counts is None or now - self._counts[0] >= knobs.stale_counts:
            self._counts = now, {name: len(held.visible()) for name, held in self.namespaces.items()}
        return self._counts[1]
