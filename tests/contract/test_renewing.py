"""Workers whose keys change while they run: real worker processes, real servers, a projected volume.

- keys that change faster than a worker looks, the old ones dying at once: no batch fails, every record is there once
- keys that overlap: not one call is refused
- a key that died before the files were replaced is waited for, and the run goes on
- a key that is wrong fails the run with AccessDenied, soon
- a copy between two indexes, the keys of both changing: what it reads is read once, and once only
- no key in any log or result
"""

from __future__ import annotations

import asyncio
import functools
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.support.polling import until
from tests.support.projected import ProjectedVolume
from tests.support.rotating import RotatedKeys, RotatedRoles, RotatedUsers, files_of, rotating
from tests.support.workers import StartWorker, Worker

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.ingest.runspec import EXIT_SUCCESS, EXIT_TERMINAL, RunState
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.registry import StoreCredentials, open_store

pytestmark = pytest.mark.server

DIMENSION = 8
RECORDS = 3000
BATCH = 20
RATE = 20
"""Requests a second: a run takes some ten seconds."""
SLOW = 7
"""The same, for as many rotations as are promised: making a user costs Weaviate half a second."""


@pytest.fixture(params=["postgres", "weaviate"])
def keys(request: pytest.FixtureRequest) -> RotatedKeys:
    if request.param == "postgres":
        return RotatedRoles(request.getfixturevalue("postgres_with_roles"))
    return RotatedUsers(request.getfixturevalue("weaviate_with_users"))


class Published:
    """The volume of one worker, and what is published there."""

    def __init__(self, keys: RotatedKeys, *uses: str) -> None:
        self.keys, self.uses = keys, uses or ("store",)
        self._volume: ProjectedVolume | None = None

    def mount(self, directory: Path) -> None:
        self._volume = ProjectedVolume(directory)
        self()

    def __call__(self, credentials: StoreCredentials | None = None) -> None:
        assert self._volume is not None
        self._volume.write(files_of(credentials or self.keys.credentials, *self.uses))


async def make_index(keys: RotatedKeys, name: str) -> str:
    async with open_store(keys.connection()) as store:
        return (await store.create_index(IndexDefinition(name, DIMENSION, "cosine"))).incarnation


async def ids_of(keys: RotatedKeys, name: str) -> list[str]:
    async with open_store(keys.connection()) as store:
        return [record.id async for page in store.scroll(name, metadata=False) for record in page]


def place(keys: RotatedKeys, incarnation: str, index: str) -> dict[str, Any]:
    found = keys.connection()
    where = {"provider": found.provider, "settings": found.settings, "index": index, "incarnation": incarnation}
    return where | {"dimension": DIMENSION, "metric": "cosine", "requestsPerSecond": RATE}


def run_of(keys: RotatedKeys, incarnation: str) -> dict[str, Any]:
    return {
        "runId": "run-1",
        "job": "team/docs",
        "sourceName": "team/docs",
        "source": {"configMap": {"name": "documents"}},
        "batch": {"maxRecords": BATCH, "workers": 4},
        "store": place(keys, incarnation, "docs"),
        "precomputedField": "v",
    }


@functools.cache
def table() -> str:
    rows = ({"text": f"record {n}", "v": [1.0 + n, *[1.0] * (DIMENSION - 1)]} for n in range(RECORDS))
    return "\n".join(orjson.dumps(row).decode() for row in rows)


async def begun(keys: RotatedKeys, start_worker: StartWorker, published: Published, rate: int = RATE) -> Worker:
    """A run that has written something."""
    run = run_of(keys, await make_index(keys, "docs"))
    run["store"]["requestsPerSecond"] = rate
    worker: Worker = start_worker(run, files={"configmap/table.jsonl": table()}, prepare=published.mount)
    await asyncio.to_thread(worker.wait_for, lambda state: state.counts.vectors_written > 0)
    return worker


async def says(worker: Worker, words: str) -> None:
    """Wait until its log has these words."""
    await until(lambda: words in worker.log, every=0.05)


async def ended(worker: Worker) -> RunState:
    assert await asyncio.to_thread(worker.wait, 150) == EXIT_SUCCESS, worker.log
    return worker.state


async def check(keys: RotatedKeys, worker: Worker, index: str = "docs") -> None:
    """Everything succeeded, every record is there once, and nobody was told a key."""
    state = worker.state
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Exact")
    assert (state.counts.documents_failed, state.counts.vectors_failed, state.dead_letters) == (0, 0, [])
    found = await ids_of(keys, index)
    assert (len(found), len(set(found))) == (RECORDS, RECORDS)
    check_secrets(keys, worker)


def check_secrets(keys: RotatedKeys, worker: Worker) -> None:
    told = worker.log + worker.termination_log.read_text()
    assert not [value for value in keys.values if value in told]


async def test_no_batch_fails_while_keys_change_faster_than_a_worker_looks(
    keys: RotatedKeys, start_worker: StartWorker
) -> None:
    published = Published(keys)
    worker = await begun(keys, start_worker, published, SLOW)
    with rotating(keys, published, every=0.25, overlap=0.05, kill_each=5) as died:
        await ended(worker)
    assert len(died) >= 10
    await check(keys, worker)


async def test_nothing_is_refused_while_keys_overlap(keys: RotatedKeys, start_worker: StartWorker) -> None:
    published = Published(keys)
    worker = await begun(keys, start_worker, published, SLOW)
    with rotating(keys, published, every=7.1, overlap=7.0) as died:  # a worker looks every two seconds
        state = await ended(worker)
    assert len(died) >= 2
    assert state.counts.retries == 0
    assert "refuses the credentials" not in worker.log
    await check(keys, worker)


async def test_files_that_are_behind_are_waited_for(keys: RotatedKeys, start_worker: StartWorker) -> None:
    published = Published(keys)
    worker = await begun(keys, start_worker, published)
    keys.revoke(keys.issue(), kill=True)
    await says(worker, "refuses the credentials: waiting")
    written = worker.wait_for(lambda state: True).counts.vectors_written
    published(StoreCredentials(token="wrong-one", username="nobody", password="wrong-one"))  # and wrong ones come first
    await says(worker, "do not work yet")
    assert worker.wait_for(lambda state: True).counts.vectors_written == written < RECORDS
    published()
    await ended(worker)
    await check(keys, worker)


async def test_a_wrong_key_fails_the_run_soon(keys: RotatedKeys, start_worker: StartWorker) -> None:
    run = run_of(keys, await make_index(keys, "docs"))
    before = keys.credentials
    keys.revoke(keys.issue(), kill=True)
    volume: list[ProjectedVolume] = []

    def mount(directory: Path) -> None:
        volume.append(ProjectedVolume(directory))
        volume[0].write(files_of(before, "store"))

    started = time.monotonic()
    worker = start_worker(run, files={"configmap/table.jsonl": table()}, prepare=mount)
    assert await asyncio.to_thread(worker.wait, 60) == EXIT_TERMINAL, worker.log
    assert time.monotonic() - started < 30
    state = worker.state
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "AccessDenied", False)
    assert "no other credentials came within 5 s" in (state.message or "")
    check_secrets(keys, worker)


async def test_a_copy_goes_on_while_the_keys_of_both_ends_change(keys: RotatedKeys, start_worker: StartWorker) -> None:
    published = Published(keys)
    filling = await begun(keys, start_worker, published)
    await ended(filling)
    async with open_store(keys.connection()) as store:
        origin = (await store.describe_index("docs")).incarnation
    copy = {
        "runId": "copy-1",
        "job": "team/copy",
        "sourceName": "team/copy",
        "source": {"vectorIndex": {"name": "docs"}},
        "batch": {"maxRecords": BATCH, "workers": 4},
        "store": place(keys, await make_index(keys, "copy"), "copy"),
        "sourceStore": place(keys, origin, "docs"),
    }
    published = Published(keys, "store", "source_store")
    worker = start_worker(copy, prepare=published.mount)
    with rotating(keys, published, every=0.25, overlap=0.05) as died:
        state = await ended(worker)
    assert len(died) >= 5
    assert state.counts.documents_new == RECORDS
    await check(keys, worker, "copy")
