"""What servers of tests count, and what they fail on purpose, by the names of their operations.

Nothing of a request is kept but the name of its operation: keys go through these servers.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """An answer that is no success.

    ``status`` is an HTTP status, which servers that speak something else say in their own way; None is an answer like
    any other, only late. With ``done`` the operation is carried out before: what is lost is its answer. ``delay`` is
    seconds before anything happens.
    """

    status: int | None = 503
    done: bool = False
    delay: float = 0.0
    retry_after: int | None = None
    """Seconds, where the answer tells some."""


class Operations:
    """Counts calls by operation, and holds the faults that the next ones meet."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._faults: dict[str, list[tuple[float, Fault]]] = {}
        self._guard = threading.Lock()

    @property
    def counts(self) -> dict[str, int]:
        """Calls so far by operation, failed ones included."""
        with self._guard:
            return dict(self._counts)

    def count(self, operation: str) -> int:
        """Calls of one operation so far, failed ones included."""
        with self._guard:
            return self._counts[operation]

    def fail(
        self,
        operation: str,
        times: int | None = 1,
        *,
        status: int | None = 503,
        done: bool = False,
        delay: float = 0.0,
        retry_after: int | None = None,
    ) -> None:
        """Let the next ``times`` calls of an operation meet a :class:`Fault`; None lets all, until ``heal()``."""
        fault = Fault(status, done, delay, retry_after)
        with self._guard:
            self._faults.setdefault(operation, []).append((float("inf") if times is None else times, fault))

    def heal(self) -> None:
        """No faults any more."""
        with self._guard:
            self._faults.clear()

    def forget(self) -> None:
        """No faults any more, and nothing counted."""
        with self._guard:
            self._faults.clear()
            self._counts.clear()

    def met(self, operation: str) -> Fault | None:
        """For servers: count one call, and tell the fault that it meets."""
        with self._guard:
            self._counts[operation] += 1
            waiting = self._faults.get(operation)
            if not waiting:
                return None
            left, fault = waiting.pop(0)
            if left > 1:
                waiting.insert(0, (left - 1, fault))
            return fault
