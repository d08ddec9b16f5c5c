"""FAISS stores without a server, for tests of what is on their disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from vectorwright.stores.base import IndexDefinition, RecordBatch, Vectors
from vectorwright.stores.faiss.files import Files
from vectorwright.stores.faiss.keys import KeyRing
from vectorwright.stores.faiss.store import FaissStore, open_faiss

DIMENSION = 8
KEY, OTHER_KEY = bytes(range(200, 232)), bytes(range(100, 132))


def vector_of(record_id: str, value: int, dimension: int = DIMENSION) -> Vectors:
    """The vector that a record of this value has, shape (d,): of another length than one."""
    seed = np.frombuffer(record_id.encode().ljust(8, b".")[:8], np.uint64)[0]
    drawn = np.random.default_rng([int(seed), value]).standard_normal(dimension)
    return np.asarray(drawn, np.float32)


def batch_of(ids: Sequence[str], value: int, dimension: int = DIMENSION) -> RecordBatch:
    """Records whose vectors, texts and metadata all follow from their ids and one value."""
    return RecordBatch(
        list(ids),
        np.stack([vector_of(record_id, value, dimension) for record_id in ids]),
        [{"value": value, "word": f"w{value % 3}"} for _ in ids],
        [f"text of {record_id} {value}" for record_id in ids],
    )


def docs(metric: str = "cosine", dimension: int = DIMENSION, **settings: int) -> IndexDefinition:
    """The definition of an index ``docs``; ``ivf_lists=4`` is the setting ``ivf.lists``."""
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return IndexDefinition("docs", dimension, metric, settings=named)


@asynccontextmanager
async def opened(
    root: Path, files: Files | None = None, keys: Sequence[bytes] = (), min_log: int = 1 << 26
) -> AsyncIterator[FaissStore]:
    """A store that is closed at the end."""
    store = await open_faiss(root, files=files or Files(fsync=False), ring=KeyRing(keys), min_log=min_log)
    try:
        yield store
    finally:
        await store.close()


async def held(store: FaissStore, name: str = "docs") -> dict[str, int]:
    """Id → value of all records, after a look that each is whole and there once."""
    found: dict[str, int] = {}
    async for page in store.scroll(name, vectors=True):
        for record in page:
            value = record.metadata["value"]
            assert isinstance(value, int)
            assert record.id not in found
            assert record.metadata == {"value": value, "word": f"w{value % 3}"}
            assert record.text == f"text of {record.id} {value}"
            assert record.vector is not None
            np.testing.assert_array_equal(record.vector, vector_of(record.id, value))
            found[record.id] = value
    assert len(found) == await store.count(name)
    return found


async def finds_all(store: FaissStore, records: Mapping[str, int], name: str = "docs") -> None:
    """Search finds what is held, and nothing else."""
    for record_id, value in list(records.items())[:3]:
        matches = await store.query(name, vector_of(record_id, value), len(records) + 5)
        assert {match.record.id for match in matches} == set(records)
        assert matches[0].record.id == record_id
