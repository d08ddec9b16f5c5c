"""Which request of a call meets which fault, whatever transport carries it.

Every proxy of a store asks one plan about every request, so a fault is met by the n-th request of a call also where a
store sends some over HTTP and others over gRPC, and a test sees how often it was met.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

RETRY_AFTER = 7.0
"""Seconds that a 429 asks for."""
NOISE = "x" * 5_000
"""Text that a fault carries beside what it quotes: no message may grow with it."""

FAULTS = (
    "timeout",
    "reset",
    "401",
    "403",
    "404",
    "404 of a proxy",
    "409",
    "413",
    "429",
    "500",
    "503",
    "garbage",
)
"""Names of the faults. A number is an HTTP status, told in the store's own form; over other transports it is what they
have for it. "404 of a proxy" is a page of HTML."""


@dataclass(slots=True)
class _Armed:
    fault: str
    first: int


class FaultPlan:
    """Counts requests, and gives the armed fault to the ``first``-th one (from 0) and to all after it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._armed: _Armed | None = None
        self.seen = 0
        """Requests since ``arm`` or ``disarm``."""
        self.met: list[str] = []
        """The transports whose requests met the fault: http, grpc or postgres."""
        self.over = threading.Event()
        """Set when whoever is kept waiting need not be any longer."""

    def arm(self, fault: str, first: int = 0) -> None:
        """From the ``first``-th request on."""
        with self._guard:
            self._armed, self.seen, self.met = _Armed(fault, first), 0, []
            self.over.clear()

    def disarm(self) -> None:
        """Pass everything on, and count from 0. Requests that are kept waiting are broken off."""
        with self._guard:
            self._armed, self.seen = None, 0
            self.over.set()

    def next(self, transport: str) -> str | None:
        """The fault that this request meets."""
        with self._guard:
            at, self.seen = self.seen, self.seen + 1
            if self._armed is None or at < self._armed.first:
                return None
            self.met.append(transport)
            return self._armed.fault
