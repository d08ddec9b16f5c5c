"""Clients whose credentials change while they are in use.

A call uses the newest client. One that is replaced is closed when the last call on it has ended, and a call that is
refused because its key died meanwhile is repeated with the next key. So every call that goes through here must be one
that may be repeated after it was refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from vectorwright.errors import Terminal, VectorwrightError

logger = logging.getLogger(__name__)

ACCESS_DENIED = "AccessDenied"
LOOK_SECONDS = 2.0
"""Seconds between two looks for other credentials while calls are made: a look reads a few small files."""
PATIENCE_SECONDS = 100.0
"""How long a key that worked and is refused now may be behind: a kubelet writes a changed Secret into a pod's volume
when it synchronises the pod, every 60 s (``syncFrequency``) lengthened at random by up to a half
(``workerResyncIntervalJitterFactor`` of its pod_workers.go); 10 s more for the way to the store."""
FIRST_PATIENCE_SECONDS = 5.0
"""The same for a key that never worked: the files were written when the worker was started, so it is wrong."""
POLL_SECONDS = 0.5
"""Seconds between two looks while calls wait for other credentials."""
LONGEST_BACKOFF = 60.0
"""Seconds between two trials of new credentials that do not work, while the old ones do."""

T = TypeVar("T")


class Closable(Protocol):
    """A client that can be closed."""

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...


Client = TypeVar("Client", bound=Closable)
Source = TypeVar("Source")


class Handle(Generic[Client]):
    """A client, and the calls in flight on it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.worked = False
        """Whether any call with its credentials was answered."""
        self.refused_at: float | None = None
        """When, on the loop's clock, a call was first refused."""
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def used(self) -> Iterator[Client]:
        """The client for one call. Nothing may be awaited between taking the handle and this."""
        self._users += 1
        self._idle.clear()
        try:
            yield self.client
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    async def idle(self) -> None:
        """Wait for the end of the calls in flight."""
        await self._idle.wait()

    async def close_when_idle(self) -> None:
        """Close the client once no call is in flight; also when this is cancelled."""
        try:
            await self.idle()
        finally:
            await self.client.close()


class Renewal(Protocol[Client]):
    """Where clients come from, one after the other."""

    async def current(self) -> Handle[Client]:
        """The client for a new call."""
        ...

    async def renewed(self, refused: Handle[Client], error: Terminal) -> Handle[Client]:
        """The client to repeat a call with that was refused on ``refused``. Raises Terminal where there is none."""
        ...

    async def close(self) -> None:
        """Close every client now."""
        ...


def is_refusal(error: Terminal) -> bool:
    """Whether the credentials were refused, which others may mend."""
    return error.reason == ACCESS_DENIED


async def with_renewal(renewal: Renewal[Client], function: Callable[[Client], Awaitable[T]]) -> T:
    """The result of ``function``, called again with other credentials when its own are refused.

    Each repetition needs credentials newer than those that were refused. Raises what ``function`` raises.
    """
    handle = await renewal.current()
    while True:
        try:
            with handle.used() as client:
                result = await function(client)
        except Terminal as error:
            if not is_refusal(error):
                raise
            refused = error
        else:
            handle.worked = True
            return result
        handle = await renewal.renewed(handle, refused)


class PolledRenewal(Generic[Source, Client]):
    """Looks now and then whether there are other credentials, tries them, and moves new calls over to them.

    Credentials that do not work are not taken up while the old ones do.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], Source | None],
        open_client: Callable[[Source], Client],
        verify: Callable[[Client], Awaitable[object]],
        *,
        patience: float = PATIENCE_SECONDS,
        first_patience: float = FIRST_PATIENCE_SECONDS,
    ) -> None:
        """``what`` names the other side in messages. ``read`` gives what to connect with now; None: nothing usable.

        ``verify`` asks something harmless of a new client before calls are moved to it. Raises what ``read`` and
        ``open_client`` raise, and Terminal (``MissingCredentials``) where ``read`` finds nothing.
        """
        self._what = what
        self._read, self._open, self._verify = read, open_client, verify
        self._patience, self._first_patience = patience, first_patience
        source = read()
        if source is None:
            raise Terminal(f"the files with the credentials for {what} cannot be read", reason="MissingCredentials")
        self._source = source
        self._handle = Handle(open_client(source))
        self._looked_at = asyncio.get_running_loop().time()
        self._useless: Source | None = None
        """Credentials that were tried last and did not work."""
        self._tried_at = 0.0
        self._backoff = LOOK_SECONDS
        self._lock = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def client(self) -> Client:
        """The client that new calls use."""
        return self._handle.client

    async def current(self) -> Handle[Client]:
        """See :class:`Renewal`. Never raises: credentials that cannot be used are logged, and the old ones stay."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= LOOK_SECONDS and not self._lock.locked():
            async with self._lock:
                self._looked_at = asyncio.get_running_loop().time()
                await self._look()
        return self._handle

    async def renewed(self, refused: Handle[Client], error: Terminal) -> Handle[Client]:
        """See :class:`Renewal`. Callers that were refused together wait together, once for each key."""
        loop = asyncio.get_running_loop()
        patience = self._patience if refused.worked else self._first_patience
        if refused.refused_at is None:
            refused.refused_at = loop.time()
        deadline = refused.refused_at + patience
        waiting = False
        async with self._lock:
            while self._handle is refused:
                if await self._look(hurry=True):
                    break
                if loop.time() >= deadline:
                    raise Terminal(
                        f"{error.message} (no other credentials came within {patience:g} s)", reason=error.reason
                    )
                if not waiting:
                    waiting = True
                    logger.warning("%s refuses the credentials: waiting up to %g s for others", self._what, patience)
                await asyncio.sleep(POLL_SECONDS)
            return self._handle

    async def close(self) -> None:
        """See :class:`Renewal`."""
        await asyncio.sleep(0)  # a task that never began would not close what it was given
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        await self._handle.client.close()

    async def _look(self, *, hurry: bool = False) -> bool:
        """Whether other credentials were found, work, and are used from now on. The lock is held."""
        found = self._read()
        if found is None or found == self._source:
            return False
        if found == self._useless:
            pause = LOOK_SECONDS if hurry else self._backoff
            if asyncio.get_running_loop().time() < self._tried_at + pause:
                return False
        client = await self._tried(found)
        if client is None:
            return False
        before, self._handle, self._source = self._handle, Handle(client), found
        self._handle.worked = True
        self._useless, self._backoff = None, LOOK_SECONDS
        task = asyncio.create_task(before.close_when_idle(), name="replaced client")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        logger.info("the credentials for %s changed: new calls use the new ones", self._what)
        return True

    async def _tried(self, source: Source) -> Client | None:
        """A client with these credentials; None where they do not work."""
        client: Client | None = None
        try:
            client = self._open(source)
            await self._verify(client)
        except BaseException as error:
            if client is not None:
                await client.close()
            if not isinstance(error, VectorwrightError):
                raise
            self._put_off(source, error)
            return None
        return client

    def _put_off(self, source: Source, error: VectorwrightError) -> None:
        if source == self._useless:
            self._backoff = min(LONGEST_BACKOFF, 2 * self._backoff)
        else:
            self._useless, self._backoff = source, LOOK_SECONDS
            logger.warning("new credentials for %s do not work yet: %s: %s", self._what, error.reason, error.message)
        self._tried_at = asyncio.get_running_loop().time()
