"""A level-triggered work queue: what has to be looked at again, and when.

An object is in the queue at most once and is worked on by one worker at a time; what arrives meanwhile runs after.
Failures come back with exponential backoff, half of it random.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from vectorwright.reconcile.cache import Key

BASE_DELAY = 0.5
"""Seconds before the first repetition after a failure."""
MAX_DELAY = 300.0
"""Longest delay in seconds between repetitions."""


class WorkQueue:
    """Keys that wait for a worker. All methods belong to one event loop."""

    def __init__(self, work: Callable[[Key], Awaitable[None]], workers: int) -> None:
        """``work`` is called with one key at a time a worker; it does not raise."""
        self._work = work
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, int, Key]] = []
        self._timer_changed = asyncio.Event()
        self._sequence = 0
        self._failures: dict[Key, int] = {}
        self._depths: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def depth(self, kind: str) -> int:
        """How many objects of a kind wait for a worker."""
        return self._depths[kind]

    def add(self, key: Key) -> None:
        """Have a key worked on as soon as a worker is free."""
        self._due.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._depths[key.kind] += 1
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Have a key worked on after a delay, or earlier where it is due earlier already."""
        due = time.monotonic() + max(0.0, seconds)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._timers, (due, self._sequence, key))
        if len(self._timers) > 2 * len(self._due) + 64:
            # Delays that were cut short by something else would stay until they end, weeks for a schedule.
            self._timers = [timer for timer in self._timers if self._due.get(timer[2]) == timer[0]]
            heapq.heapify(self._timers)
        self._timer_changed.set()

    def failed(self, key: Key, after: float | None = None) -> float:
        """Count a failure and have the key worked on again. Returns the delay in seconds, at least ``after``."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        ceiling = min(MAX_DELAY, BASE_DELAY * 2 ** min(failures - 1, 16))
        delay = max(after or 0.0, random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter, not a secret
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Forget all about a key whose object is gone."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._wake_due())
            for _ in range(self._workers):
                group.create_task(self._serve())

    async def _wake_due(self) -> None:
        while True:
            self._timer_changed.clear()
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                due, _, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:
                    self.add(key)
            wait = self._timers[0][0] - now if self._timers else None
            try:
                async with asyncio.timeout(wait):
                    await self._timer_changed.wait()
            except TimeoutError:
                continue

    async def _serve(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._depths[key.kind] -= 1
            self._running.add(key)
            try:
                await self._work(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
