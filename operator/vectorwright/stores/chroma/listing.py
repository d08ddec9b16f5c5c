"""Lists that a server gives by position, whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from vectorwright.errors import Retryable

T = TypeVar("T")

ATTEMPTS = 3


async def snapshot(page: Callable[[int, int], Awaitable[list[T]]], size: int, key: Callable[[T], object]) -> list[T]:
    """Everything that ``page(limit, offset)`` gives, in ``size`` at a time; one request where that is all.

    Something deleted meanwhile moves what follows into a page that was read already, where it would be missed. So each
    page begins with the last item of the one before; where it does not, the list is read again. Raises Retryable
    (``ListingChanged``) when it never stands still.
    """
    for _ in range(ATTEMPTS):
        found = await page(size, 0)
        last = len(found)
        while last >= size:
            more = await page(size, len(found) - 1)
            if not more or key(more[0]) != key(found[-1]):
                break
            found += more[1:]
            last = len(more)
        else:
            return found
    raise Retryable("the store changed while it was listed, several times over", reason="ListingChanged")
