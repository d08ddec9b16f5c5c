"""Keys that die while the operator works with them, through the real control loop and a store that checks them.

What is checked: an action that is refused because its key died is done with the Secret's new one, and no status ever
says AccessDenied; an action in flight ends on the old client, which is closed then; a session that replaced another one
during an action is the one of later passes; another backend never takes over; a key that is wrong for good is told of
soon, and one that died before it was tried is read again; no client is left open.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
from tests.support.polling import until
from tests.support.reconciling import DURABLE, NAMESPACE, World

from vectorwright.errors import Terminal
from vectorwright.reconcile import sessions, succession
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.sessions import StoreSessions
from vectorwright.stores.base import IndexDefinition, Store
from vectorwright.stores.memory import MemoryStore
from vectorwright.stores.registry import Connection, StoreCredentials

STORE = Key("VectorStore", NAMESPACE, "vectors")


class Backends:
    """Stores by address; each takes the keys in ``valid``."""

    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {}
        self.valid = {"key-1"}
        self.clients: list[Client] = []
        self.numbers = itertools.count(2)

    def open(self, connection: Connection) -> Store:
        store = self.stores.setdefault(str(connection.settings["server"]), MemoryStore(DURABLE))
        self.clients.append(Client(self, store, connection.credentials.token))
        return cast("Store", self.clients[-1])

    def rotate(self) -> str:
        """The old key dies before anybody knows of the new one."""
        key = f"key-{next(self.numbers)}"
        self.valid = {key}
        return key


class Client:
    """One client with one key: every method of a store, asked with that key."""

    def __init__(self, backends: Backends, store: MemoryStore, key: str | None) -> None:
        self.backends, self.store, self.key = backends, store, key
        self.capabilities = store.capabilities
        self.closed = self.refused = 0
        self.gate: asyncio.Event | None = None
        """While set, an index is made only when it opens."""
        self.waits = False
        """Whether one waits for that."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.store, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            assert not self.closed, "a closed client is used"
            if self.key not in self.backends.valid:
                self.refused += 1
                raise Terminal("the store refused the credentials: check the Secret", reason="AccessDenied")
            if name == "create_index" and self.gate is not None:
                self.waits = True
                await self.gate.wait()
                assert not self.closed, "a client is closed while it is in use"
            return await method(*arguments, **options)

        return call

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backends]:
    monkeypatch.setattr(succession, "POLL_SECONDS", 0.01)
    made = Backends()
    monkeypatch.setattr(sessions, "open_store", made.open)
    yield made
    assert [client.closed for client in made.clients] == [1] * len(made.clients), "each is closed, and once"


@pytest.fixture
async def world(backends: Backends) -> AsyncIterator[World]:
    async with World() as made:
        made.secrets.set(NAMESPACE, "key", token="key-1")
        made.add_store(controlCredentials={"name": "key"})
        await made.settle()
        assert made.conditions("vectors", "VectorStore")["Ready"][0] == "True"
        yield made


def told(world: World) -> list[str]:
    """Every reason that was ever written to a status."""
    found = []
    for write in world.api.writes:
        conditions: list[dict[str, Any]] = (write.body.get("status") or {}).get("conditions") or []
        found += [str(item["reason"]) for item in conditions]
    return found


def _was_refused(client: Client) -> bool:
    return client.refused > 0


@pytest.mark.parametrize("secret", ["first", "late"])
async def test_a_refused_action_is_done_with_the_new_key(world: World, backends: Backends, secret: str) -> None:
    for turn in range(5):
        key, client = backends.rotate(), backends.clients[-1]
        if secret == "first":
            world.secrets.data[NAMESPACE, "key"] = {"token": key.encode()}  # and its event is on the way
        world.add_index(f"docs-{turn}")
        await until(partial(_was_refused, client))
        world.secrets.set(NAMESPACE, "key", token=key)
        await world.settle()
        assert world.conditions(f"docs-{turn}")["Ready"][0] == "True"
    assert "AccessDenied" not in told(world)
    assert all(client.refused for client in backends.clients[:-1])
    assert len(backends.clients) == 6
    assert [client.closed for client in backends.clients] == [1] * 5 + [0]
    assert {item.name for item in await backends.stores["http://vectors"].list_indexes()} == {
        world.status(f"docs-{turn}")["physicalName"] for turn in range(5)
    }


async def test_a_deletion_goes_through_as_well(world: World, backends: Backends) -> None:
    world.add_index("docs", deletionPolicy="Delete")
    await world.settle()
    key = backends.rotate()
    world.secrets.data[NAMESPACE, "key"] = {"token": key.encode()}
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()
    assert not world.exists()
    assert await backends.stores["http://vectors"].list_indexes() == []
    assert "AccessDenied" not in told(world)


async def test_an_action_in_flight_ends_on_the_old_client(world: World, backends: Backends) -> None:
    first = backends.clients[0]
    first.gate = asyncio.Event()
    world.add_index("docs")
    await until(lambda: first.waits)
    world.secrets.set(NAMESPACE, "key", token=backends.rotate())
    await until(lambda: len(backends.clients) == 2)
    await asyncio.sleep(0.05)
    assert first.closed == 0
    first.gate.set()
    await world.settle()
    assert world.conditions()["Ready"][0] == "True"
    assert first.closed == 1
    found = world.context.sessions.get(STORE)
    assert found is not None
    assert set(found.listing) == {world.status()["physicalName"]}, "what was made meanwhile is known to the new one"


async def test_a_key_that_is_wrong_for_good_is_told_of_soon(
    world: World, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "PATIENCE_SECONDS", 0.1)
    backends.valid = set()
    world.add_index("docs")
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "AccessDenied")
    refused = backends.clients[0].refused
    world.add_index("more")
    await world.settle()
    assert backends.clients[0].refused - refused <= 3, "it is waited for once a key"
    world.secrets.set(NAMESPACE, "key", token=backends.rotate())
    await world.settle()
    assert {world.conditions(name)["Ready"][0] for name in ("docs", "more")} == {"True"}


async def test_another_backend_never_takes_over(backends: Backends) -> None:
    one = Connection("memory", {"server": "http://one"}, StoreCredentials(token="key-1"))
    other = replace(one, settings={"server": "http://other"})
    made = StoreSessions()

    async def anew() -> tuple[str, Connection]:
        return "other", other

    session = await made.open(STORE, "one", one, anew)
    await made.open(STORE, "other", other, anew)
    await session.store.create_index(IndexDefinition("docs", 4, "cosine"))
    assert [len(await store.list_indexes()) for store in backends.stores.values()] == [1, 0]
    backends.clients[0].key = "dead"
    with pytest.raises(Terminal):
        await session.store.list_indexes()
    await made.close_all()


async def test_a_key_that_died_before_it_was_tried_is_read_again(backends: Backends) -> None:
    dead = Connection("memory", {"server": "http://one"}, StoreCredentials(token="dead"))
    live = replace(dead, credentials=StoreCredentials(token="key-1"))
    found = [("dead", dead), ("live", live)]

    async def anew() -> tuple[str, Connection]:
        return found.pop(0) if len(found) > 1 else found[0]

    made = StoreSessions()
    with pytest.raises(Terminal):
        await made.open(STORE, "dead", dead, anew)
    session = await made.open(STORE, "dead", dead, anew)
    assert (session.digest, await session.store.list_indexes()) == ("live", [])
    assert await made.open(STORE, "live", live, anew) is session
    await made.close_all()


async def test_two_that_come_together_open_one_session(backends: Backends) -> None:
    connection = Connection("memory", {"server": "http://one"}, StoreCredentials(token="key-1"))
    made = StoreSessions()
    first, second = await asyncio.gather(*(made.open(STORE, "one", connection) for _ in range(2)))
    assert first is second
    assert len(backends.clients) == 1
    await made.close_all()
