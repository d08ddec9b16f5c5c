"""What each operation on tables in a bucket asks of the object store, as the S3 server's own log counts it.

The figures of docs/stores.md are these bounds: requests are what buckets are billed by and throttled by.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest
from tests.contract.data import MARK, batch, definition, record_id
from tests.support.s3 import VersitygwServer, s3_bucket, s3_connection

from vectorwright.stores.base import IndexDefinition, Metadata, RecordBatch, Store
from vectorwright.stores.filters import Eq
from vectorwright.stores.lance import lease
from vectorwright.stores.registry import Connection, open_store

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]
_log = logging.getLogger(__name__)
ROWS, DIMENSION = 10_000, 768

Count = Callable[[Awaitable[object]], Awaitable[int]]


@pytest.fixture
def bucket(s3_server: VersitygwServer) -> str:
    return s3_bucket(s3_server)


@pytest.fixture
def connection(s3_server: VersitygwServer, bucket: str) -> Connection:
    return s3_connection(s3_server, bucket)


@pytest.fixture
async def store(connection: Connection) -> AsyncIterator[Store]:
    """A store that has been checked and that loaded the library."""
    async with open_store(connection) as opened:
        await opened.create_index(definition("first"))
        yield opened


@pytest.fixture(autouse=True)
def _no_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine's upload would renew its lease, which is one more request."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 3600.0)


@pytest.fixture
def requests(s3_server: VersitygwServer, bucket: str) -> Count:
    """``await requests(call)``: how many requests the call made."""

    async def settled() -> int:
        """How many there were, once their number stays: the log is written after the answer, by another process."""
        seen, quiet = -1, 0
        while quiet < 5:
            await asyncio.sleep(0.04)
            before, seen = seen, len(s3_server.requests(bucket))
            quiet = quiet + 1 if seen == before else 0
        return seen

    async def counted(call: Awaitable[object]) -> int:
        before = await settled()
        await call
        after = await settled()
        made = Counter(s3_server.requests(bucket)[before:after])
        _log.info("%d requests: %s", made.total(), dict(made))
        return made.total()

    return counted


def rows(start: int) -> RecordBatch:
    numbers = range(start, start + ROWS)
    vectors = np.random.default_rng(start).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    metadata: list[Metadata] = [{"whole": number} for number in numbers]
    return RecordBatch([record_id(number) for number in numbers], vectors, metadata, [None] * ROWS)


async def test_listing_asks_twice_and_once_for_each_index_that_changed(
    store: Store, connection: Connection, requests: Count
) -> None:
    for number in range(9):
        await store.create_index(definition(f"index-{number}"))
    async with open_store(connection) as fresh:
        assert await requests(fresh.list_indexes()) == 2 + 10
        assert await requests(fresh.list_indexes()) == 2
        await store.upsert("index-3", batch(5))
        assert await requests(fresh.list_indexes()) == 2 + 1


async def test_what_the_head_tells_takes_one_request(store: Store, requests: Count) -> None:
    await store.upsert("first", batch(5))
    assert await requests(store.describe_index("first")) == 1
    assert await requests(store.statistics("first")) == 1
    assert await requests(store.count("first")) == 1


async def test_a_probe_checks_the_bucket_once_and_then_reads(connection: Connection, requests: Count) -> None:
    async with open_store(connection) as fresh:
        assert await requests(fresh.probe()) <= 9
        assert await requests(fresh.probe()) == 1


async def test_making_marking_and_dropping_an_index(store: Store, requests: Count) -> None:
    assert await requests(store.create_index(definition("made"))) <= 8
    assert await requests(store.set_mark("made", MARK, "fp-2")) <= 10
    assert await requests(store.set_mark("made", MARK, "fp-3")) <= 6
    assert await requests(store.delete_index("made")) <= 8


async def test_writing_and_reading_ten_thousand_records(store: Store, requests: Count) -> None:
    await store.create_index(IndexDefinition("big", DIMENSION, "cosine", fields=definition().fields))
    # 30 MB go up in parts of 5 MiB and more.
    assert await requests(store.upsert("big", rows(0))) <= 18
    assert await requests(store.upsert("big", rows(ROWS))) <= 18
    assert await requests(store.upsert("big", rows(ROWS // 2))) <= 30
    question = rows(0).vectors[0]
    assert await requests(store.query("big", question, 10)) <= 32
    assert await requests(store.query("big", question, 10, Eq("whole", 3))) <= 24
    assert await requests(store.count("big", Eq("whole", 3))) <= 10
    assert await requests(store.fetch("big", [record_id(3)])) <= 24
    assert await requests(store.delete("big", [record_id(3)])) <= 16
