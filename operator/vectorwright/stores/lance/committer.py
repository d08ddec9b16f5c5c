"""One committer a table: what arrives while a commit runs goes into the next one, together.

Lance's optimistic commits do not keep two writers from inserting the same new id twice, and small commits are slow. So
every change of a table passes through its committer, in the order of arrival; runs of writes become one commit, and
every caller is answered after the commit that holds its records.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from vectorwright.errors import Retryable

from ..answers import abandon, answer

MAX_ROWS = 20_000
MAX_BYTES = 128 * 2**20
"""A commit takes no more than this: a bound for memory, and for how long a caller waits for others."""
IDLE_AFTER = 15.0
"""Seconds without a change after which work that makes writers wait is begun."""

T = TypeVar("T")
_Writes = Callable[[Sequence[pa.Table]], Awaitable[None]]
_Change = Callable[[], Awaitable[Any]]


class Committer:
    """Runs the changes of one table, one after the other, in its own task.

    ``commit`` makes one commit of the rows of many callers. ``upkeep(idle)`` is called after every change and, with
    ``idle`` true, when none came for ``idle_after`` seconds and it said before that it has something left to do.
    """

    def __init__(
        self, name: str, commit: _Writes, upkeep: Callable[[bool], Awaitable[bool]], idle_after: float
    ) -> None:
        self._name = name
        self._commit = commit
        self._upkeep = upkeep
        self._idle_after = idle_after
        self._queue: deque[tuple[pa.Table | _Change, asyncio.Future[Any]]] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def broken(self) -> bool:
        """Whether the task ended by itself: the process must be started again."""
        return self._task is not None and self._task.done() and not self._closing

    @property
    def waiting(self) -> bool:
        """Whether more changes wait for the one that is being made."""
        return bool(self._queue)

    async def write(self, rows: pa.Table) -> None:
        """Write rows; returns after the commit that holds them."""
        await self._submit(rows)

    async def change(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a change by itself, after everything that arrived before it."""
        result: T = await self._submit(call)
        return result

    def start(self) -> None:
        """Start the task, for upkeep that was left over."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"committer of {self._name}")

    async def _submit(self, item: pa.Table | _Change) -> Any:
        if self._closing or self.broken:
            raise Retryable(f"index {self._name}: its store is stopping", reason="Stopping", after=1.0)
        self.start()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Finish what was accepted, then stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            left = await self._upkeep(False)
            while True:
                while self._queue:
                    await self._next()
                    left = await self._upkeep(False)
                if self._closing:
                    return
                self._wake.clear()
                try:
                    async with asyncio.timeout(self._idle_after if left else None):
                        await self._wake.wait()
                except TimeoutError:
                    left = await self._upkeep(True)
        finally:
            abandon(self._name, [future for _, future in self._queue])

    async def _next(self) -> None:
        item, future = self._queue.popleft()
        if not isinstance(item, pa.Table):
            await answer(self._name, item, [future])
            return
        tables, futures = [item], [future]
        rows, size = item.num_rows, item.nbytes
        while self._queue and isinstance(self._queue[0][0], pa.Table):
            following = self._queue[0][0]
            rows, size = rows + following.num_rows, size + following.nbytes
            if rows > MAX_ROWS or size > MAX_BYTES:
                break
            tables.append(following)
            futures.append(self._queue.popleft()[1])
        await answer(self._name, lambda: self._commit(tables), futures)
