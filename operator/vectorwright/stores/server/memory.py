"""Keeping a store server's memory near what it uses."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's ``mallopt`` (malloc.h)."""
_LARGE = 2**20
_READ_AHEAD = 64 * 2**20


def limit_memory() -> None:
    """Give memory back to the system soon, and read ahead little. Called before the Lance library is loaded.

    Buffers of vectors come and go. glibc raises by itself the size from which they are mapped one by one, up to 32 MiB,
    and then keeps them in heaps, one a thread: 40,000 writes of 768 dimensions left 430 MB, with these settings 250.
    What the environment says goes first.
    """
    os.environ.setdefault("LANCE_DEFAULT_IO_BUFFER_SIZE", str(_READ_AHEAD))
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for variable, parameter, value in (
        ("MALLOC_ARENA_MAX", _M_ARENA_MAX, 2),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _LARGE),
        ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, _LARGE),
    ):
        if variable not in os.environ:
            libc.mallopt(parameter, value)
