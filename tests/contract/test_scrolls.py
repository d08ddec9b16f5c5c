"""Listing records while the world moves on, in every store.

- what was there before a scroll and is not touched comes once, whatever others write and delete meanwhile
- several scrolls at once do not disturb each other; one that is given up leaves a store that works
- a scroll over records of every kind gives them as fetching does
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import batch, definition, record_id, scrolled, vectors

from vectorwright.errors import NotFound
from vectorwright.stores.base import Metadata, Record, Store
from vectorwright.stores.filters import Eq, In

pytestmark = pytest.mark.server


@pytest.mark.parametrize("page", [1, 7, 1000])
async def test_a_scroll_gives_each_record_once(docs: Store, page: int) -> None:
    await docs.upsert("docs", batch(23))
    pages = [records async for records in docs.scroll("docs", page=page)]
    assert all(1 <= len(records) <= page for records in pages)
    ids = [record.id for records in pages for record in records]
    assert sorted(ids) == sorted(record_id(number) for number in range(23))


async def test_a_scroll_of_many_pages(store: Store) -> None:
    await store.create_index(definition("docs", dimension=4))
    step = min(1_500, store.capabilities.max_batch_records)
    for start in range(0, 4_500, step):
        await store.upsert("docs", batch(min(step, 4_500 - start), start=start, dimension=4))
    ids = [record.id for record in await scrolled(store, page=400)]
    assert len(ids) == len(set(ids)) == 4_500


async def test_a_scroll_with_a_filter_vectors_and_without_metadata(docs: Store) -> None:
    written = batch(9)
    await docs.upsert("docs", written)
    pages = [records async for records in docs.scroll("docs", Eq("word", "w1"), vectors=True, metadata=False, page=2)]
    records = [record for page in pages for record in page]
    assert sorted(record.id for record in records) == [record_id(1), record_id(4), record_id(7)]
    for record in records:
        assert record.metadata == {}
        at = written.ids.index(record.id)
        np.testing.assert_allclose(record.vector, written.vectors[at], atol=1e-6)  # type: ignore[arg-type]


async def test_a_scroll_of_nothing_gives_no_page(docs: Store) -> None:
    assert [page async for page in docs.scroll("docs")] == []
    await docs.upsert("docs", batch(1))
    assert [page async for page in docs.scroll("docs", Eq("word", "nobody"))] == []


async def test_deleting_what_is_scrolled_misses_nothing(docs: Store) -> None:
    await docs.upsert("docs", batch(60))
    seen: list[str] = []
    async for records in docs.scroll("docs", page=7):
        seen += [record.id for record in records]
        await docs.delete("docs", [record.id for record in records])
    assert sorted(seen) == sorted(record_id(number) for number in range(60))
    assert await docs.count("docs") == 0


@pytest.mark.timeout(60)
async def test_what_is_not_touched_comes_once_while_others_write(docs: Store, open_another: StoreFactory) -> None:
    await docs.upsert("docs", batch(200))
    other = open_another(None)
    seen: list[str] = []
    turn = 0
    async for records in docs.scroll("docs", page=20):
        seen += [record.id for record in records]
        if turn < 10:
            await other.upsert("docs", batch(10, start=1_000 + 10 * turn))
            await other.delete("docs", [record_id(150 + number) for number in range(5 * turn, 5 * turn + 5)])
        turn += 1
    untouched = {record_id(number) for number in range(150)}
    assert sorted(one for one in seen if one in untouched) == sorted(untouched)
    assert len(seen) == len(set(seen))


async def test_what_is_rewritten_meanwhile_comes_once(docs: Store, open_another: StoreFactory) -> None:
    await docs.upsert("docs", batch(100))
    other = open_another(None)
    seen: list[str] = []
    async for records in docs.scroll("docs", page=10):
        seen += [record.id for record in records]
        await other.upsert("docs", batch(100, seed=len(seen)))
    assert sorted(seen) == sorted(record_id(number) for number in range(100))


async def test_scrolls_at_once_do_not_disturb_each_other(docs: Store) -> None:
    await docs.upsert("docs", batch(60))
    many = await asyncio.gather(*(scrolled(docs, page=size) for size in (1, 7, 13, 60)))
    every = sorted(record_id(number) for number in range(60))
    assert all(sorted(record.id for record in records) == every for records in many)


async def test_a_scroll_that_is_given_up_leaves_a_store_that_works(docs: Store) -> None:
    await docs.upsert("docs", batch(40))
    for _ in range(10):
        async with aclosing(docs.scroll("docs", page=3)) as pages:  # type: ignore[type-var]
            async for records in pages:
                assert len(records) <= 3
                break
    assert await docs.count("docs") == 40
    assert len(await scrolled(docs)) == 40


async def test_an_index_that_goes_while_it_is_scrolled_is_no_end_of_it(docs: Store, open_another: StoreFactory) -> None:
    """Half of a list is never told as if it were all: either the rest comes, or the index is not found."""
    await docs.upsert("docs", batch(50))
    seen: list[str] = []
    try:
        async for records in docs.scroll("docs", page=5):
            if not seen:
                await open_another(None).delete_index("docs")
            seen += [record.id for record in records]
    except NotFound:
        return
    assert len(set(seen)) == 50


def shown(record: Record) -> tuple[dict[str, tuple[type, object]], str | None]:
    return {name: (type(value), value) for name, value in record.metadata.items()}, record.text


async def test_records_are_the_same_however_they_are_read(docs: Store) -> None:
    metadata: list[Metadata] = [
        {"word": "a", "whole": 1, "real": 1.0, "flag": True, "undeclared": 2.0, "n": 2},
        {"any": "1", "vw_n": 3, "ключ": "ü"},
        {"any": 1},
        {"any": 1.5, "flag": False},
        {},
    ]
    texts = ["", None, "text", "Größe 🎉", None]
    await docs.upsert("docs", batch(5, metadata=metadata, texts=texts))
    expected = {record_id(at): shown(Record(record_id(at), one, texts[at])) for at, one in enumerate(metadata)}
    fetched = await docs.fetch("docs", list(expected))
    found = [match.record for match in await docs.query("docs", vectors(1)[0], 10)]
    filtered = await scrolled(docs, In("vw_n", (3,)))
    assert {one: shown(record) for one, record in fetched.items()} == expected
    assert {record.id: shown(record) for record in found} == expected
    assert {record.id: shown(record) for record in await scrolled(docs, page=2)} == expected
    assert [shown(record) for record in filtered] == [expected[record_id(1)]]
