"""Waiting for what tells nobody when it is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(is_so: Callable[[], object], seconds: float = 30.0, every: float = 0.001) -> None:
    """Return once ``is_so()`` holds. Raises TimeoutError after so many seconds."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - that is what this is for
            await asyncio.sleep(every)
