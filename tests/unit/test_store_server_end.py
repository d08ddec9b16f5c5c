"""The end of a store server.

- SIGTERM: what is under way is finished; a scroll that is cut off is told from one that ended
- kill -9 at random moments: nothing acknowledged is lost, nothing is there twice
"""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from tests.support.store_server import StartStoreServer
from tests.support.store_server_client import DIMENSION, batch, connect

from vectorwright.errors import Retryable
from vectorwright.stores.base import IndexDefinition, Store

pytestmark = pytest.mark.server


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
