"""Contestants take turns (ABBA) in one process; the first round is dropped; time ends when the count is verified."""

from __future__ import annotations

import asyncio
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection, open_store

from ..world import say
from .rows import Rows, definition

T = TypeVar("T")
ROUNDS = 7
"""Rounds that count; one more, before them, does not."""
WORKERS = 4
PATIENCE_S = 60.0
"""Seconds for a count to become what was written."""


class Contestant(Protocol):
    """One way to write rows. Every method returns when what it did is acknowledged."""

    name: str

    def make(self, index: str) -> None:
        """Make an empty index of :func:`.rows.definition`'s shape."""
        ...

    def write(self, index: str, rows: Rows) -> None:
        """Write all rows."""
        ...

    def count(self, index: str) -> int:
        """Number of records in the index."""
        ...

    def drop(self, index: str) -> None:
        """Delete the index."""
        ...


@dataclass(frozen=True, slots=True)
class Arena:
    """A server and who writes to it. ``rows`` is chosen so that a round takes a few seconds."""

    server: str
    rows: int
    contestants: tuple[Contestant, ...]


@dataclass(slots=True)
class Result:
    """What one contestant did, a value a round."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def figures(self, rows: int) -> dict[str, Any]:
        """Medians and the quartiles of the rate."""
        rates = sorted(rows / taken for taken in self.seconds)
        low, middle, high = statistics.quantiles(rates, n=4)
        return {
            "vectors_per_second": round(middle),
            "iqr": [round(low), round(high)],
            "client_cpu_us_per_vector": round(statistics.median(self.cpu) / rows * 1e6, 1),
            "rounds": [round(rate) for rate in rates],
        }


class Ours:
    """Our store, as a run of ingestion uses it: ``workers`` batches of ``size`` in flight."""

    def __init__(self, connection: Connection, size: int, workers: int = WORKERS) -> None:
        self.name = f"vectorwright, {workers} x {size}"
        self._connection, self._size, self._workers = connection, size, workers

    def make(self, index: str) -> None:
        """An index with the store's own settings."""
        self._run(lambda store: store.create_index(definition(index)))

    def write(self, index: str, rows: Rows) -> None:
        """All rows, in order, as many batches at a time as there are workers."""
        waiting = iter(rows.batches(self._size))

        async def work(store: Store) -> None:
            for batch in waiting:
                await store.upsert(index, batch)

        async def all_of_them(store: Store) -> None:
            await asyncio.gather(*(work(store) for _ in range(self._workers)))

        self._run(all_of_them)

    def count(self, index: str) -> int:
        """Exact, where the store has exact counts."""
        return self._run(lambda store: store.count(index))

    def drop(self, index: str) -> None:
        """The index and all in it."""
        self._run(lambda store: store.delete_index(index))

    def _run(self, act: Callable[[Store], Awaitable[T]]) -> T:
        async def run() -> T:
            async with open_store(self._connection) as store:
                await store.probe()
                return await act(store)

        return asyncio.run(run())


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def contest(contestants: Sequence[Contestant], rows: Rows) -> dict[str, Any]:
    """Let them write the same rows, each into a fresh index, in turns: A B C, C B A, and so on."""
    results = {one.name: Result() for one in contestants}
    for number in range(ROUNDS + 1):
        for one in contestants if number % 2 == 0 else list(reversed(contestants)):
            index = f"bench_{number}_{list(results).index(one.name)}"
            one.make(index)
            cpu, started = _cpu(), time.perf_counter()
            one.write(index, rows)
            spent = _cpu() - cpu
            _verify(one, index, len(rows))
            taken = time.perf_counter() - started
            one.drop(index)
            if number:
                results[one.name].seconds.append(taken)
                results[one.name].cpu.append(spent)
    figures = {name: result.figures(len(rows)) for name, result in results.items()}
    for name, found in figures.items():
        say(f"{name:<44} {found['vectors_per_second']:>8,} vectors/s  {found['client_cpu_us_per_vector']:>7} µs CPU")
    return figures


def _verify(one: Contestant, index: str, expected: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (found := one.count(index)) != expected:
        if time.monotonic() > deadline:
            raise AssertionError(f"{one.name}: {found} records are there, {expected} were written")
        time.sleep(0.02)
