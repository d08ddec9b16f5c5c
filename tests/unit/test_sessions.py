"""Open stores, one a connection.

What is checked: one session while nothing changes; a new one answers before the old one is given up; whoever is in the
middle of a call on the old one finishes it; a store that was down is probed again; everything is closed at the end;
which VectorStores reach one backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from vectorwright.errors import NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.reconcile import sessions as module
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.sessions import StoreSession, StoreSessions
from vectorwright.stores.base import IndexDefinition, IndexDescription, Store, StoreInfo
from vectorwright.stores.memory import MemoryStore
from vectorwright.stores.registry import Connection

ONE, TWO = Key("VectorStore", "team-a", "one"), Key("VectorStore", "team-a", "two")
CONNECTION = Connection("memory", {"server": "http://vectors"})


class Closable(MemoryStore):
    """Counts what a session does, and behaves as a client does once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0
        self.probes = 0
        self.failing: VectorwrightError | None = None
        self.gate = asyncio.Event()

    def _check(self) -> None:
        if self.closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        if self.failing is not None:
            raise self.failing

    async def probe(self) -> StoreInfo:
        self._check()
        self.probes += 1
        return await super().probe()

    async def describe_index(self, name: str) -> IndexDescription:
        self._check()
        await self.gate.wait()
        self._check()
        return await super().describe_index(name)

    async def close(self) -> None:
        self.closed += 1


class Opener:
    """In place of the registry: hands out what was planned, or new stores."""

    def __init__(self) -> None:
        self.opened: list[Closable] = []
        self.planned: list[Closable] = []

    def __call__(self, _: Connection) -> Store:
        self.opened.append(self.planned.pop(0) if self.planned else Closable())
        return self.opened[-1]


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Opener:
    made = Opener()
    monkeypatch.setattr(module, "open_store", made)
    return made


@pytest.fixture
async def sessions(opener: Opener) -> AsyncIterator[StoreSessions]:
    made = StoreSessions()
    yield made
    await made.close_all()
    assert [store.closed for store in opener.opened] == [1] * len(opener.opened), "each is closed, and once"


async def test_one_session_serves_while_nothing_changes(sessions: StoreSessions, opener: Opener) -> None:
    first = await sessions.open(ONE, "digest", CONNECTION)
    assert await sessions.open(ONE, "digest", CONNECTION) is first
    assert sessions.get(ONE) is first
    assert (len(opener.opened), opener.opened[0].probes) == (1, 1)
    assert sessions.get(TWO) is None


async def test_a_changed_connection_is_a_new_session(sessions: StoreSessions, opener: Opener) -> None:
    first = await sessions.open(ONE, "digest", CONNECTION)
    second = await sessions.open(ONE, "other", CONNECTION)
    assert second is not first
    assert sessions.get(ONE) is second
    assert len(opener.opened) == 2


async def test_a_new_connection_that_does_not_answer_leaves_the_old_one(
    sessions: StoreSessions, opener: Opener
) -> None:
    first = await sessions.open(ONE, "digest", CONNECTION)
    wrong = Closable()
    wrong.failing = Terminal("the server refuses the token (401)", reason="Unauthorized")
    opener.planned.append(wrong)
    with pytest.raises(Terminal):
        await sessions.open(ONE, "wrong", CONNECTION)
    assert sessions.get(ONE) is first
    assert wrong.closed == 1
    assert opener.opened[0].closed == 0


async def test_a_probe_that_is_cancelled_closes_what_it_opened(sessions: StoreSessions, opener: Opener) -> None:
    class Hanging(Closable):
        async def probe(self) -> StoreInfo:
            await asyncio.Event().wait()
            raise AssertionError

    opener.planned.append(Hanging())
    task = asyncio.create_task(sessions.open(ONE, "digest", CONNECTION))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert opener.opened[0].closed == 1
    assert sessions.get(ONE) is None


@pytest.mark.parametrize("how", ["replaced", "gone"])
async def test_who_is_in_the_middle_of_a_call_finishes_it(sessions: StoreSessions, opener: Opener, how: str) -> None:
    """A Secret may change while an index is being looked at."""
    session = await sessions.open(ONE, "digest", CONNECTION)
    store = opener.opened[0]
    await store.create_index(IndexDefinition("docs", 4, "cosine"))
    call = asyncio.create_task(session.describe("docs"))
    await asyncio.sleep(0.01)
    if how == "replaced":
        await sessions.open(ONE, "other", CONNECTION)
    else:
        await sessions.close(ONE)
        assert sessions.get(ONE) is None
    store.gate.set()
    found = await call
    assert found is not None
    assert found.name == "docs"
    assert await session.describe("docs") == found, "and its next calls too"


async def test_what_was_given_up_is_closed_after_a_while(
    sessions: StoreSessions, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETIRED_FOR", 0.02)
    await sessions.open(ONE, "digest", CONNECTION)
    await sessions.open(ONE, "other", CONNECTION)
    assert opener.opened[0].closed == 0
    await asyncio.sleep(0.1)
    assert [store.closed for store in opener.opened] == [1, 0]


async def test_a_store_that_was_down_is_probed_again_on_the_same_connection(
    sessions: StoreSessions, opener: Opener
) -> None:
    session = await sessions.open(ONE, "digest", CONNECTION)
    session.healthy = False
    opener.opened[0].failing = Retryable("connection refused")
    with pytest.raises(Retryable):
        await sessions.open(ONE, "digest", CONNECTION)
    assert not session.healthy
    opener.opened[0].failing = None
    opener.opened[0]._backend_id = "another"
    again = await sessions.open(ONE, "digest", CONNECTION)
    assert again is session
    assert again.healthy
    assert session.info.backend_id == "another", "what answers now may be another store"
    assert len(opener.opened) == 1


async def test_stores_of_one_backend_are_found_together(sessions: StoreSessions, opener: Opener) -> None:
    shared = [Closable(), Closable(), Closable()]
    shared[0]._backend_id = shared[1]._backend_id = "b1"
    shared[2]._backend_id = "b2"
    opener.planned.extend(shared)
    three = Key("VectorStore", "team-b", "three")
    for key in (ONE, TWO, three):
        await sessions.open(key, "digest", CONNECTION)
    assert sessions.backends() == {"b1": [ONE, TWO], "b2": [three]}
    await sessions.close(TWO)
    assert sessions.backends() == {"b1": [ONE], "b2": [three]}


# -- one session's listing --
async def _session(store: MemoryStore) -> StoreSession:
    return StoreSession(ONE, "digest", store, await store.probe())


async def test_a_description_is_remembered_and_an_absence_too() -> None:
    store = MemoryStore()
    session = await _session(store)
    made = await store.create_index(IndexDefinition("docs", 4, "cosine"))
    assert await session.describe("docs") == made
    assert session.listing == {"docs": made}
    await store.delete_index("docs")
    assert await session.describe("docs") is None
    assert session.listing == {}


async def test_a_listing_that_fails_leaves_the_last_one_and_can_be_asked_for_again() -> None:
    store = MemoryStore()
    session = await _session(store)
    await store.create_index(IndexDefinition("docs", 4, "cosine"))
    await session.refresh()
    real: Callable[[], object] = store.list_indexes

    async def failing() -> list[IndexDescription]:
        raise Retryable("connection refused")

    store.list_indexes = failing  # type: ignore[method-assign]
    with pytest.raises(Retryable):
        await session.refresh()
    assert set(session.listing) == {"docs"}
    store.list_indexes = real  # type: ignore[method-assign, assignment]
    assert set(await session.refresh()) == {"docs"}


async def test_aliases_come_with_the_listing() -> None:
    store = MemoryStore()
    session = await _session(store)
    await store.create_index(IndexDefinition("docs-g1", 4, "cosine"))
    await store.set_alias("docs", "docs-g1")
    assert session.aliases == {}
    await session.refresh()
    assert session.aliases == {"docs": "docs-g1"}


async def test_the_age_of_a_listing_is_counted_from_its_begin() -> None:
    session = await _session(MemoryStore())
    assert session.age == float("inf")
    await session.refresh()
    assert 0 <= session.age < 1


async def test_a_store_that_says_not_found_for_the_listing_is_an_error_and_no_empty_store() -> None:
    store = MemoryStore()

    async def failing() -> list[IndexDescription]:
        raise NotFound("tenant does not exist")

    store.list_indexes = failing  # type: ignore[method-assign]
    with pytest.raises(NotFound):
        await (await _session(store)).refresh()
