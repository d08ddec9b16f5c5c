"""Keeping a store server's memory near what it uses."""

from __future__ import annotations

import os

from vectorwright.observability.memory import limit_heaps

_READ_AHEAD = 64 * 2**20


def limit_memory() -> None:
    """Give memory back soon, and read ahead little. Called before the Lance library is loaded."""
    os.environ.setdefault("LANCE_DEFAULT_IO_BUFFER_SIZE", str(_READ_AHEAD))
    limit_heaps()
