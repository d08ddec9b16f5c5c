"""How long this process may still change things: the lease of its parent, seen from the working process.

A process without a leader election (a worker, a command, a test) has no end of tenure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from vectorwright.errors import Retryable

from . import clock

LEAST_S = 0.25
"""With less left than this, no call is begun: it could hardly end in time."""


class Tenure:
    """A deadline on :func:`vectorwright.kube.clock.now` that is moved on with each renewal. Read from any thread."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self._now = now
        self._deadline = math.inf

    @property
    def deadline(self) -> float:
        """When the right to change things ends, unless it is renewed."""
        return self._deadline

    def set_deadline(self, deadline: float) -> None:
        """Take over what the parent says."""
        self._deadline = deadline

    def remaining(self) -> float:
        """Seconds that are left; infinite without a leader election, at least 0."""
        return max(0.0, self._deadline - self._now())

    def require(self) -> float | None:
        """The seconds within which a call that changes something must end; None for no limit.

        Raises Retryable (reason ``LeaseLost``) when the tenure has ended: another operator may already be at work.
        """
        left = self.remaining()
        if left < LEAST_S:
            raise Retryable("this operator no longer holds the lease; nothing is changed", reason="LeaseLost")
        return None if math.isinf(left) else left


_tenure = Tenure()


def process_tenure() -> Tenure:
    """The tenure of this process."""
    return _tenure


def tenure_guard(_: Any = None) -> float | None:
    """A guard for ``KubeClient`` and ``open_session``: refuses writes after the tenure of this process."""
    return _tenure.require()
