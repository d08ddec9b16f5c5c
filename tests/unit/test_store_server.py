"""The store server as strangers, crashes and installers meet it.

- who may come in: tokens, rotated without a restart; TLS; sockets of their owner only; no open door by accident
- one directory has one owner
- hostile requests: sizes, shapes, depths, names, folders; nothing of them passes, and the server lives on
- SIGTERM: what is under way is finished; a scroll that is cut off is told from one that ended
- kill -9 at random moments: nothing acknowledged is lost, nothing is there twice
- beside the operator: started when needed, again when it died, ended with its parent, waits for one that lingers
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import trustme
from tests.support.store_server import ROOT, StartStoreServer, StoreServer

from vectorwright.errors import BatchTooLarge, NotFound, Retryable, Terminal
from vectorwright.stores.base import IndexDefinition, Metadata, RecordBatch, Store
from vectorwright.stores.filters import Eq
from vectorwright.stores.local_server import LocalStoreServers
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store
from vectorwright.stores.server.application import MAX_BODY
from vectorwright.stores.wire import encode_batch, encode_frame

pytestmark = pytest.mark.server
DIMENSION = 8
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}


def connect(server: StoreServer, provider: str = "lance", **changes: Any) -> Store:
    settings = {"server": server.url}
    connection = Connection(provider, settings, credentials=StoreCredentials(token=server.token))
    return open_store(replace(connection, **changes))


def batch(*ids: str, metadata: Metadata | None = None) -> RecordBatch:
    vectors = np.random.default_rng(len(ids)).standard_normal((len(ids), DIMENSION)).astype(np.float32)
    return RecordBatch(list(ids), vectors, [dict(metadata or {}) for _ in ids], [None for _ in ids])


@pytest.fixture
def memory(store_server: StoreServer) -> StoreServer:
    """The shared server with an index ``docs`` in memory."""
    store_server.empty_memory()
    body = {"name": "docs", "dimension": DIMENSION, "metric": "cosine"}
    store_server.request("POST", "/v1/memory/indexes", json=body).raise_for_status()
    return store_server


def run_server(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    command = [sys.executable, "-m", "vectorwright", "store-server", *map(str, flags)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


# --- who may come in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic czpz", "Bearer \xff"])
def test_without_the_token_nothing_is_told(store_server: StoreServer, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    for path in ("/v1/memory/indexes", "/v1/nothing/probe", "/elsewhere"):
        answer = httpx.get(f"{store_server.url}{path}", headers=headers, trust_env=False)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.json()["reason"] == "AccessDenied"
    assert httpx.get(f"{store_server.url}/healthz", trust_env=False).status_code == 200


async def test_tokens_are_rotated_without_a_restart(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(start_store_server)
    tokens, old, new = server.base / "tokens", server.token, "the-new-token-of-this-server"

    async def accepted(token: str) -> bool:
        async with connect(server, "memory", credentials=StoreCredentials(token=token)) as store:
            result = (await asyncio.gather(store.list_indexes(), return_exceptions=True))[0]
            assert result == [] or (isinstance(result, Terminal) and result.reason == "AccessDenied")
            return result == []

    async def until(token: str, wanted: bool) -> None:
        async with asyncio.timeout(20):
            while await accepted(token) is not wanted:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.2)

    assert [await accepted(old), await accepted(new)] == [True, False]
    tokens.write_text(f"{old}\n{new}\n")
    await until(new, True)
    assert await accepted(old)
    tokens.write_text(f"{new}\n")
    await until(old, False)
    tokens.write_text("")
    await asyncio.sleep(2.5)
    assert await accepted(new)  # an empty file is a mistake, not an open or a closed door


async def test_tls_with_an_authority_of_its_own(start_store_server: StartStoreServer, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    flags = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    server = await asyncio.to_thread(lambda: start_store_server(flags=flags))
    address = {"server": server.url}
    trusted = TlsSettings(ca=authority.cert_pem.bytes().decode())
    async with connect(server, "memory", settings=address, tls=trusted) as store:
        assert await store.list_indexes() == []
        assert (await store.probe()).endpoint == address["server"]
    async with connect(server, "memory", settings=address) as store:
        with pytest.raises(Terminal) as refused:
            await store.list_indexes()
        assert refused.value.reason == "TLSVerificationFailed"
    async with connect(server, "memory", settings={"server": server.url.replace("https:", "http:")}) as store:
        with pytest.raises(Retryable):
            await store.list_indexes()


def test_a_socket_is_for_its_owner_only(store_server: StoreServer) -> None:
    assert stat.S_IMODE(store_server.unix.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--memory", "--listen", "0.0.0.0:0"], "can be reached from other machines"),
        (["--memory", "--listen", "[::]:0"], "can be reached from other machines"),
        (["--memory"], "nowhere to listen"),
        (["--listen", "127.0.0.1:0"], "nothing to serve"),
        (["--memory", "--listen", "127.0.0.1:0", "--tls-cert", "x"], "given together"),
        (["--memory", "--listen", "8090"], "is not an address"),
        (["--memory", "--lance-folders", "--listen", "127.0.0.1:0"], "needs --lance"),
    ],
)
def test_a_command_line_without_sense_is_refused(flags: list[str], said: str) -> None:
    ended = run_server(*flags)
    assert ended.returncode == 2
    assert said in ended.stderr


@pytest.mark.parametrize("content", [None, "", "short\n"])
def test_a_token_file_without_tokens_is_refused(tmp_path: Path, content: str | None) -> None:
    tokens = tmp_path / "tokens"
    if content is not None:
        tokens.write_text(content)
    ended = run_server("--memory", "--listen", "127.0.0.1:0", "--token-file", tokens)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"token file {tokens}" in ended.stderr


# --- one owner -------------------------------------------------------------------------------------------------------


def test_a_directory_has_one_owner(store_server: StoreServer, tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run_server("--lance", store_server.tables, "--unix", tmp_path / "s", "--lock-wait", "1")
    assert time.monotonic() - began >= 1
    assert ended.returncode == 1
    pid = store_server.process.pid
    assert ended.stderr == (
        f"vectorwright store-server: {store_server.tables} belongs to another running vectorwright store-server "
        f"(process {pid}): stop that one, or use another directory\n"
    )
    assert store_server.request("GET", "/v1/memory/indexes").status_code == 200


def test_a_socket_in_use_is_not_taken_over(store_server: StoreServer) -> None:
    ended = run_server("--memory", "--unix", store_server.unix)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "another process listens on" in ended.stderr


def test_a_file_in_the_place_of_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert "is not a socket" in run_server("--memory", "--unix", path).stderr
    assert path.read_text() == "data"


# --- hostile requests ------------------------------------------------------------------------------------------------


def upsert(server: StoreServer, body: bytes, name: str = "docs") -> httpx.Response:
    return server.request("POST", f"/v1/memory/indexes/{name}/upsert", content=body)


GOOD = encode_batch(batch("a", "b"))


def _header(**changes: Any) -> bytes:
    header = {"ids": ["a"], "metadata": [{}], "texts": [None], "shape": [1, DIMENSION], **changes}
    text = orjson.dumps(header)
    return struct.pack("<4sI", b"VWF1", len(text)) + text + np.ones(DIMENSION, "<f4").tobytes()


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "a piece of a prefix": GOOD[:5],
    "cut off": GOOD[:-1],
    "too long": GOOD + b"\0",
    "another magic": b"XXXX" + GOOD[4:],
    "a header longer than the frame": struct.pack("<4sI", b"VWF1", 2**32 - 1) + GOOD[8:],
    "no JSON": struct.pack("<4sI", b"VWF1", 4) + b"{{{{",
    "deep JSON": struct.pack("<4sI", b"VWF1", 200_000) + b"[" * 200_000,
    "no object": struct.pack("<4sI", b"VWF1", 2) + b"[]",
    "a huge shape": _header(shape=[2**31 - 1, 2**31 - 1]),
    "a negative shape": _header(shape=[-1, -DIMENSION]),
    "a shape of another rank": _header(shape=[DIMENSION]),
    "a shape of floats": _header(shape=[1.0, 8.0]),
    "a shape of booleans": _header(shape=[True, DIMENSION]),
    "more ids": _header(ids=["a", "b"]),
    "more metadata": _header(metadata=[{}, {}]),
    "ids of another type": _header(ids=[1]),
    "metadata of another type": _header(metadata=["x"]),
    "texts of another type": _header(texts=[1]),
    "no ids": _header(ids=None),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_frame_of_another_form_is_refused(memory: StoreServer, case: str) -> None:
    answer = upsert(memory, HOSTILE[case])
    assert (answer.status_code, answer.json()["kind"]) == (400, "Terminal")
    assert upsert(memory, GOOD).status_code == 200


REJECTED: dict[str, bytes] = {
    "another dimension": _header(shape=[2, DIMENSION // 2], ids=["a", "b"], metadata=[{}, {}], texts=[None, None]),
    "NaN": encode_batch(replace(batch("a"), vectors=np.full((1, DIMENSION), np.nan, np.float32))),
    "infinity": encode_batch(replace(batch("a"), vectors=np.full((1, DIMENSION), np.inf, np.float32))),
    "a zero vector": encode_batch(replace(batch("a"), vectors=np.zeros((1, DIMENSION), np.float32))),
    "an empty id": _header(ids=[""]),
    "a long id": _header(ids=["x" * 2000]),
    "one id twice": encode_batch(batch("a", "a")),
    "nested metadata": _header(metadata=[{"a": {"b": 1}}]),
    "a list of numbers": _header(metadata=[{"a": [1, 2]}]),
    "null": _header(metadata=[{"a": None}]),
    "a field without a name": _header(metadata=[{"": 1}]),
    "a number of more than 64 bits": _header(metadata=[{"a": 2**64 - 1}]),
    "metadata beyond the limit": _header(metadata=[{"a": "x" * 2**20}]),
}


@pytest.mark.parametrize("case", list(REJECTED))
def test_records_that_cannot_be_are_rejected(memory: StoreServer, case: str) -> None:
    answer = upsert(memory, REJECTED[case])
    assert (answer.status_code, answer.json()["kind"]) == (422, "BatchRejected")
    assert "docs" in answer.json()["message"]
    assert memory.request("POST", "/v1/memory/indexes/docs/count", json={}).json() == {"count": 0}


async def test_a_write_that_is_too_large_is_told_apart(memory: StoreServer) -> None:
    answer = upsert(memory, b"\0" * (MAX_BODY + 1))
    assert (answer.status_code, answer.json()["kind"]) == (413, "BatchTooLarge")
    chunks = (b"\0" * 2**20 for _ in range(MAX_BODY // 2**20 + 1))  # without a length that could be looked at first
    path = f"{memory.url}/v1/memory/indexes/docs/upsert"
    headers = {"authorization": f"Bearer {memory.token}"}
    answer = await asyncio.to_thread(
        lambda: httpx.post(path, headers=headers, content=chunks, trust_env=False, timeout=30)
    )
    assert (answer.status_code, answer.json()["kind"]) == (413, "BatchTooLarge")
    async with connect(memory, "memory") as store:
        with pytest.raises(BatchTooLarge, match="33554432"):
            await store.upsert("docs", replace(batch("a", "b", "c"), texts=["x" * 15_000_000] * 3))
        with pytest.raises(BatchTooLarge):
            await store.upsert("docs", batch(*(f"{number}" for number in range(10_001))))
        with pytest.raises(BatchTooLarge, match=str(MAX_BODY)):
            await store.upsert("docs", replace(batch(*"abcdef"), texts=["\x01" * 15_000_000] * 6))


@pytest.mark.parametrize(
    "where",
    [
        [],
        ["eq"],
        ["eq", "a"],
        ["eq", 1, 1],
        ["eq", "a", None],
        ["eq", "a", ["b"]],
        ["range", "a", None, None, None, None],
        ["range", "a", True, None, None, None],
        ["in", "a", ["x"] * 10_001],
        ["and", 1],
        ["unknown", "a"],
        "eq",
        ["and", *([["exists", "a"]] * 5000)],
        orjson.loads(b'["not",' * 33 + b'["exists","a"]' + b"]" * 33),
    ],
)
def test_filters_without_sense_are_refused(memory: StoreServer, where: object) -> None:
    for action in ("count", "scroll", "delete"):
        answer = memory.request("POST", f"/v1/memory/indexes/docs/{action}", json={"where": where, "page": 10})
        assert (answer.status_code, answer.json()["kind"]) == (400, "Terminal")


@pytest.mark.parametrize(
    "folder",
    ["../x", "a/../b", "/etc", "a//b", ".hidden", "a/.b", "x.lance", "a\0", "a/" * 9 + "a", "x" * 300, "a\n", "%2e%2e"],
)
def test_folders_do_not_lead_out_of_the_directory(store_server: StoreServer, folder: str) -> None:
    before = sorted(store_server.base.rglob("*"))
    answer = store_server.request("GET", "/v1/lance/indexes", params={"folder": folder})
    assert (answer.status_code, answer.json()["reason"]) == (400, "InvalidFolder")
    assert sorted(store_server.base.rglob("*")) == before


@pytest.mark.parametrize("name", ["..%2F..%2Fx", "%2E%2E", "a%2Fb", "a%00b", "x" * 3000])
def test_names_in_paths_are_only_names(memory: StoreServer, name: str) -> None:
    answer = memory.request("GET", f"/v1/memory/indexes/{name}")
    assert answer.status_code in {400, 404}
    assert answer.json()["kind"] in {"NotFound", "Terminal"}


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("fetch", {"ids": ["x"] * 10_001}),
        ("fetch", {"ids": "x"}),
        ("fetch", {"ids": ["x"], "vectors": 1}),
        ("scroll", {"page": 0}),
        ("scroll", {"page": 10**9}),
        ("scroll", {"page": True}),
        ("delete", {}),
    ],
)
def test_questions_of_another_form_are_refused(memory: StoreServer, action: str, body: dict[str, object]) -> None:
    answer = memory.request("POST", f"/v1/memory/indexes/docs/{action}", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize("top_k", [0, -1, 10_001, 2**40, True, "5", None])
def test_a_query_asks_for_a_number_of_matches(memory: StoreServer, top_k: object) -> None:
    body = encode_frame({"top_k": top_k}, np.ones((1, DIMENSION), np.float32))
    answer = memory.request("POST", "/v1/memory/indexes/docs/query", content=body)
    assert (answer.status_code, answer.json()["kind"]) == (400, "Terminal")


async def test_numbers_that_json_cannot_hold_are_refused_here(memory: StoreServer) -> None:
    async with connect(memory, "memory") as store:
        with pytest.raises(Terminal) as refused:
            await store.count("docs", Eq("a", float("inf")))
        assert refused.value.reason == "UnsupportedFilter"
        with pytest.raises(Terminal):
            await store.count("docs", Eq("a", 10**30))
        with pytest.raises(Terminal):
            await store.create_index(IndexDefinition("x", DIMENSION, "\ud800"))


async def test_a_name_that_none_can_have_is_not_found_without_asking(memory: StoreServer) -> None:
    async with connect(memory, "memory", settings={"server": "http://127.0.0.1:1"}) as store:
        for name in ("../../healthz", "a/b", "", "..", "a?b", "a#b"):
            with pytest.raises(NotFound):
                await store.describe_index(name)


def test_requests_that_are_not_of_the_protocol_are_told_so(memory: StoreServer) -> None:
    for method, path in (("GET", "/v1/memory/nothing"), ("POST", "/v1/memory/probe"), ("GET", "/v2/memory/probe")):
        answer = memory.request(method, path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "BadRequest")
    assert memory.request("GET", "/v1/chroma/indexes").json()["reason"] == "UnknownStore"
    assert memory.request("GET", "/v1/memory/indexes", params={"folder": "x"}).json()["reason"] == "UnknownStore"


# --- the end of a server ---------------------------------------------------------------------------------------------


async def test_a_stop_finishes_what_is_under_way(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(lambda: start_store_server(folders=False))
    async with connect(server, max_concurrency=64, timeout=60) as store:
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
        acknowledged: list[str] = []

        async def write(writer: int) -> None:
            for number in range(10_000):
                ids = [f"{writer}-{number}-{part}" for part in range(5)]
                try:
                    await store.upsert("docs", batch(*ids))
                except Retryable:
                    return
                acknowledged.extend(ids)

        writers = [asyncio.create_task(write(writer)) for writer in range(32)]
        await asyncio.sleep(0.7)
        began = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - began < 15
        await asyncio.gather(*writers)
        assert len(acknowledged) > 100
        await asyncio.to_thread(server.start)
        ids = [one.id async for page in store.scroll("docs", metadata=False) for one in page]
        assert len(ids) == len(set(ids))
        assert set(acknowledged) <= set(ids)
        # Those who got no answer in time are the only ones whose writes may be there all the same.
        assert len(set(ids) - set(acknowledged)) <= 32 * 5


async def test_a_scroll_that_is_cut_off_does_not_look_complete(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(start_store_server)
    async with connect(server, "memory") as store:
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
        for start in range(0, 60_000, 10_000):
            ids = [f"{number}" for number in range(start, start + 10_000)]
            await store.upsert("docs", batch(*ids, metadata={"filler": "x" * 300}))
        seen = 0

        async def scroll() -> None:
            nonlocal seen
            async for page in store.scroll("docs", vectors=True, page=100):
                if not seen:
                    await asyncio.to_thread(server.kill)
                seen += len(page)

        with pytest.raises(Retryable):
            await scroll()
        assert 0 < seen < 60_000


class Owner:
    """Writes ids that nobody else writes, and knows what the table may hold of them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.chance = random.Random(number)
        self.settled: dict[str, int] = {}
        """Id → value that was acknowledged last; absent: it was never written, or its removal was acknowledged."""
        self.open: dict[str, int | None] = {}
        """Id → value (None: removed) of the request that got no answer: done or not."""
        self.value = 0

    async def work(self, store: Store) -> None:
        """Until the server is gone."""
        while True:
            self.value += 1
            names = self.chance.sample(range(150), self.chance.randint(1, 30))
            ids = [f"{self.number}-{name}" for name in names]
            removes = self.chance.random() < 0.2
            self.open = dict.fromkeys(ids, None if removes else self.value)
            try:
                if removes:
                    await store.delete("docs", ids)
                else:
                    await store.upsert("docs", batch(*ids, metadata={"value": self.value}))
            except Retryable:
                return
            self.settle(self.open)

    def settle(self, values: dict[str, int | None]) -> None:
        for name, value in values.items():
            if value is None:
                self.settled.pop(name, None)
            else:
                self.settled[name] = value

    def check(self, found: dict[str, int]) -> None:
        """A request is done for all of its ids or for none. What was found is what is known from now on."""
        mine = {name: value for name, value in found.items() if name.startswith(f"{self.number}-")}
        without = dict(self.settled)
        self.settle(self.open)
        assert mine in (without, self.settled)
        self.settled, self.open = mine, {}


@pytest.mark.timeout(900)  # twenty starts of a server: 40 s on a quiet machine
async def test_kill_at_random_moments_loses_nothing_acknowledged(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(lambda: start_store_server(folders=False))
    owners, chance, written = [Owner(number) for number in range(4)], random.Random(20), 0
    async with connect(server, timeout=20) as store:
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
        for _ in range(20):
            working = [asyncio.create_task(owner.work(store)) for owner in owners]
            await asyncio.sleep(chance.uniform(0.02, 1.2))
            await asyncio.to_thread(server.kill)
            await asyncio.gather(*working)
            await asyncio.to_thread(server.start)
            records = [one async for page in store.scroll("docs") for one in page]
            found = {one.id: int(str(one.metadata["value"])) for one in records}
            assert len(found) == len(records) == await store.count("docs")
            for owner in owners:
                written = max(written, owner.value)
                owner.check(found)
    assert written > 20


# --- beside the operator ---------------------------------------------------------------------------------------------


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStoreServers]:
    servers = LocalStoreServers(tmp_path / "stores")
    yield servers
    await servers.stop()


async def test_local_stores_are_started_when_needed(local: LocalStoreServers, tmp_path: Path) -> None:
    assert not (tmp_path / "stores").exists()
    one, other = await asyncio.gather(local.socket("team/docs"), local.socket("code"))
    assert one == other == await local.socket()
    assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
    for folder in ("team/docs", "code"):
        settings = {"server": f"unix://{one}", "path": folder}
        async with open_store(Connection("lance", settings)) as store:
            assert await store.list_indexes() == []
            await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
            await store.upsert("docs", batch(folder.replace("/", "-")))
            assert await store.count("docs") == 1
    assert (tmp_path / "stores" / "team" / "docs" / "docs.lance").is_dir()
    async with open_store(Connection("memory", {"server": f"unix://{one}"})) as store:
        assert await store.list_indexes() == []
    for folder in ("../x", "/x", "a/.b", ""):
        with pytest.raises(Terminal):
            await local.socket(folder)
    await local.stop()
    assert not one.parent.exists()
    with pytest.raises(Retryable):
        await local.socket()


async def test_a_local_server_that_died_is_started_again(local: LocalStoreServers) -> None:
    socket = await local.socket("docs")
    async with open_store(Connection("lance", {"server": f"unix://{socket}", "path": "docs"})) as store:
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
        await store.upsert("docs", batch("a"))
        assert local._process is not None
        os.kill(local._process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await store.count("docs") == 1
                    break
                except Retryable:
                    await asyncio.sleep(0.1)
        assert await local.socket("docs") == socket


PARENT = """
import asyncio, sys
from pathlib import Path
from vectorwright.stores.local_server import LocalStoreServers

async def main():
    servers = LocalStoreServers(Path(sys.argv[1]))
    print(await servers.socket("docs"), servers._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a local server, as the operator does."""
    command = [sys.executable, "-c", textwrap.dedent(PARENT), str(tmp_path / "stores")]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


async def test_a_local_server_ends_with_its_parent_and_the_next_takes_over(
    parent: subprocess.Popen[str], local: LocalStoreServers
) -> None:
    assert parent.stdout is not None
    line = await asyncio.to_thread(parent.stdout.readline)
    _, pid = line.split()
    parent.kill()
    await local.socket("docs")  # waits until the other one, which may linger, has let the directory go
    assert not _alive(int(pid))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {b"Z", b"X"}


async def test_a_local_server_that_cannot_start_is_retried_and_told(tmp_path: Path) -> None:
    (tmp_path / "stores").write_text("a file where the directory should be")
    servers = LocalStoreServers(tmp_path / "stores")
    with pytest.raises(Retryable) as waiting:
        async with asyncio.timeout(60):
            await servers.start(within=3)
    assert waiting.value.reason == "LocalStoreNotReady"
    assert "ended with status 1" in waiting.value.message
    await servers.stop()
