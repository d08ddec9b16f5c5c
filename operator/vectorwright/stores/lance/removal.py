"""The objects of dropped tables: removed in the background, and by whoever finds them where a process died over it."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace

from vectorwright.errors import VectorwrightError

from .heads import Head, HeadMoved, Heads, Objects

LEFT_ALONE_SECONDS = 120.0
"""Remains that were seen unchanged for so long are nobody else's work any more."""
_KEYS_A_REQUEST = 1000
_log = logging.getLogger(__name__)


class Removals:
    """Removes the folders that heads name as remains."""

    def __init__(self, objects: Objects, heads: Heads) -> None:
        self._objects = objects
        self._heads = heads
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._noticed: dict[str, tuple[str, float]] = {}

    def start(self, name: str) -> None:
        """Remove what is left of an index, in the background."""
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(self._remove(name), name=f"removal of {name}")

    def notice(self, name: str, head: Head) -> None:
        """A head as a listing found it: remains that nobody removes are taken up."""
        if not head.remains:
            self._noticed.pop(name, None)
            return
        nonce, since = self._noticed.get(name, ("", 0.0))
        if nonce != head.nonce:
            self._noticed[name] = (head.nonce, time.monotonic())
        elif time.monotonic() - since > LEFT_ALONE_SECONDS:
            self.start(name)

    async def _remove(self, name: str) -> None:
        try:
            while (seen := await self._heads.read(name)) is not None and seen.head.remains:
                head = seen.head
                for location in head.remains:
                    if location != head.location or head.state == "gone":
                        await self._remove_folder(location)
                with suppress(HeadMoved):  # a writer changed the head: what it names now is looked at
                    await self._heads.write(name, replace(head, remains=()), seen)
        except VectorwrightError as error:
            _log.warning("index %s was dropped, but its objects were not all removed: %s", name, error.message)

    async def _remove_folder(self, location: str) -> None:
        keys: list[str] = []
        what = "removing a dropped table"
        async for page in self._objects.listing(what, self._objects.bucket.key(location)):
            keys.extend(str(one["path"]) for one in page)
            while len(keys) >= _KEYS_A_REQUEST:
                await self._objects.delete(what, keys[:_KEYS_A_REQUEST])
                del keys[:_KEYS_A_REQUEST]
        await self._objects.delete(what, keys)

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.gather(*self._tasks.values())
        self._tasks.clear()
