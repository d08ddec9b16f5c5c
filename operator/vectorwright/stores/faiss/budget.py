"""The memory that the FAISS indexes of one process may take together: they live in it whole."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Protocol

from vectorwright.errors import Terminal

_SHARE = 0.75
"""Of the memory that this process may use: the rest is for requests, snapshots and what grows by doubling."""
_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Sized(Protocol):
    """Something that takes memory."""

    @property
    def nbytes(self) -> int:
        """Bytes, about."""
        ...


def default_limit() -> int:
    """Three quarters of what the container, or else the machine, has."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMIT_FILES:
        try:
            limits.append(int(Path(path).read_text("ascii")))
        except (OSError, ValueError):
            continue  # another version of cgroups, or no limit
    return int(_SHARE * min(limits))


class MemoryBudget:
    """Refuses writes that would not fit. What is being written at the same time may go a little beyond."""

    def __init__(self, limit: int | None = None) -> None:
        """``limit`` in bytes; :func:`default_limit` when left out."""
        self._limit = limit or default_limit()
        self._indexes: weakref.WeakSet[Sized] = weakref.WeakSet()

    def watch(self, index: Sized) -> None:
        """Count an index for as long as it lives."""
        self._indexes.add(index)

    def check(self, more: int, name: str) -> None:
        """Raise Terminal (``StoreFull``) where so many more bytes do not fit."""
        used = sum(index.nbytes for index in self._indexes)
        if used + more > self._limit:
            raise Terminal(
                f"index {name}: its store server holds {used >> 20} MiB of vectors and metadata, and may hold "
                f"{self._limit >> 20} MiB: give it more memory (its container's limit, or --faiss-memory), or delete "
                "records",
                reason="StoreFull",
            )
