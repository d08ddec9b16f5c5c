"""What writers to a bucket do beside writing: fewer files, no old versions, the vector index, no remains.

- files are merged after as many commits as the settings say, whoever made them; answers stay the same
- a version is kept as long as the settings say, and removed then
- an index that is asked for is built by who wrote, and used by everybody
- a dropped index leaves its head only; what a dead process left of one is removed by others; its name is free at once
- an index whose making never ended does not keep its name
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from tests.contract.data import batch, definition, record_id, scrolled
from tests.support.polling import until
from tests.support.s3 import VersitygwServer, s3_bucket, s3_connection

from vectorwright.errors import NotFound
from vectorwright.stores.base import IndexDefinition, RecordBatch, Store
from vectorwright.stores.filters import Eq
from vectorwright.stores.lance import bucket_store, fenced, index_state, removal, upkeep
from vectorwright.stores.lance.bucket_store import BucketStore
from vectorwright.stores.lance.heads import MAKING, Head
from vectorwright.stores.lance.settings import KEEP_VERSIONS_SECONDS
from vectorwright.stores.registry import Connection, open_store

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


@pytest.fixture
def bucket(s3_server: VersitygwServer) -> str:
    return s3_bucket(s3_server)


@pytest.fixture
def connection(s3_server: VersitygwServer, bucket: str) -> Connection:
    return s3_connection(s3_server, bucket)


@pytest.fixture
async def store(connection: Connection) -> AsyncIterator[BucketStore]:
    async with open_store(connection) as opened:
        assert isinstance(opened, BucketStore)
        yield opened


async def merged(store: BucketStore) -> Head:
    """The head, once files were merged: that begins after the writer was answered."""
    async with asyncio.timeout(30):
        while (head := await store._ready("docs")).commits >= 8:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)
    return head


def data_files(server: VersitygwServer, bucket: str) -> list[str]:
    return [key for key in server.objects(bucket) if "/data/" in key]


async def test_files_are_merged_whoever_wrote_them(
    store: BucketStore, connection: Connection, s3_server: VersitygwServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_index(replace(definition(), settings={"compaction.min_commits": 8}))
    async with open_store(connection) as other:
        for number in range(4):
            await store.upsert("docs", batch(5, start=10 * number))
            await other.upsert("docs", batch(5, start=10 * number + 5))
        head = await merged(store)
        reader = await store._open_table(head.location)
        await reader.checkout(head.version)
        assert (await reader.stats())["fragment_stats"]["num_fragments"] == 1
        assert await other.count("docs") == 40
        assert await other.count("docs", Eq("word", "w1")) == 13
        assert sorted(one.id for one in await scrolled(other)) == sorted(record_id(number) for number in range(40))
    assert len(data_files(s3_server, bucket)) > 8  # who reads an old version still can


async def test_old_versions_go_when_the_settings_say(
    store: BucketStore, s3_server: VersitygwServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_index(replace(definition(), settings={"compaction.min_commits": 8}))

    kept_since: list[float] = []

    def age(seconds: float) -> timedelta:
        """At first everything is too young, later what was there at a moment."""
        assert seconds == KEEP_VERSIONS_SECONDS
        return timedelta(seconds=time.time() - kept_since[0]) if kept_since else timedelta(hours=1)

    monkeypatch.setattr(fenced, "_age", age)
    for number in range(8):
        await store.upsert("docs", batch(5, start=5 * number))
    await merged(store)
    assert len(data_files(s3_server, bucket)) == 9  # the versions before are too young
    await asyncio.sleep(0.1)
    kept_since.append(time.time())
    for number in range(8, 16):
        await store.upsert("docs", batch(5, start=5 * number))
    await merged(store)
    assert len(data_files(s3_server, bucket)) == 10  # the file from before, those of the last eight, and the new one
    assert await store.count("docs") == 80
    assert len(await scrolled(store)) == 80


async def test_an_index_is_built_by_who_wrote_and_used_by_all(
    store: BucketStore, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (index_state, upkeep):
        monkeypatch.setattr(module, "MIN_INDEXED_ROWS", 300)
    await store.create_index(IndexDefinition("docs", 16, "cosine", settings={"index_type": "ivfPq"}))
    vectors = np.random.default_rng(3).standard_normal((600, 16)).astype(np.float32)
    ids = [record_id(number) for number in range(600)]
    async with open_store(connection) as writer:
        await writer.upsert("docs", RecordBatch(ids, vectors, [{} for _ in ids], [None for _ in ids]))
        assert (await store.describe_index("docs")).settings["index_state"] == "exact, building"
    assert (await store.describe_index("docs")).settings["index_state"] == "built"
    (nearest,) = await store.query("docs", vectors[123], 1)
    assert nearest.record.id == ids[123]
    await store.delete("docs", [ids[123]])
    (nearest,) = await store.query("docs", vectors[123], 1)
    assert nearest.record.id != ids[123]
    assert await store.count("docs") == 599


async def test_a_dropped_index_leaves_its_head_only(
    store: BucketStore, s3_server: VersitygwServer, bucket: str
) -> None:
    await store.create_index(definition())
    await store.upsert("docs", batch(5))
    await store.delete_index("docs")
    await store.create_index(definition())
    assert await store.count("docs") == 0
    await store.upsert("docs", batch(3))
    await store.delete_index("docs")
    await until(lambda: not data_files(s3_server, bucket))
    folder = "vectors/_vectorwright"
    await until(lambda: s3_server.objects(bucket) == [f"{folder}/backend-id", f"{folder}/docs.head.json"])
    assert await store.list_indexes() == []


async def test_what_a_dead_process_left_of_an_index_is_removed(
    store: BucketStore,
    connection: Connection,
    s3_server: VersitygwServer,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.create_index(definition())
    await store.upsert("docs", batch(5))
    with monkeypatch.context() as patch:
        patch.setattr(removal.Removals, "start", lambda self, name: None)  # as if it were killed here
        await store.delete_index("docs")
    assert data_files(s3_server, bucket)
    monkeypatch.setattr(removal, "LEFT_ALONE_SECONDS", 0.2)
    async with open_store(connection) as other:
        assert await other.list_indexes() == []
        await asyncio.sleep(0.3)
        assert await other.list_indexes() == []
        await until(lambda: not data_files(s3_server, bucket))


async def test_an_index_whose_making_never_ended_does_not_keep_its_name(
    store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = replace(await store.create_index(definition("other")), name="docs")
    await store._heads.write("docs", Head(MAKING, "docs.00000000.lance", description), None)
    assert [one.name for one in await store.list_indexes()] == ["other"]
    with pytest.raises(NotFound):
        await store.describe_index("docs")
    monkeypatch.setattr(bucket_store, "LEASE_SECONDS", 0.3)
    await store.create_index(definition())
    await store.upsert("docs", batch(2))
    assert await store.count("docs") == 2


async def test_a_table_of_another_program_is_listed_and_left_alone(store: Store) -> None:
    assert isinstance(store, BucketStore)
    database = await store._connected()
    await database.create_table("foreign", [{"vector": [1.0, 2.0]}])
    (one,) = await store.list_indexes()
    assert (one.name, one.dimension, one.metric) == ("foreign", None, None)
    with pytest.raises(NotFound):
        await store.describe_index("foreign")
