"""A process that writes to Lance is killed a hundred times, at any moment, on a volume and in a bucket.

- what was acknowledged is there, what was not is there as a whole or not at all, and nothing is there twice
- the table can be read and written after every kill, with no repair
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.lance_writers import (
    INDEX,
    Writers,
    batch_of,
    definition,
    notes,
    problems,
    records_of,
    shorten_leases,
)
from tests.support.s3 import VersitygwServer, s3_bucket, s3_connection

from vectorwright.stores.base import Store
from vectorwright.stores.lance import bucket_store, lease
from vectorwright.stores.lance.store import open_lance
from vectorwright.stores.registry import open_store

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]
KILLS = 100
IDS, SIZE = 240, 40
LONGEST = 0.3
"""Seconds after its first batch that a writer lives at most: some ten commits, with a merge of files in between."""


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the test judges leases as its writers do."""
    for module, name in ((lease, "LEASE_SECONDS"), (bucket_store, "LEASE_SECONDS"), (lease, "RENEW_SECONDS")):
        monkeypatch.setattr(module, name, getattr(module, name))
    shorten_leases()


async def _verified(store: Store, file: Path, kill: int) -> int:
    written = notes(file)
    wrong = problems(await records_of(store), written)
    assert wrong == [], f"after kill {kill}: {wrong[:5]}"
    return _acknowledged(file)


def _lives(writers: Writers, file: Path, chance: random.Random, told: dict[str, Any]) -> int:
    """A writer that is killed at a random moment of its work; the first number that its successor may use.

    Most live on a while after their first batch. The others are killed while they wait for the lease of the one before
    them, or at their first batch.
    """
    before = _acknowledged(file)
    pid = writers.start(**told)
    if chance.random() < 0.15:
        time.sleep(chance.uniform(0, 3 * LONGEST))
    else:
        until = time.monotonic() + 60
        while _acknowledged(file) == before and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, LONGEST))
    writers.kill(pid)
    return int(told["first"]) + 1000


def _acknowledged(file: Path) -> int:
    return sum(1 for one in notes(file) if one.acknowledged is not None)


async def test_a_hundred_kills_in_a_bucket(s3_server: VersitygwServer, tmp_path: Path, short_leases: None) -> None:
    connection = s3_connection(s3_server, s3_bucket(s3_server))
    file, chance = tmp_path / "notes", random.Random(4)
    told: dict[str, Any] = {
        "settings": dict(connection.settings),
        "username": connection.credentials.username,
        "password": connection.credentials.password,
    }
    told |= {"writer": 1, "notes": str(file), "ids": IDS, "size": SIZE, "first": 0}
    async with open_store(connection) as store:
        await store.create_index(definition())
        with Writers() as writers:
            for kill in range(KILLS):
                told["first"] = _lives(writers, file, chance, told)
                acknowledged = await _verified(store, file, kill)
        assert acknowledged > KILLS / 2
        await store.upsert(INDEX, batch_of(2, 0, list(range(IDS))))
        assert await store.count(INDEX) == IDS


async def test_a_hundred_kills_on_a_volume(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    async with await open_lance(folder) as store:
        await store.create_index(definition())
    file, chance = tmp_path / "notes", random.Random(5)
    told: dict[str, Any] = {"folder": str(folder), "writer": 1, "notes": str(file)}
    told |= {"ids": IDS, "size": SIZE, "first": 0}
    with Writers() as writers:
        for kill in range(KILLS):
            told["first"] = _lives(writers, file, chance, told)
            async with await open_lance(folder) as store:
                acknowledged = await _verified(store, file, kill)
    assert acknowledged > KILLS / 2
    async with await open_lance(folder) as store:
        await store.upsert(INDEX, batch_of(2, 0, list(range(IDS))))
        assert await store.count(INDEX) == IDS
