"""One writer an index: what arrives while a write waits for the disk goes into the next one, together.

Every change passes through here in the order of arrival. Runs of writes share one flush; each caller is answered after
the flush that made its own durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from vectorwright.errors import Retryable

from ..answers import abandon, answer
from .records import Change, Upsert

MAX_CHANGES = 64
MAX_BYTES = 64 * 2**20
"""A group is no more than this: a bound for memory, and for how long a caller waits for others."""

T = TypeVar("T")
_Call = Callable[[], Awaitable[Any]]


def bytes_of(change: Change) -> int:
    """Bytes of a change, about."""
    if isinstance(change, Upsert):
        return change.vectors.nbytes + sum(map(len, change.lines))
    return 64 * len(change.ids)


class Committer:
    """Runs the changes of one index, in its own task. ``commit`` makes a group of changes durable, then visible."""

    def __init__(self, name: str, commit: Callable[[Sequence[Change]], Awaitable[None]]) -> None:
        self._name = name
        self._commit = commit
        self._queue: deque[tuple[Change | _Call, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def broken(self) -> bool:
        """Whether the task ended by itself: the process must be started again."""
        return self._task is not None and self._task.done() and not self._closing

    async def write(self, change: Change) -> None:
        """Make a change; returns when it is durable. Given up by its caller, it may still be made."""
        await self._submit(change)

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run something after all that arrived before it, and before all that comes later."""
        result: T = await self._submit(call)
        return result

    async def _submit(self, item: Change | _Call) -> Any:
        if self._closing or self.broken:
            raise Retryable(f"index {self._name}: its store is stopping", reason="Stopping", after=1.0)
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=f"committer of {self._name}")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Finish what was accepted, then stop. Safe to call twice."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while True:
                while self._queue:
                    await self._next()
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
        finally:
            abandon(self._name, [future for _, future in self._queue])

    async def _next(self) -> None:
        item, future = self._queue.popleft()
        if callable(item):
            await answer(self._name, item, [future])
            return
        changes, futures, size = [item], [future], bytes_of(item)
        while self._queue and len(changes) < MAX_CHANGES:
            following = self._queue[0][0]
            if callable(following):
                break
            size += bytes_of(following)
            if size > MAX_BYTES:
                break
            changes.append(following)
            futures.append(self._queue.popleft()[1])
        await answer(self._name, lambda: self._commit(changes), futures)
