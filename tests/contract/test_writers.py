"""Eight writers of the same ids, each with a handle of its own, in every store.

- each id is there once, in the count and in a scroll
- each record is that of one writer as a whole: its vector, its metadata and its text belong together
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import DIMENSION, record_id, scrolled, vectors

from vectorwright.stores.base import Metadata, RecordBatch, Store

pytestmark = pytest.mark.server
IDS = 400
SIZES = (400, 200, 100, 64, 50, 37, 25, 20)
"""Records a batch of each writer."""


def written_by(writer: int, numbers: list[int]) -> RecordBatch:
    """Records of these numbers as only this writer writes them."""
    own = vectors(IDS, seed=writer + 1)
    metadata: list[Metadata] = [{"word": f"writer {writer}", "whole": 1_000 * writer + number} for number in numbers]
    texts: list[str | None] = [f"{writer}:{number}" for number in numbers]
    return RecordBatch([record_id(number) for number in numbers], np.ascontiguousarray(own[numbers]), metadata, texts)


async def write_all(store: Store, writer: int) -> None:
    """All ids, in an order of this writer's own."""
    order = [int(number) for number in np.random.default_rng(writer).permutation(IDS)]
    size = min(SIZES[writer], store.capabilities.max_batch_records)
    for start in range(0, IDS, size):
        await store.upsert("docs", written_by(writer, order[start : start + size]))


async def test_eight_writers_of_the_same_ids_leave_each_record_once_and_whole(
    docs: Store, open_another: StoreFactory
) -> None:
    handles = [open_another(None) for _ in SIZES]
    await asyncio.gather(*(write_all(handle, writer) for writer, handle in enumerate(handles)))
    assert await docs.count("docs") == IDS
    pages = [page async for page in docs.scroll("docs", vectors=True, page=150)]
    records = [record for page in pages for record in page]
    assert sorted(record.id for record in records) == sorted(record_id(number) for number in range(IDS))
    numbers = {record_id(number): number for number in range(IDS)}
    for record in records:
        whole = record.metadata["whole"]
        assert isinstance(whole, int)
        writer, number = divmod(whole, 1_000)
        assert number == numbers[record.id]
        assert record.metadata == {"word": f"writer {writer}", "whole": whole}
        assert record.text == f"{writer}:{number}"
        assert record.vector is not None
        assert record.vector.shape == (DIMENSION,)
        np.testing.assert_allclose(record.vector, vectors(IDS, seed=writer + 1)[number], atol=1e-5)


async def test_writers_and_a_deleter_leave_nothing_twice(docs: Store, open_another: StoreFactory) -> None:
    """Deleting what others write at the moment leaves each record there once or not at all."""
    handles = [open_another(None) for _ in range(4)]
    await docs.upsert("docs", written_by(0, list(range(IDS))))

    async def delete(store: Store) -> None:
        for start in range(0, IDS, 50):
            await store.delete("docs", [record_id(number) for number in range(start, start + 50)])

    await asyncio.gather(*(write_all(handle, writer) for writer, handle in enumerate(handles[:3])), delete(handles[3]))
    ids = [record.id for record in await scrolled(docs)]
    assert len(ids) == len(set(ids)) == await docs.count("docs")
    await docs.upsert("docs", written_by(7, list(range(IDS))))
    assert await docs.count("docs") == IDS
