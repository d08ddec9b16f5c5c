"""Many processes write to one table in a bucket.

- eight writers of the same ids leave each id there once, nothing acknowledged is lost, and the last write wins
- so they do while some are killed in the middle, and others paused until their lease was taken over and then resumed
- a writer whose commit was held back until another committed leaves nothing of it in the table: the fence
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support.lance_writers import (
    INDEX,
    LEASE_SECONDS,
    Writers,
    Written,
    batch_of,
    definition,
    notes,
    problems,
    records_of,
    shorten_leases,
)
from tests.support.loopback_http import Request
from tests.support.s3 import S3Proxy, VersitygwServer, s3_bucket, s3_connection

from vectorwright.stores.lance import bucket_store, lease
from vectorwright.stores.registry import Connection, open_store

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]
WRITERS = 8
IDS = 300


@pytest.fixture
def connection(s3_server: VersitygwServer) -> Connection:
    return s3_connection(s3_server, s3_bucket(s3_server))


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the test judges leases as its writers do."""
    for module, name in ((lease, "LEASE_SECONDS"), (bucket_store, "LEASE_SECONDS"), (lease, "RENEW_SECONDS")):
        monkeypatch.setattr(module, name, getattr(module, name))
    shorten_leases()


def told(connection: Connection, writer: int, notebook: Path, **more: Any) -> dict[str, Any]:
    credentials = connection.credentials
    return {
        "settings": dict(connection.settings),
        "username": credentials.username,
        "password": credentials.password,
        "writer": writer,
        "notes": str(notebook),
        "ids": IDS,
        **more,
    }


def all_notes(folder: Path) -> list[Written]:
    return [one for path in sorted(folder.glob("notes-*")) for one in notes(path)]


async def test_eight_processes_leave_each_id_once(connection: Connection, tmp_path: Path, short_leases: None) -> None:
    async with open_store(connection) as store:
        await store.create_index(definition())
        with Writers() as writers:
            started = [
                writers.start(**told(connection, writer, tmp_path / f"notes-{writer}", size=60, rounds=2))
                for writer in range(WRITERS)
            ]
            ended = [await asyncio.to_thread(writers.wait, pid) for pid in started]
        assert ended == [0] * WRITERS
        written = all_notes(tmp_path)
        assert len(written) == WRITERS * 2 * IDS // 60
        assert all(one.acknowledged is not None for one in written)
        assert problems(await records_of(store), written) == []
        assert await store.count(INDEX) == IDS


async def test_writers_that_are_killed_and_paused_leave_nothing_twice_and_lose_nothing(
    connection: Connection, tmp_path: Path, short_leases: None
) -> None:
    chance = random.Random(7)
    async with open_store(connection) as store:
        await store.create_index(definition())
        with Writers() as writers:
            running: dict[int, int] = {}
            for writer in range(WRITERS):
                running[writer] = writers.start(**told(connection, writer, tmp_path / f"notes-{writer}", size=50))
            await _until_all_wrote(tmp_path, 3)
            for turn in range(12):
                writer = chance.choice(sorted(running))
                if turn % 2:
                    await asyncio.to_thread(writers.kill, running[writer])
                    again = told(connection, writer, tmp_path / f"notes-{writer}", size=50, first=1000 * (turn + 1))
                    running[writer] = writers.start(**again)
                else:
                    await _pause_the_holder(store, running[writer])
                await asyncio.sleep(chance.uniform(0.1, 0.5))
            await _until_all_wrote(tmp_path, 31)
            for pid in running.values():
                await asyncio.to_thread(writers.kill, pid)
        written = all_notes(tmp_path)
        assert sum(one.acknowledged is not None for one in written) > 30
        assert problems(await records_of(store), written) == []
        await store.upsert(INDEX, batch_of(9, 0, list(range(IDS))))
        assert await store.count(INDEX) == IDS


async def _until_all_wrote(folder: Path, batches: int) -> None:
    async with asyncio.timeout(120):
        while sum(one.acknowledged is not None for one in all_notes(folder)) < batches:  # noqa: ASYNC110 - files
            await asyncio.sleep(0.05)


async def _pause_the_holder(store: Any, pid: int) -> None:
    """Pause a writer again and again until it is caught with the lease; resume it when others went on without it."""
    for _ in range(20):
        os.kill(pid, signal.SIGSTOP)
        try:
            before = (await store.statistics(INDEX)).details["version"]
            await asyncio.sleep(0.1)
            if (await store.statistics(INDEX)).details["version"] == before:  # nobody goes on: it has the lease
                await asyncio.sleep(LEASE_SECONDS * 3)
                return
        finally:
            os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.02)


def _is_manifest(request: Request) -> bool:
    return request.method == "PUT" and "/_versions/" in request.path


def _is_head(request: Request) -> bool:
    return request.method == "PUT" and request.path.endswith(".head.json")


@pytest.mark.parametrize("held", ["manifest", "head"])
async def test_a_commit_that_was_held_back_is_fenced(
    s3_server: VersitygwServer, connection: Connection, short_leases: None, held: str
) -> None:
    """One writer is stopped at the very request that would have made its commit, and loses its lease meanwhile."""
    ids = list(range(40))
    with S3Proxy(s3_server.url) as proxy:
        slow_connection = s3_connection(s3_server, connection.settings["s3"]["bucket"], endpoint=proxy.origin)
        async with open_store(connection) as store, open_store(slow_connection) as slow:
            await store.create_index(definition())
            await slow.upsert(INDEX, batch_of(1, 0, ids[:20]))
            lease.RENEW_SECONDS = 60.0  # as a process that is paused: it renews nothing
            taken = 0

            def is_commit(request: Request) -> bool:
                nonlocal taken
                taken += held == "head" and _is_head(request)  # the first of these takes the lease
                return _is_manifest(request) if held == "manifest" else taken == 2

            came, go = proxy.hold(is_commit)
            late = asyncio.create_task(slow.upsert(INDEX, batch_of(1, 1, ids)))
            assert await asyncio.to_thread(came.wait, 30)
            await store.upsert(INDEX, batch_of(2, 0, ids))
            assert await store.count(INDEX) == len(ids)
            go.set()
            await late
            records = await records_of(store)
            assert sorted(map(len, records.values())) == [1] * len(ids)
            # It was made again, on top of the other's: as if it had been called after it.
            assert {stamp for found in records.values() for stamp, _, _ in found} == {1_000_001}
            assert await store.count(INDEX) == len(ids)


async def test_what_a_dead_writer_committed_on_top_is_taken_back(connection: Connection, short_leases: None) -> None:
    """A commit whose head was never written is not read, and not built upon."""
    async with open_store(connection) as store:
        await store.create_index(definition())
        await store.upsert(INDEX, batch_of(1, 0, list(range(10))))
        head = (await store._table(INDEX).head()).location  # type: ignore[attr-defined]
        stranger = await store._open_table(head)  # type: ignore[attr-defined]
        rows = await stranger.query().limit(5).to_arrow()
        await stranger.add(rows)  # five ids are there twice now, for those who read the newest version
        assert await stranger.count_rows() == 15
        assert await store.count(INDEX) == 10
        assert sorted(map(len, (await records_of(store)).values())) == [1] * 10
        async with open_store(connection) as another:
            await another.upsert(INDEX, batch_of(2, 0, list(range(5, 15))))
            assert sorted(map(len, (await records_of(another)).values())) == [1] * 15
        await stranger.checkout_latest()
        await stranger.add(rows)
        await store.upsert(INDEX, batch_of(3, 0, list(range(3))))
        await store.delete(INDEX, ["id-14"])
        assert sorted(map(len, (await records_of(store)).values())) == [1] * 14
        assert await store.count(INDEX) == 14
