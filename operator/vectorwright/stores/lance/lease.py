"""Who may commit to a table in a bucket: one writer at a time, whichever process it is in.

The lease keeps writers from wasting their work; it does not keep the table right. That is done by the head's
compare-and-swap (:mod:`.heads`): a writer who was paused, lost its lease and goes on finds that the head moved.

A lease is never judged by a clock that two machines would have to share: whoever waits takes it over when the head
stayed the same, nonce and all, for :data:`LEASE_SECONDS` of its own monotonic clock. The holder changes the nonce more
often than that.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from vectorwright.errors import NotFound, Retryable, VectorwrightError

from .heads import READY, Head, HeadMoved, Heads, Seen

LEASE_SECONDS = 20.0
"""A writer that is silent for so long is taken for dead. Longer than pauses of a busy machine; a table whose writer was
killed waits as long."""
RENEW_SECONDS = 5.0
WAIT_SECONDS = 180.0
"""How long a writer waits for the others before its caller is told to come again."""
_FIRST_POLL, _LAST_POLL = 0.03, 0.5
_TURN = 1.5
"""Seconds that a writer goes on without a break while others wait for the lease, too."""
_ALONE = 8.0
"""The same while nobody was seen to wait."""
_log = logging.getLogger(__name__)


class Lease:
    """One table's lease, as one process asks for it. Used by one task at a time, the table's committer."""

    def __init__(self, heads: Heads, name: str) -> None:
        self._heads = heads
        self._name = name
        self._me = uuid.uuid4().hex
        self._seen: Seen | None = None
        self._held = False
        self._since = 0.0
        self._released = 0.0
        self._rivals = False
        self._stray = False
        self._writing = asyncio.Lock()

    @property
    def head(self) -> Head:
        """The head as this writer saw it last, while it has the lease."""
        if self._seen is None:
            raise RuntimeError(f"index {self._name}: nobody asked for its lease")
        return self._seen.head

    def absent(self) -> NotFound:
        """The table is not there."""
        return NotFound(f"index {self._name[:200]!r} does not exist in this store")

    async def take(self) -> Head:
        """Get the lease, or keep it; the head, as it is now. Raises NotFound, Retryable."""
        if self._held:
            return self.head
        began = time.monotonic()
        if self._rivals and began - self._released < _FIRST_POLL:
            await asyncio.sleep(_LAST_POLL)  # let those in who waited
        if self._seen is not None and self._seen.head.holder is None and await self._try():
            return self.head
        watched, since, pause = "", began, _FIRST_POLL
        while True:
            self._seen = await self._heads.read(self._name)
            if self._seen is None or self._seen.head.state != READY:
                self._seen = None
                raise self.absent()
            head, now = self._seen.head, time.monotonic()
            if head.nonce != watched:
                watched, since = head.nonce, now
            dead = now - since > LEASE_SECONDS
            if dead:
                _log.warning("index %s: its writer was silent for %.0f s; going on without it", self._name, now - since)
            if (head.holder in (None, self._me) or dead) and await self._try():
                self._rivals = self._rivals or now - began > 2 * _FIRST_POLL
                return self.head
            if now - began > WAIT_SECONDS:
                raise Retryable(
                    f"index {self._name}: other writers kept it for {now - began:.0f} s", reason="Throttled", after=5.0
                )
            self._rivals = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - so that writers do not meet again
            pause = min(pause * 1.5, _LAST_POLL)

    async def _try(self) -> bool:
        if self._seen is None:
            return False
        try:
            self._seen = await self._heads.write(self._name, replace(self._seen.head, holder=self._me), self._seen)
        except HeadMoved:
            self._rivals = True
            self._seen = None
            return False
        except VectorwrightError:
            self.lost()
            self._stray = True  # it may have been done
            raise
        self._held, self._stray, self._since = True, False, time.monotonic()
        return True

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renews the lease while this lasts."""
        done = asyncio.Event()
        renewal = asyncio.create_task(self._renew(done), name=f"lease of {self._name}")
        try:
            yield
        finally:
            done.set()  # not cancelled: a renewal that is under way has to be known
            await renewal

    async def _renew(self, done: asyncio.Event) -> None:
        while not done.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await done.wait()
                return
            try:
                async with self._writing:
                    if self._held and self._seen is not None:
                        self._seen = await self._heads.write(self._name, self._seen.head, self._seen)
            except HeadMoved:
                self.lost()
            except VectorwrightError as error:
                _log.warning("index %s: its lease was not renewed: %s", self._name, error.message)

    def lost(self) -> None:
        """Somebody else has it."""
        self._held, self._seen = False, None

    async def publish(self, head: Head, *, more: bool) -> None:
        """Make a change the table: the head as it should be, over the one that the change began from.

        The lease is kept for what ``more`` says is waiting, within this writer's turn. Raises HeadMoved where it was
        lost: then the change was never made.
        """
        async with self._writing:
            if not self._held or self._seen is None:
                raise HeadMoved
            turn = _TURN if self._rivals else _ALONE
            keep = more and time.monotonic() - self._since < turn
            try:
                self._seen = await self._heads.write(
                    self._name, replace(head, holder=self._me if keep else None), self._seen
                )
            except (HeadMoved, VectorwrightError):
                self.lost()
                self._stray = True  # unless somebody else has it, which is seen at the end
                raise
            if not keep:
                self._held, self._released = False, time.monotonic()

    async def give_back(self) -> None:
        """Let go of the lease after a change that failed; where that fails, too, it runs out."""
        async with self._writing:
            if self._held and self._seen is not None:
                try:
                    await self._heads.write(self._name, replace(self._seen.head, holder=None), self._seen)
                except (HeadMoved, VectorwrightError):
                    self._stray = True
            self.lost()

    async def close(self) -> None:
        """Let go of a lease that could not be given back when it should have been."""
        if not self._stray:
            return
        with suppress(HeadMoved, VectorwrightError):
            seen = await self._heads.read(self._name)
            if seen is not None and seen.head.holder == self._me:
                await self._heads.write(self._name, replace(seen.head, holder=None), seen)
        self._stray = False
