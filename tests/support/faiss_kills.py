"""A FAISS store that is killed again and again in the middle of its work, and looked at after each start.

``python -m tests.support.faiss_kills ROOT KILLS SEED [KEY]`` forks a process a kill, which opens the store, checks
every record against what was acknowledged before, and writes until it is killed. Prints ``kills, writes, snapshots`` as
JSON; ends with status 1 and an explanation where something is lost, twice there, or in part.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from pathlib import Path

import faiss  # noqa: F401 - loaded once, before the forks
import numpy as np
import orjson

from vectorwright.stores.base import FieldDefinition, IndexDefinition, RecordBatch
from vectorwright.stores.faiss.files import Files
from vectorwright.stores.faiss.keys import KeyRing
from vectorwright.stores.faiss.store import FaissStore, open_faiss
from vectorwright.stores.filters import And, Eq

WRITERS, GROUP, DIMENSION = 4, 20, 32
MIN_LOG = 48 * 1024
_COUNTER = struct.Struct("<Q")
_READY, _SNAPSHOT = 8 * WRITERS, 8 * WRITERS + 8


class Shared:
    """What a killed process leaves for the next: the number of the last change of each writer that was acknowledged."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)

    def __getitem__(self, at: int) -> int:
        return int(_COUNTER.unpack_from(self._memory, at)[0])

    def __setitem__(self, at: int, value: int) -> None:
        _COUNTER.pack_into(self._memory, at, value)


def removes(change: int) -> bool:
    """Whether a writer's change of this number removes its records; others write all of them."""
    return change == 0 or change % 7 == 3


def batch(writer: int, change: int) -> RecordBatch:
    ids = [f"{writer}-{at}" for at in range(GROUP)]
    vectors = np.random.default_rng([writer, change]).standard_normal((GROUP, DIMENSION)).astype(np.float32)
    metadata = [{"writer": writer, "change": change, "at": at} for at in range(GROUP)]
    return RecordBatch(ids, vectors, [dict(one) for one in metadata], [f"text {change}" for _ in ids])


async def check(store: FaissStore, shared: Shared) -> None:
    """Raise AssertionError where the store holds anything else than it may."""
    found: dict[str, tuple[int, bytes, object, object]] = {}
    async for page in store.scroll("docs", vectors=True):
        for one in page:
            assert one.id not in found, f"{one.id} is there twice"
            assert one.vector is not None
            change = one.metadata["change"]
            assert isinstance(change, int)
            found[one.id] = (change, one.vector.tobytes(), one.metadata, one.text)
    assert len(found) == await store.count("docs")
    assert (await store.statistics("docs")).details["damaged_parts"] == 0
    for writer in range(WRITERS):
        acknowledged = shared[8 * writer]
        mine = {name: one for name, one in found.items() if name.startswith(f"{writer}-")}
        for change in (acknowledged, acknowledged + 1):
            expected = batch(writer, change)
            whole = {
                name: (change, expected.vectors[at].tobytes(), expected.metadata[at], expected.texts[at])
                for at, name in enumerate(expected.ids)
            }
            if mine == ({} if removes(change) else whole):
                shared[8 * writer] = change
                break
        else:
            changes = sorted({one[0] for one in mine.values()})
            raise AssertionError(
                f"writer {writer}: {acknowledged} acknowledged, found {len(mine)} records of {changes}"
            )


async def write(store: FaissStore, shared: Shared, writer: int) -> None:
    while True:
        change = shared[8 * writer] + 1
        if not removes(change):
            await store.upsert("docs", batch(writer, change))
        elif change % 2:
            await store.delete("docs", [f"{writer}-{at}" for at in range(GROUP)])
        else:
            await store.delete_where("docs", And((Eq("writer", writer),)))
        shared[8 * writer] = change


async def work(root: Path, shared: Shared, keys: list[bytes]) -> None:
    store = await open_faiss(root, files=Files(), ring=KeyRing(keys), min_log=MIN_LOG)
    if not await store.list_indexes():
        fields = (FieldDefinition("writer", "integer"),)
        await store.create_index(IndexDefinition("docs", DIMENSION, "cosine", fields, {"ivf.lists": 2}))
    await check(store, shared)
    found = [int(path.name.removeprefix("snapshot-")) for path in (root / "docs.faiss").glob("snapshot-??????????")]
    shared[_SNAPSHOT] = max(found, default=0)
    shared[_READY] = 1
    await asyncio.gather(*(write(store, shared, writer) for writer in range(WRITERS)))


def main() -> int:
    root, kills, chance = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    keys = [bytes.fromhex(sys.argv[4])] if len(sys.argv) > 4 else []
    shared = Shared()
    for _ in range(kills + 1):
        shared[_READY] = 0
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(work(root, shared, keys))
            finally:
                traceback.print_exc()
                os._exit(1)
        if chance.random() < 0.9:  # otherwise it may be killed while it reads back what was left
            while not shared[_READY] and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.001)
            if not shared[_READY]:
                return 1
        time.sleep(chance.expovariate(12))
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            return 1
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return 1
    done = {"kills": kills, "writes": sum(shared[8 * one] for one in range(WRITERS)), "snapshots": shared[_SNAPSHOT]}
    sys.stdout.buffer.write(orjson.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
