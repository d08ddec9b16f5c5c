"""Store servers beside the operator.

Started when needed, again when one died, ended with its parent; one that lingers is waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.store_server import ENVIRONMENT
from tests.support.store_server_client import DIMENSION, batch

from vectorwright.errors import Retryable, Terminal
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.local_server import LocalStoreServers
from vectorwright.stores.registry import Connection, open_store

pytestmark = pytest.mark.server


async def test_local_stores_are_started_when_needed(local_store_servers: LocalStoreServers, tmp_path: Path) -> None:
    assert not (tmp_path / "stores").exists()
    one, other = await asyncio.gather(local_store_servers.socket("team/docs"), local_store_servers.socket("code"))
    assert one == other == await local_store_servers.socket()
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
            await local_store_servers.socket(folder)
    await local_store_servers.stop()
    assert not one.parent.exists()
    with pytest.raises(Retryable):
        await local_store_servers.socket()


async def test_a_local_server_that_died_is_started_again(local_store_servers: LocalStoreServers) -> None:
    socket = await local_store_servers.socket("docs")
    async with open_store(Connection("lance", {"server": f"unix://{socket}", "path": "docs"})) as store:
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
        await store.upsert("docs", batch("a"))
        assert local_store_servers._process is not None
        os.kill(local_store_servers._process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await store.count("docs") == 1
                    break
                except Retryable:
                    await asyncio.sleep(0.1)
        assert await local_store_servers.socket("docs") == socket


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
    parent: subprocess.Popen[str], local_store_servers: LocalStoreServers
) -> None:
    assert parent.stdout is not None
    line = await asyncio.to_thread(parent.stdout.readline)
    _, pid = line.split()
    parent.kill()
    await local_store_servers.socket("docs")  # waits until the other one, which may linger, has let the directory go
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
