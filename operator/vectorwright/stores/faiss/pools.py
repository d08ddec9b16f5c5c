"""The threads of FAISS stores: bounded in number, shared by all stores of a process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Pool:
    """So many threads, started when they are needed."""

    def __init__(self, name: str, workers: int) -> None:
        self._executor = ThreadPoolExecutor(workers, f"faiss-{name}")

    async def run(self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of a call in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *args, **kwargs))


_CORES = os.cpu_count() or 1
READS = Pool("read", max(2, min(16, _CORES)))
"""Searches and other reads: as many at a time as there are cores."""
WRITES = Pool("write", 8)
"""Appends to logs: they wait for the disk most of the time."""
UPKEEP = Pool("upkeep", 1)
"""Snapshots, training and opening: one at a time, each takes memory of its own."""
