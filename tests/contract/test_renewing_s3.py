"""Access keys of a bucket that are changed while a table in it is written and read.

- upserts in flight on both sides of the change are stored, each record once; reads go on
- a writer that lost its key with the table's lease leaves the table to the one that has the new key
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploy.servers.versitygw_server import VersitygwServer, start_versitygw_server
from tests.support.s3 import s3_bucket, s3_connection

from vectorwright.errors import Retryable
from vectorwright.stores.base import IndexDefinition, RecordBatch, Store
from vectorwright.stores.registry import Connection, StoreCredentials, open_store
from vectorwright.stores.renewal import PolledRenewal
from vectorwright.stores.renewing import RenewingStore

pytestmark = pytest.mark.server

DIMENSION = 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VersitygwServer]:
    """A server of this test's own: its one key changes when it starts again."""
    made = start_versitygw_server(tmp_path / "s3")
    yield made
    made.stop()


def batch(number: int, size: int = 50) -> RecordBatch:
    ids = [f"{number}-{n}" for n in range(size)]
    vectors = np.random.default_rng(number).normal(size=(size, DIMENSION)).astype(np.float32)
    return RecordBatch(ids, vectors, [{} for _ in ids], [f"text {one}" for one in ids])


async def test_a_table_is_written_while_the_access_key_changes(server: VersitygwServer) -> None:
    connection = s3_connection(server, s3_bucket(server))
    file = [connection]

    async def verify(store: Store) -> None:
        await store.probe()

    renewal = PolledRenewal[Connection, Store]("the bucket", lambda: file[0], open_store, verify)
    written: list[int] = []
    stop = asyncio.Event()

    async def write(store: Store, number: int) -> None:
        while True:
            try:
                await store.upsert("docs", batch(number))
            except Retryable:  # the server is down between two keys
                await asyncio.sleep(0.2)
            else:
                written.append(number)
                return

    async def keep_writing(store: Store, first: int) -> None:
        number = first
        while not stop.is_set():
            await write(store, number)
            number += 3

    async with RenewingStore(renewal, renewal.client.capabilities) as store:
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine"))
        writers = [asyncio.create_task(keep_writing(store, first)) for first in range(3)]
        for _ in range(2):
            await asyncio.sleep(1.5)
            await asyncio.to_thread(server.stop)
            server.access_key, server.secret_key = f"key-{secrets.token_hex(4)}", secrets.token_hex(16)
            await asyncio.to_thread(server.start)
            before = len(written)
            await asyncio.sleep(0.5)
            assert len(written) == before, "nobody gets in with the old key"
            credentials = StoreCredentials(username=server.access_key, password=server.secret_key)
            file[0] = replace(connection, credentials=credentials)
            began = time.monotonic()
            while len(written) < before + 3:
                assert time.monotonic() - began < 60
                await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*writers)
        found = [record.id async for page in store.scroll("docs", metadata=False) for record in page]
    expected = {one for number in written for one in batch(number).ids}
    assert (len(found), set(found)) == (len(expected), expected)
