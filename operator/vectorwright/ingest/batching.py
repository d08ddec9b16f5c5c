"""From a queue of items to batches, and from batches to tasks: both bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


class BoundedQueue(asyncio.Queue[T | None]):
    """A queue that is full at ``most`` items or ``most_bytes`` bytes, whichever comes first. None ends a stream."""

    def __init__(self, most: int, most_bytes: int, size: Callable[[T], int]) -> None:
        super().__init__(most)
        self._most_bytes = most_bytes
        self._size = size
        self._bytes = 0

    def full(self) -> bool:
        """Whether a put has to wait. One item of any size fits into an empty queue."""
        return super().full() or self._bytes >= self._most_bytes

    def _put(self, item: T | None) -> None:
        self._bytes += 0 if item is None else self._size(item)
        super()._put(item)

    def _get(self) -> T | None:
        item = super()._get()
        self._bytes -= 0 if item is None else self._size(item)
        return item


async def batched(
    queue: asyncio.Queue[T | None],
    *,
    most: int,
    linger: float,
    most_bytes: int | None = None,
    size: Callable[[T], int] | None = None,
) -> AsyncGenerator[list[T], None]:
    """Batches of at most ``most`` items and ``most_bytes`` bytes, until a None comes.

    A larger item is a batch by itself. A batch that is not full leaves ``linger`` seconds after its first item came, so
    that little is lost when the process dies.
    """
    loop = asyncio.get_running_loop()
    batch: list[T] = []
    weight = 0
    leaves = 0.0
    while True:
        try:
            item = queue.get_nowait()
        except asyncio.QueueEmpty:
            try:
                async with asyncio.timeout_at(leaves if batch else None):
                    item = await queue.get()
            except TimeoutError:
                yield batch
                batch, weight = [], 0
                continue
        if item is None:
            break
        heavy = size(item) if size is not None else 0
        if batch and most_bytes is not None and weight + heavy > most_bytes:
            yield batch
            batch, weight = [], 0
        if not batch:
            leaves = loop.time() + linger
        batch.append(item)
        weight += heavy
        if len(batch) >= most:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


async def spread(
    batches: AsyncGenerator[list[T], None], work: Callable[[list[T]], Awaitable[None]], workers: int
) -> None:
    """Run ``work`` on every batch, at most ``workers`` at a time. The first error ends all."""
    slots = asyncio.Semaphore(workers)

    async def one(batch: list[T]) -> None:
        try:
            await work(batch)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group, aclosing(batches) as source:
        while True:
            # A slot first: a batch that is formed early would only lie in memory, and count as in flight.
            await slots.acquire()
            batch = await anext(source, None)
            if batch is None:
                return
            group.create_task(one(batch))
