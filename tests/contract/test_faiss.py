"""FAISS behind a real store server: what only this store promises.

- kill -9 of the server in the middle of writes: nothing acknowledged is lost
- Lance tables and FAISS indexes live in one directory, each backend with an identity of its own
- a directory has one owner, whatever it holds
- encryption with a key from a file; the wrong key ends the server with one sentence, and changes nothing
- damage is told by the server's health, and what is intact is served
- beside the operator, one server process hosts both
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.support.faiss import KEY, OTHER_KEY, batch_of, docs
from tests.support.store_server import StartStoreServer, StoreServer

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.base import Store
from vectorwright.stores.local_server import LocalStoreServers
from vectorwright.stores.registry import Connection, StoreCredentials, open_store

pytestmark = pytest.mark.server


def connect(server: StoreServer, provider: str = "faiss", **settings: str) -> Store:
    connection = Connection(provider, {"server": server.url, **settings}, StoreCredentials(token=server.token))
    return open_store(replace(connection, timeout=20))


async def values_of(store: Store) -> dict[str, int]:
    found: dict[str, int] = {}
    async for page in store.scroll("docs"):
        for one in page:
            assert one.id not in found
            found[one.id] = int(str(one.metadata["value"]))
    return found


@pytest.mark.timeout(600)  # six starts of a server
async def test_kills_of_the_server_lose_nothing_acknowledged(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(start_store_server)
    chance, acknowledged, begun = random.Random(3), dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)

    async def work(store: Store, writer: int) -> None:
        while True:
            begun[writer] += 1
            try:
                await store.upsert("docs", batch_of([f"{writer}-{at}" for at in range(30)], begun[writer]))
            except Retryable:
                return
            acknowledged[writer] = begun[writer]

    async with connect(server, path="mine") as store:
        await store.create_index(docs())
        for _ in range(6):
            working = [asyncio.create_task(work(store, writer)) for writer in range(4)]
            await asyncio.sleep(chance.uniform(0.1, 0.8))
            await asyncio.to_thread(server.kill)
            await asyncio.gather(*working)
            await asyncio.to_thread(server.start)
            found = await values_of(store)
            for writer in range(4):
                mine = {value for name, value in found.items() if name.startswith(f"{writer}-")}
                assert len(mine) <= 1
                assert mine <= {acknowledged[writer], begun[writer]}
                assert mine or not acknowledged[writer]
                acknowledged[writer] = max(mine, default=0)  # it is there now, whether the writer heard of it or not
        assert min(acknowledged.values()) > 10


async def test_tables_and_indexes_live_in_one_directory(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(lambda: start_store_server(folders=False))
    lance, faiss = connect(server, "lance"), connect(server)
    async with lance, faiss:
        for value, store in enumerate((lance, faiss)):
            await store.create_index(docs())
            await store.upsert("docs", batch_of(["a", "b"], value + 1))
        assert (await lance.probe()).backend_id != (await faiss.probe()).backend_id
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        assert await values_of(lance) == {"a": 1, "b": 1}
        assert await values_of(faiss) == {"a": 2, "b": 2}
        await lance.delete_index("docs")
        assert [one.name for one in await faiss.list_indexes()] == ["docs"]
    assert (server.tables / "docs.faiss").is_dir()


def serve(*flags: str | Path) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    command = [sys.executable, "-m", "vectorwright", "store-server", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("flag", ["--lance", "--faiss"])
def test_a_directory_has_one_owner_whatever_it_holds(store_server: StoreServer, tmp_path: Path, flag: str) -> None:
    refused = serve(flag, store_server.tables, "--unix", tmp_path / "s")
    assert refused.returncode == 1
    assert "belongs to another running" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--memory", "--encryption-key-file", "key"], "need --faiss DIR"),
        (["--memory", "--faiss-memory", "100"], "need --faiss DIR"),
        (["--memory", "--faiss-folders"], "--faiss-folders needs --faiss DIR"),
        (["--memory", "--lance-folders"], "--lance-folders needs --lance DIR"),
        (["--faiss", "x", "--faiss-memory", "0"], "not a number of MiB"),
        ([], "nothing to serve"),
    ],
)
def test_a_command_line_without_sense_is_refused(tmp_path: Path, flags: list[str], said: str) -> None:
    refused = serve(*flags, "--unix", tmp_path / "s")
    assert refused.returncode == 2
    assert said in refused.stderr


async def test_a_key_from_a_file(start_store_server: StartStoreServer, tmp_path: Path) -> None:
    key, wrong, nothing = (tmp_path / name for name in ("key", "wrong", "nothing"))
    key.write_text(KEY.hex() + "\n")
    wrong.write_bytes(OTHER_KEY)
    nothing.write_text("password")
    flags = ("--encryption-key-file", str(key))
    server = await asyncio.to_thread(lambda: start_store_server(flags=flags))
    async with connect(server, path="mine") as store:
        await store.create_index(docs())
        await store.upsert("docs", batch_of(["a"], 1))
        assert "AES-256-GCM" in str((await store.statistics("docs")).details["encryption"])
        await asyncio.to_thread(server.stop)
        for path, reason in ((wrong, "is encrypted with the key"), (nothing, "is no key"), (None, "is encrypted with")):
            given = () if path is None else ("--encryption-key-file", path)
            refused = await asyncio.to_thread(
                serve, "--faiss", server.tables / "mine", "--unix", tmp_path / "s", *given
            )
            assert refused.returncode == 1
            assert reason in refused.stderr
            assert KEY.hex() not in refused.stderr
            assert "password" not in refused.stderr
        await asyncio.to_thread(server.start)
        assert await values_of(store) == {"a": 1}


async def test_damage_is_told_by_health(start_store_server: StartStoreServer) -> None:
    server = await asyncio.to_thread(start_store_server)
    async with connect(server, path="mine") as store:
        await store.create_index(docs())
        await store.upsert("docs", batch_of(["a"], 1))
        await store.upsert("docs", batch_of(["b"], 2))
        assert (await asyncio.to_thread(health, server)).text == "ok\n"
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(_damage, server.tables / "mine" / "docs.faiss")
        await asyncio.to_thread(server.start)
        assert await values_of(store) == {"b": 2}
        told = await asyncio.to_thread(health, server)
        assert told.status_code == 200
        assert "damaged indexes: 1" in told.text
        assert "docs" not in told.text  # anybody may ask
        assert (await store.statistics("docs")).details["damaged_parts"] == 1


def health(server: StoreServer) -> httpx.Response:
    return httpx.get(f"{server.url}/healthz", trust_env=False)


def _damage(folder: Path) -> None:
    (segment,) = folder.glob("log-*")
    content = bytearray(segment.read_bytes())
    content[200] ^= 1
    segment.write_bytes(content)


async def test_beside_the_operator_one_server_hosts_both(
    local_store_servers: LocalStoreServers, tmp_path: Path
) -> None:
    socket = await local_store_servers.socket("team/docs")
    for provider in ("lance", "faiss"):
        settings = {"server": f"unix://{socket}", "path": "team/docs"}
        async with open_store(Connection(provider, settings)) as store:
            assert await store.list_indexes() == []
            await store.create_index(docs())
            await store.upsert("docs", batch_of(["a"], 1))
            assert await values_of(store) == {"a": 1}
    for folder in ("team/docs/docs.faiss", "x.lance"):
        async with open_store(Connection("faiss", {"server": f"unix://{socket}", "path": folder})) as store:
            with pytest.raises(Terminal) as refused:
                await store.list_indexes()
            assert refused.value.reason == "InvalidFolder"
    for suffix in ("lance", "faiss"):
        assert (tmp_path / "stores" / "team" / "docs" / f"docs.{suffix}").is_dir()
