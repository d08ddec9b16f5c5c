"""How calls on a session's store find the session that follows it when its key is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from vectorwright.errors import Terminal, VectorwrightError
from vectorwright.stores.base import Store
from vectorwright.stores.registry import Connection
from vectorwright.stores.renewal import Handle

log = logging.getLogger(__name__)

ConnectAnew = Callable[[], Awaitable[tuple[str, Connection]]]
"""Tells how a VectorStore is reached now: the connection and its digest. Raises VectorwrightError."""
PATIENCE_SECONDS = 3.0
"""How long a call that was refused waits for another key: the watch of a Secret tells of a change within a second, and
a key that is wrong for good should be told of soon. Waited for once a key."""
POLL_SECONDS = 0.25


class Succession:
    """The clients of sessions that follow one another: see :class:`vectorwright.stores.renewal.Renewal`."""

    def __init__(self, newest: Callable[[], Handle[Store]], renew: Callable[[], Awaitable[None]]) -> None:
        """``newest`` gives the client of the last session; ``renew`` opens another one where the Secret changed."""
        self._newest = newest
        self._renew = renew

    async def current(self) -> Handle[Store]:
        """The client for a new call."""
        return self._newest()

    async def renewed(self, refused: Handle[Store], error: Terminal) -> Handle[Store]:
        """The client to repeat a refused call with. Raises ``error`` where none comes in time."""
        loop = asyncio.get_running_loop()
        if refused.refused_at is None:
            refused.refused_at = loop.time()
        while self._newest() is refused:
            try:
                await self._renew()
            except VectorwrightError as failed:
                log.debug("no other session yet: %s: %s", failed.reason, failed.message)
            if self._newest() is not refused:
                break
            if loop.time() >= refused.refused_at + PATIENCE_SECONDS:
                raise error
            await asyncio.sleep(POLL_SECONDS)
        log.info("the store's key changed: a call that was refused is repeated")
        return self._newest()

    async def close(self) -> None:
        """Close the client."""
        await self._newest().client.close()
