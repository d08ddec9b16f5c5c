"""Open stores: one session a VectorStore, with one shared listing of what the store holds.

A session whose credentials changed is followed by another one. What still uses the old one goes on: calls in flight end
on it, and its later calls go to the new one, as do those that are refused because the old key died.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from vectorwright.errors import NotFound, Terminal
from vectorwright.stores.base import IndexDescription, Store, StoreInfo
from vectorwright.stores.metered import MeteredStore
from vectorwright.stores.registry import Connection, open_store
from vectorwright.stores.renewal import Handle, is_refusal
from vectorwright.stores.renewing import RenewingStore

from .cache import Key
from .succession import ConnectAnew, Succession

RETIRED_FOR = 60.0
"""Seconds for which a store that nothing of the same backend follows stays open: whoever is in the middle of a pass
over one of its indexes finishes that."""


@dataclass(slots=True)
class StoreSession:
    """A store that was reached. Its listing is kept current by the store's timer and by our own writes."""

    key: Key
    digest: str
    """Digest of the connection: another one means another session."""
    store: Store
    info: StoreInfo
    listing: dict[str, IndexDescription] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    listed_at: float = float("-inf")
    """``time.monotonic()`` of the start of the last listing."""
    healthy: bool = True
    """Whether the last call of the store's timer was answered."""
    handle: Handle[Store] | None = field(default=None, repr=False)
    """The client that ``store`` calls as long as there is no successor."""
    successor: StoreSession | None = field(default=None, repr=False)
    """The session that took over, where it is of the same backend."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _written: dict[str, float] = field(default_factory=dict)

    @property
    def newest(self) -> StoreSession:
        """This session, or the one that has taken over from it by now."""
        found = self
        while found.successor is not None:
            found = found.successor
        return found

    @property
    def age(self) -> float:
        """Seconds since the listing was begun."""
        return time.monotonic() - self.listed_at

    @property
    def never_listed(self) -> bool:
        """Whether there is no listing yet."""
        return self.listed_at == float("-inf")

    async def refresh(self, max_age: float = 0.0) -> Mapping[str, IndexDescription]:
        """The listing, made again when it is older than ``max_age`` seconds. Callers that come together share one."""
        asked = time.monotonic()
        async with self._lock:
            if self.listed_at > asked or self.age <= max_age:
                return self.listing
            started = time.monotonic()
            found = {item.name: item for item in await self.store.list_indexes()}
            for name, written in self._written.items():
                # An index written while the listing was under way: what we know of it is newer.
                if written >= started:
                    found.pop(name, None)
                    if name in self.listing:
                        found[name] = self.listing[name]
            self._written = {name: at for name, at in self._written.items() if at >= started}
            if self.info.capabilities.aliases:
                self.aliases = await self.store.aliases()
            self.listing, self.listed_at = found, started
            return self.listing

    async def describe(self, name: str) -> IndexDescription | None:
        """One index, asked for now; None when it does not exist."""
        try:
            description = await self.store.describe_index(name)
        except NotFound:
            self.forget(name)
            return None
        self.note(description)
        return description

    def note(self, description: IndexDescription) -> None:
        """Take what was just learnt or written into the listing."""
        self.listing[description.name] = description
        self._written[description.name] = time.monotonic()
        if self.successor is not None:
            self.successor.note(description)

    def forget(self, name: str) -> None:
        """Take an index out of the listing."""
        self.listing.pop(name, None)
        self._written[name] = time.monotonic()
        if self.successor is not None:
            self.successor.forget(name)


async def _close_later(handle: Handle[Store], delay: float) -> None:
    try:
        await asyncio.sleep(delay)
        await handle.idle()
    finally:
        await handle.client.close()


class StoreSessions:
    """The sessions of all VectorStores."""

    def __init__(self) -> None:
        self._sessions: dict[Key, StoreSession] = {}
        self._locks: dict[Key, asyncio.Lock] = {}
        """Held while a session is opened: of two that come together, the second finds what the first one opened."""
        self._retired: set[asyncio.Task[None]] = set()

    def get(self, key: Key) -> StoreSession | None:
        """The session of a VectorStore, when it was ever reached."""
        return self._sessions.get(key)

    async def open(
        self, key: Key, digest: str, connection: Connection, anew: ConnectAnew | None = None
    ) -> StoreSession:
        """The session for a connection: the one there is, or a new one after a probe. Raises what the probe raises.

        The old session is given up only when the new one answered, so that a wrong Secret leaves finalizers a way.
        ``anew`` tells how the store is reached at a later moment: it is asked when the session's key is refused.
        """
        async with self._locks.setdefault(key, asyncio.Lock()):
            current = self._sessions.get(key)
            if current is not None and current.digest == digest and current.handle is not None:
                if not current.healthy:
                    # Asked of the client itself: what is refused here is told, and waits for no other session.
                    current.info = await current.handle.client.probe()
                    current.healthy = True
                return current
            session = self._sessions[key] = await self._begin_newest(key, digest, connection, anew)
            if current is not None:
                if current.info.backend_id == session.info.backend_id:
                    current.successor = session
                self._retire(current)
            return session

    async def _begin_newest(
        self, key: Key, digest: str, connection: Connection, anew: ConnectAnew | None
    ) -> StoreSession:
        """A new session; with the Secret as it is by then where the key died since it was read."""
        while True:
            try:
                return await self._begin(key, digest, connection, anew)
            except Terminal as error:
                if anew is None or not is_refusal(error):
                    raise
                refused = error
            now_digest, now = await anew()
            if now_digest == digest or not connection.same_place(now):
                raise refused
            digest, connection = now_digest, now

    async def _begin(self, key: Key, digest: str, connection: Connection, anew: ConnectAnew | None) -> StoreSession:
        client = MeteredStore(open_store(connection), connection.provider)
        try:
            info = await client.probe()
        except BaseException:
            await client.close()
            raise
        handle: Handle[Store] = Handle(client)

        def newest() -> Handle[Store]:
            return session.newest.handle or handle

        async def renew() -> None:
            last = session.newest
            if anew is None or self._sessions.get(key) is not last:
                return
            now_digest, now = await anew()
            if now_digest != last.digest and connection.same_place(now):
                await self.open(key, now_digest, now, anew)

        store = RenewingStore(Succession(newest, renew), info.capabilities)
        session = StoreSession(key, digest, store, info, handle=handle)
        return session

    async def close(self, key: Key) -> None:
        """Give up the session of a VectorStore that is gone."""
        self._locks.pop(key, None)
        if (session := self._sessions.pop(key, None)) is not None:
            self._retire(session)

    async def close_all(self) -> None:
        """Close every session now, those that were given up included."""
        for key in list(self._sessions):
            await self.close(key)
        await asyncio.sleep(0)  # a task that never began would not close what it was given
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    def _retire(self, session: StoreSession) -> None:
        if session.handle is None:
            return
        # Stores that rotate their keys often would else collect connections.
        delay = RETIRED_FOR if session.successor is None else 0.0
        task = asyncio.create_task(_close_later(session.handle, delay), name="retired store")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def backends(self) -> dict[str, list[Key]]:
        """Backend id → VectorStores that reach it."""
        found: dict[str, list[Key]] = {}
        for key, session in self._sessions.items():
            found.setdefault(session.info.backend_id, []).append(key)
        return found
