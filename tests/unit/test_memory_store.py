"""The store in memory, where it promises more than the contract suite asks of every store.

- its capabilities can be replaced: limits and settings then hold
- aliases: swapped, resolved everywhere, gone with their index, never a second meaning of a name
- what is written and read is a copy
- removing records keeps every other record whole
- equal scores come in the order of their ids
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from vectorwright.errors import BatchRejected, BatchTooLarge, Conflict, NotFound, Terminal
from vectorwright.stores.base import ChangeClass, IndexDefinition, Metadata, RecordBatch, Store
from vectorwright.stores.filters import Eq
from vectorwright.stores.memory import MEMORY_CAPABILITIES, MemoryStore


def batch(*ids: str, metadata: Metadata | None = None, dimension: int = 3) -> RecordBatch:
    vectors = np.arange(1, len(ids) * dimension + 1, dtype=np.float32).reshape(len(ids), dimension)
    return RecordBatch(list(ids), vectors, [dict(metadata or {}) for _ in ids], [f"text of {one}" for one in ids])


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.create_index(IndexDefinition("docs", 3, "dotproduct"))
    return store


async def test_it_is_a_store(store: MemoryStore) -> None:
    assert isinstance(store, Store)
    assert not store.capabilities.durable


async def test_limits_can_be_replaced() -> None:
    store = MemoryStore(replace(MEMORY_CAPABILITIES, max_batch_records=2, max_metadata_bytes=20, max_text_bytes=11))
    await store.create_index(IndexDefinition("docs", 3, "cosine"))
    with pytest.raises(BatchTooLarge):
        await store.upsert("docs", batch("a", "b", "c"))
    with pytest.raises(BatchRejected, match="record 'a': its metadata has 26 bytes"):
        await store.upsert("docs", batch("a", metadata={"word": "a" * 15}))
    with pytest.raises(BatchRejected, match="record 'long': its text has 12 bytes") as refused:
        await store.upsert("docs", batch("long"))
    assert type(refused.value) is BatchRejected
    await store.upsert("docs", batch("a", "b"))
    assert await store.count("docs") == 2


async def test_a_batch_is_limited_by_its_bytes() -> None:
    store = MemoryStore(replace(MEMORY_CAPABILITIES, max_batch_bytes=100))
    await store.create_index(IndexDefinition("docs", 3, "cosine"))
    await store.upsert("docs", batch("a", "b"))
    with pytest.raises(BatchTooLarge):
        await store.upsert("docs", batch("a", "b", "c", "d", "e", "f"))


async def test_settings_that_capabilities_name_are_kept() -> None:
    capabilities = replace(MEMORY_CAPABILITIES, mutable_settings={"hnsw.ef_search": ChangeClass.SAFE})
    store = MemoryStore(capabilities)
    made = await store.create_index(IndexDefinition("docs", 3, "cosine", settings={"hnsw.ef_search": 10}))
    assert made.settings == {"hnsw.ef_search": 10}
    await store.update_index("docs", {"hnsw.ef_search": 20})
    assert (await store.describe_index("docs")).settings == {"hnsw.ef_search": 20}
    with pytest.raises(Terminal, match=r"known are hnsw\.ef_search"):
        await store.update_index("docs", {"hnsw.m": 8})


async def test_an_alias_is_swapped_and_resolved_everywhere(store: MemoryStore) -> None:
    await store.create_index(IndexDefinition("docs-g2", 3, "dotproduct"))
    await store.upsert("docs", batch("old"))
    await store.set_alias("live", "docs")
    assert await store.count("live") == 1
    await store.upsert("live", batch("written-through"))
    assert set(await store.fetch("docs", ["old", "written-through"])) == {"old", "written-through"}
    await store.set_alias("live", "docs-g2")
    assert await store.count("live") == 0
    assert (await store.describe_index("live")).name == "docs-g2"
    assert await store.aliases() == {"live": "docs-g2"}
    await store.delete_alias("live")
    with pytest.raises(NotFound):
        await store.count("live")


async def test_a_name_has_one_meaning(store: MemoryStore) -> None:
    await store.set_alias("live", "docs")
    with pytest.raises(Conflict):
        await store.create_index(IndexDefinition("live", 3, "cosine"))
    with pytest.raises(Conflict):
        await store.set_alias("docs", "docs")
    with pytest.raises(NotFound):
        await store.set_alias("other", "nope")
    with pytest.raises(NotFound):
        await store.delete_index("live")
    with pytest.raises(Terminal):
        await store.set_alias("../live", "docs")
    await store.delete_index("docs")
    assert await store.aliases() == {}


async def test_without_the_capability_there_are_no_aliases() -> None:
    store = MemoryStore(replace(MEMORY_CAPABILITIES, aliases=False))
    await store.create_index(IndexDefinition("docs", 3, "cosine"))
    for call in (store.set_alias("live", "docs"), store.delete_alias("live")):
        with pytest.raises(Terminal):
            await call


async def test_what_is_written_and_read_is_a_copy(store: MemoryStore) -> None:
    tags = ["a"]
    written = batch("one", metadata={"tags": tags})
    await store.upsert("docs", written)
    tags.append("b")
    written.metadata[0]["more"] = 1
    written.vectors[:] = 0
    first = (await store.fetch("docs", ["one"], vectors=True))["one"]
    assert first.metadata == {"tags": ["a"]}
    assert first.vector is not None
    first.vector[:] = 0
    first.metadata["tags"] = "changed"
    second = (await store.fetch("docs", ["one"], vectors=True))["one"]
    assert second.metadata == {"tags": ["a"]}
    np.testing.assert_array_equal(second.vector, [1, 2, 3])


async def test_removing_keeps_all_others_whole(store: MemoryStore) -> None:
    chance = random.Random(7)
    kept: dict[str, int] = {}
    for step in range(400):
        if chance.random() < 0.6 or not kept:
            name, value = f"id{chance.randrange(60)}", step
            vector = np.full((1, 3), value, np.float32)
            await store.upsert("docs", RecordBatch([name], vector, [{"value": value}], [str(value)]))
            kept[name] = value
        else:
            name = chance.choice(sorted(kept))
            await store.delete("docs", [name, "absent"])
            del kept[name]
    records = {one.id: one async for page in store.scroll("docs", vectors=True, page=7) for one in page}
    assert {name: one.metadata["value"] for name, one in records.items()} == kept
    assert all(one.text == str(kept[name]) for name, one in records.items())
    assert all(one.vector is not None and one.vector[0] == kept[name] for name, one in records.items())
    matches = await store.query("docs", np.ones(3, np.float32), 1000)
    assert [match.record.id for match in matches] == sorted(kept, key=lambda name: (-kept[name], name))


async def test_equal_scores_come_in_the_order_of_ids(store: MemoryStore) -> None:
    names = [f"{number:02}" for number in range(30)]
    random.Random(1).shuffle(names)
    same = np.ones((30, 3), np.float32)
    await store.upsert("docs", RecordBatch(names, same, [{} for _ in names], [None for _ in names]))
    found = await store.query("docs", np.ones(3, np.float32), 5)
    assert [match.record.id for match in found] == ["00", "01", "02", "03", "04"]


async def test_a_bad_batch_writes_nothing(store: MemoryStore) -> None:
    bad = batch("a", "b")
    bad.vectors[1, 1] = np.nan
    with pytest.raises(BatchRejected, match="record 'b'"):
        await store.upsert("docs", bad)
    assert await store.count("docs") == 0


async def test_every_instance_is_another_backend() -> None:
    assert (await MemoryStore().probe()).backend_id != (await MemoryStore().probe()).backend_id


async def test_a_scroll_leaves_out_what_was_deleted_meanwhile(store: MemoryStore) -> None:
    await store.upsert("docs", batch(*"abcdef", metadata={"word": "x"}))
    seen: list[str] = []
    async for page in store.scroll("docs", Eq("word", "x"), page=2):
        seen += [one.id for one in page]
        await store.delete("docs", ["c", "d"])
    assert seen == ["a", "b", "e", "f"]
