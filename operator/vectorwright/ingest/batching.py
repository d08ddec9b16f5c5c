"""From a queue of items to batches, and from batches to tasks: both bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


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
