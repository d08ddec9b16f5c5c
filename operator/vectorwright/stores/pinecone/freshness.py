"""Reading one's own writes from a service that shows them a little later.

Pinecone numbers the writes of a namespace. It tells the number of a write with the answer to it, and with the answer
to a query up to which number the index shows writes (serverless indexes only: others tell nothing, and are not waited
for). What one handle wrote, another of the same process waits for too: the one that verifies need not be the one that
wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import httpx

_COMMITTED = ("x-pinecone-request-lsn", "x-pinecone-lsn-committed")
_INDEXED = ("x-pinecone-max-indexed-lsn", "x-pinecone-lsn-reconciled")
MAX_PLACES = 1_024
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


class Place(NamedTuple):
    """Where an index is. One that is made again at the same host is another one, and numbers its writes anew."""

    host: str
    incarnation: str


class Freshness:
    """What the answers about one namespace of an index told."""

    def __init__(self) -> None:
        self._committed = -1
        self._indexed = -1

    async def see(self, response: httpx.Response) -> None:
        """Take the numbers from an answer: a hook of an HTTP client."""
        self._committed = max(self._committed, _number(response, _COMMITTED))
        self._indexed = max(self._indexed, _number(response, _INDEXED))

    @property
    def behind(self) -> bool:
        """Whether something was written that no query was seen to show."""
        return self._indexed < self._committed

    async def wait(self, seconds: float, query: Callable[[], Awaitable[object]]) -> bool:
        """Ask ``query`` until the index shows what was written, at most for ``seconds``. Whether it does."""
        until, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while self.behind and time.monotonic() < until:
            await query()
            if self.behind:
                await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))
                pause = min(2 * pause, _LONGEST_PAUSE)
        return not self.behind


_seen: OrderedDict[tuple[Place, str], Freshness] = OrderedDict()


def freshness_of(place: Place, namespace: str) -> Freshness:
    """What this process knows of a namespace; of the last ``MAX_PLACES`` that it asked for."""
    key = (place, namespace)
    found = _seen.setdefault(key, Freshness())
    _seen.move_to_end(key)
    if len(_seen) > MAX_PLACES:
        _seen.popitem(last=False)
    return found


def _number(response: httpx.Response, names: tuple[str, ...]) -> int:
    for name in names:
        value = response.headers.get(name, "")
        if value.isascii() and value.isdigit():
            return int(value)
    return -1
