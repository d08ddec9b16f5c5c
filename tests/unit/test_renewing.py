"""Clients whose credentials change while they are in use.

- new calls use what the files say; a call in flight ends on the old client, which is closed then, and once
- a refused call is repeated with other credentials, waited for once for each key, and no longer than promised
- credentials that do not work are not taken up while the old ones do, and are tried less and less often
- a scroll whose key dies goes on: nothing lost, nothing twice, whatever the page; one that is too long is begun anew
- files that are replaced while they are read are read as they were at one moment
- an embedder's token, the same way
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.openai import OpenAIServer, StartOpenAI
from tests.support.projected import ProjectedVolume

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.renewing import RenewingEmbedder
from vectorwright.ingest.run_directory import at_one_moment, read_secret
from vectorwright.ingest.runspec import EmbedderTarget
from vectorwright.stores import renewal as module
from vectorwright.stores import renewing
from vectorwright.stores.base import IndexDefinition, Record, RecordBatch, Store, StoreInfo
from vectorwright.stores.filters import Filter
from vectorwright.stores.memory import MemoryStore
from vectorwright.stores.renewal import PolledRenewal
from vectorwright.stores.renewing import RenewingStore


class Backend:
    """A store that takes the keys in ``valid``, and what clients did to it."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.valid = {"key-1"}
        self.file = "key-1"
        self.clients: list[Client] = []
        self.gate: asyncio.Event | None = None
        """While set, calls wait in the middle."""

    def open(self, key: str) -> Store:
        self.clients.append(Client(self, key))
        return self.clients[-1]

    def renewing(self, **options: Any) -> RenewingStore:
        async def verify(store: Store) -> None:
            await store.probe()

        found = PolledRenewal[str, Store]("the store", lambda: self.file or None, self.open, verify, **options)
        return RenewingStore(found, found.client.capabilities)

    @property
    def probes(self) -> list[str]:
        return [client.key for client in self.clients for _ in range(client.probes)]


class Client(MemoryStore):
    """One client with one key, over the backend's records."""

    def __init__(self, backend: Backend, key: str) -> None:
        super().__init__()
        self.backend, self.key = backend, key
        self.closed = self.probes = self.refused = 0

    def _check(self) -> None:
        assert not self.closed, "a closed client is used"
        if self.key not in self.backend.valid:
            self.refused += 1
            raise Terminal("the store refused the credentials", reason="AccessDenied")

    async def probe(self) -> StoreInfo:
        self.probes += 1
        self._check()
        return await self.backend.memory.probe()

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        self._check()
        if (gate := self.backend.gate) is not None:
            await gate.wait()
            assert not self.closed
        await self.backend.memory.upsert(name, batch)

    async def count(self, name: str, where: Filter | None = None) -> int:
        self._check()
        return await self.backend.memory.count(name, where)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        pages = self.backend.memory.scroll(name, where, vectors=vectors, metadata=metadata, page=page)
        async for records in pages:
            self._check()
            yield records

    async def close(self) -> None:
        self.closed += 1


def batch(*ids: str) -> RecordBatch:
    vectors = np.ones((len(ids), 4), dtype=np.float32)
    return RecordBatch(list(ids), vectors, [{} for _ in ids], [None for _ in ids])


@pytest.fixture
async def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    made = Backend()
    await made.memory.create_index(IndexDefinition("docs", 4, "cosine"))
    return made


async def until(wanted: Callable[[], bool]) -> None:
    for _ in range(1000):
        if wanted():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


async def test_a_new_key_is_used_before_the_old_one_dies(backend: Backend) -> None:
    async with backend.renewing() as store:
        await store.upsert("docs", batch("a"))
        backend.file = "key-2"
        backend.valid.add("key-2")
        await asyncio.sleep(0.06)
        await store.upsert("docs", batch("b"))
        backend.valid.discard("key-1")
        await store.upsert("docs", batch("c"))
        first, second = backend.clients
        assert (first.refused, second.refused, second.probes) == (0, 0, 1)
        await until(lambda: first.closed == 1)
    assert [client.closed for client in backend.clients] == [1, 1]
    assert await backend.memory.count("docs") == 3


async def test_the_old_client_is_closed_when_its_last_call_has_ended(backend: Backend) -> None:
    async with backend.renewing() as store:
        gate = backend.gate = asyncio.Event()
        call = asyncio.create_task(store.upsert("docs", batch("a")))
        await asyncio.sleep(0.06)
        backend.gate = None
        backend.file = "key-2"
        backend.valid = {"key-2"}
        await store.upsert("docs", batch("b"))
        await asyncio.sleep(0.02)
        assert backend.clients[0].closed == 0
        gate.set()
        await call
        await until(lambda: backend.clients[0].closed == 1)
        assert backend.clients[1].closed == 0


async def test_a_client_in_use_is_closed_at_the_end_too(backend: Backend) -> None:
    store = backend.renewing()
    backend.gate = asyncio.Event()
    call = asyncio.create_task(store.upsert("docs", batch("a")))
    await asyncio.sleep(0.06)
    backend.file = "key-2"
    backend.valid.add("key-2")
    await store.count("docs")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await store.close()
    assert [client.closed for client in backend.clients] == [1, 1]


async def test_calls_that_are_refused_together_wait_together_and_are_repeated(backend: Backend) -> None:
    async with backend.renewing() as store:
        await store.count("docs")
        backend.valid = {"key-2"}
        calls = [asyncio.create_task(store.upsert("docs", batch(f"r{n}"))) for n in range(8)]
        await asyncio.sleep(0.1)
        assert not any(call.done() for call in calls)
        backend.file = "key-2"
        await asyncio.gather(*calls)
        assert len(backend.clients) == 2
        assert backend.probes == ["key-2"]
    assert await backend.memory.count("docs") == 8


async def test_a_key_that_never_comes_is_waited_for_once(backend: Backend) -> None:
    async with backend.renewing(patience=2.0, first_patience=0.05) as store:
        await store.count("docs")
        backend.valid = set()
        loop = asyncio.get_running_loop()
        started = loop.time()
        calls = [store.upsert("docs", batch(f"r{n}")) for n in range(8)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, Terminal)
            assert (error.reason, error.message) == (
                "AccessDenied",
                "the store refused the credentials (no other credentials came within 2 s)",
            )
        assert 2.0 <= loop.time() - started < 8 * 2.0
        started = loop.time()
        with pytest.raises(Terminal, match="refused the credentials"):
            await store.count("docs")
        assert loop.time() - started < 2.0, "not once for each call"


async def test_a_key_that_never_worked_is_given_up_sooner(backend: Backend) -> None:
    backend.valid = set()
    async with backend.renewing(patience=30, first_patience=0.05) as store:
        with pytest.raises(Terminal, match=r"within 0\.05 s"):
            await store.probe()


async def test_each_key_that_dies_is_waited_for(backend: Backend) -> None:
    async with backend.renewing(patience=1.0) as store:
        for turn in range(2, 6):
            await store.count("docs")
            backend.valid = {f"key-{turn}"}
            call = asyncio.create_task(store.count("docs"))
            await asyncio.sleep(0.4)
            backend.file = f"key-{turn}"
            await call


async def test_what_does_not_work_is_not_taken_up_and_is_tried_less_and_less(
    backend: Backend, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with backend.renewing() as store:
        backend.file = "wrong-key"
        loop = asyncio.get_running_loop()
        ends = loop.time() + 0.8
        while loop.time() < ends:
            await store.count("docs")
            await asyncio.sleep(0.005)
        assert 3 <= backend.probes.count("wrong-key") <= 5, "after 0.05, 0.1, 0.2, 0.4 s"
        assert [client.closed for client in backend.clients[1:]] == [1] * (len(backend.clients) - 1)
        assert caplog.text.count("do not work yet: AccessDenied") == 1
        backend.file = ""
        await asyncio.sleep(0.06)
        await store.count("docs")
        monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
        backend.valid = {"key-2"}
        backend.file = "key-2"
        await store.count("docs")
        assert backend.clients[0].refused == 1
    assert "wrong-key" not in caplog.text


async def test_other_errors_pass_through(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    async with backend.renewing() as store:
        for error in (Retryable("busy"), Terminal("no", reason="WrongDimension")):

            async def failing(*_: Any, error: Exception = error) -> int:
                raise error

            monkeypatch.setattr(Client, "count", failing)
            with pytest.raises(type(error)):
                await store.count("docs")
    assert len(backend.clients) == 1


# -- scrolls --
async def scrolled(store: RenewingStore, page: int, every: Callable[[int], None] = lambda _: None) -> list[str]:
    found: list[str] = []
    pages = 0
    async for records in store.scroll("docs", page=page):
        assert records
        found += [record.id for record in records]
        pages += 1
        every(pages)
    return found


@pytest.mark.parametrize("page", [1, 7, 100])
async def test_a_scroll_goes_on_when_its_key_dies_at_any_page(backend: Backend, page: int) -> None:
    ids = [f"r{n:03}" for n in range(100)]
    await backend.memory.upsert("docs", batch(*ids))

    def rotate(_: int) -> None:
        backend.file = f"key-{secrets.token_hex(4)}"
        backend.valid = {backend.file}

    async with backend.renewing() as store:
        found = await scrolled(store, page, rotate)
        assert sorted(found) == ids
        backend.valid = {"key-last"}
        backend.file = "key-last"
        assert sorted(await scrolled(store, page)) == ids, "and before its first page"


async def test_what_was_written_and_deleted_meanwhile_is_not_given_twice(backend: Backend) -> None:
    ids = [f"r{n:03}" for n in range(40)]
    await backend.memory.upsert("docs", batch(*ids))
    async with backend.renewing() as store:
        scroll = store.scroll("docs", page=10)
        first = [record.id for record in await anext(scroll)]
        await backend.memory.delete("docs", [first[0]])
        await backend.memory.upsert("docs", batch("new"))
        backend.valid, backend.file = {"key-2"}, "key-2"
        rest = [record.id async for page in scroll for record in page]
    assert sorted([*first, *rest]) == sorted([*ids, "new"])


async def test_a_scroll_too_long_to_be_known_again_is_begun_anew_by_its_reader(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing, "RESUMABLE_RECORDS", 20)
    await backend.memory.upsert("docs", batch(*(f"r{n}" for n in range(40))))

    def rotate(pages: int) -> None:
        if pages == 3:
            backend.valid, backend.file = {"key-2"}, "key-2"

    async with backend.renewing() as store:
        with pytest.raises(Retryable, match="after 30 records") as told:
            await scrolled(store, 10, rotate)
        assert told.value.reason == "CredentialsRenewed"
        assert len(await scrolled(store, 10)) == 40


async def test_a_scroll_whose_key_dies_for_good_is_refused(backend: Backend) -> None:
    await backend.memory.upsert("docs", batch("a", "b"))
    async with backend.renewing(patience=0.05) as store:
        scroll = store.scroll("docs", page=1)
        await anext(scroll)
        backend.valid = set()
        with pytest.raises(Terminal) as told:
            await anext(scroll)
        assert told.value.reason == "AccessDenied"


# -- files --
async def test_a_user_name_and_a_password_belong_together(tmp_path: Path) -> None:
    volume = ProjectedVolume(tmp_path)

    def publish(n: int) -> None:
        volume.write({"credentials/store/username": f"user-{n}", "credentials/store/password": f"password-{n}\n"})

    publish(0)
    stop = threading.Event()
    seen: set[tuple[str | None, str | None]] = set()

    def pair(place: Path) -> tuple[str | None, str | None]:
        found = read_secret(place, "store")
        return found.username, found.password

    def read() -> None:
        while not stop.is_set():
            seen.add(at_one_moment(tmp_path, pair))

    reading = asyncio.create_task(asyncio.to_thread(read))
    for n in range(1, 300):
        await asyncio.to_thread(publish, n)
    stop.set()
    await reading
    assert len(seen) > 5
    assert seen <= {(f"user-{n}", f"password-{n}") for n in range(300)}


# -- an embedder --
@pytest.fixture
def openai(start_openai: StartOpenAI, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return start_openai(key="first-token")


async def test_an_embedders_token_is_renewed_the_same_way(openai: OpenAIServer, tmp_path: Path) -> None:
    volume = ProjectedVolume(tmp_path)
    volume.write({"credentials/embedder/token": "first-token\n"})
    spec: Mapping[str, Any] = {"openAI": {"baseUrl": openai.base_url, "model": openai.model, "batchSize": 3}}
    embedder = RenewingEmbedder(EmbedderTarget.model_validate({"spec": spec, "fingerprint": "x"}), tmp_path)
    assert embedder.batch_size == 3
    try:
        before = await embedder.embed(["a", "b"])
        openai.key = "second-token"
        waiting: Awaitable[Any] = asyncio.create_task(embedder.embed(["a", "b"]))
        await asyncio.sleep(0.1)
        volume.write({"credentials/embedder/token": "second-token\n"})
        assert np.array_equal((await waiting).vectors, before.vectors)
        volume.write({"credentials/embedder/token": "third-token\n"})
        await asyncio.sleep(0.06)
        await embedder.embed(["a"])
        openai.key = "third-token"
        assert len((await embedder.embed(["a", "b", "c"])).vectors) == 3
    finally:
        await embedder.close()
