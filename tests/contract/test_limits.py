"""The limits that a store states are those that it keeps: up to them all is taken, beyond them it is refused by name.

- ids of every form that ``id_pattern`` allows come back as they went; the others are refused
- metadata, texts and batches up to their limits in bytes and records
- names and dimensions up to their limits
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import orjson
import pytest
from tests.contract.data import batch, definition, record_id, scrolled, vectors

from vectorwright.errors import BatchRejected, BatchTooLarge, Terminal
from vectorwright.stores.base import Metadata, RecordBatch, Store

pytestmark = pytest.mark.server
IDS = {
    "a UUID": "6f1b1e0c-3a52-4c3e-9a54-0e8f5d5a7c11",
    "a UUID in capitals": "6F1B1E0C-3A52-4C3E-9A54-0E8F5D5A7C11",
    "a UUID without dashes": "6f1b1e0c3a524c3e9a540e8f5d5a7c12",
    "a number": "7",
    "a number with a zero": "07",
    "a large number": "18446744073709551615",
    "too large a number": "18446744073709551616",
    "a negative number": "-7",
    "a word": "word",
    "a capital": "Word",
    "a path": "docs/a b#c.md?x=1&y=%20",
    "quotes": 'it\'s "quoted" \\ `ticked`',
    "unicode": "Größe-漢字-🎉",
    "combining": "e\u0301",
    "braces": "{id} %s $1",
    "dots": "../..",
    "a space": " ",
    "a comma": "a,b",
    "long": "x" * 500,
}
MOST = 2**20
"""Bytes of metadata that are tried where a store takes more."""


def with_ids(ids: list[str]) -> RecordBatch:
    return replace(batch(len(ids)), ids=ids)


async def test_ids_of_every_allowed_form_come_back(docs: Store) -> None:
    pattern = docs.capabilities.id_pattern
    allowed = [one for one in IDS.values() if pattern is None or re.fullmatch(pattern, one)]
    assert allowed
    written = with_ids(allowed)
    await docs.upsert("docs", written)
    assert await docs.count("docs") == len(allowed)
    found = await docs.fetch("docs", allowed)
    assert {one: record.metadata for one, record in found.items()} == dict(zip(allowed, written.metadata, strict=True))
    assert sorted(record.id for record in await scrolled(docs)) == sorted(allowed)
    for one, vector in zip(allowed, written.vectors, strict=True):
        assert (await docs.query("docs", vector, 1))[0].record.id == one
    await docs.delete("docs", allowed[1:])
    assert [record.id for record in await scrolled(docs)] == allowed[:1]


@pytest.mark.parametrize("form", list(IDS))
async def test_an_id_is_taken_as_it_is_or_refused_by_name(docs: Store, form: str) -> None:
    pattern, one = docs.capabilities.id_pattern, IDS[form]
    if pattern is None or re.fullmatch(pattern, one):
        await docs.upsert("docs", with_ids([one]))
        assert list(await docs.fetch("docs", [one])) == [one]
        return
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", with_ids([record_id(0), one]))
    assert one[:20] in refused.value.message or repr(one)[1:20] in refused.value.message
    assert await docs.count("docs") == 0
    # What cannot be there is not there: no question about it is an error.
    assert await docs.fetch("docs", [one]) == {}
    await docs.delete("docs", [one])


def metadata_of(size: int) -> Metadata:
    """Metadata that has exactly so many bytes as JSON, in several values."""
    part = min(size // 4, 20_000)
    metadata: Metadata = {f"part_{number}": "x" * part for number in range((size - 64) // (part + 20))}
    metadata["rest"] = "x" * (size - len(orjson.dumps({**metadata, "rest": ""})))
    assert len(orjson.dumps(metadata)) == size
    return metadata


async def test_metadata_up_to_the_limit_is_taken(docs: Store) -> None:
    await docs.probe()
    written = metadata_of(min(docs.capabilities.max_metadata_bytes, MOST))
    await docs.upsert("docs", batch(1, metadata=[written], texts=[None]))
    assert (await docs.fetch("docs", [record_id(0)]))[record_id(0)].metadata == written


async def test_metadata_beyond_the_limit_is_refused_by_name(docs: Store) -> None:
    await docs.probe()
    limit = docs.capabilities.max_metadata_bytes
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(3, metadata=[{}, metadata_of(limit + 1), {}], texts=[None] * 3))
    assert type(refused.value) is BatchRejected
    assert record_id(1) in refused.value.message
    assert await docs.count("docs") == 0


async def test_a_text_beyond_the_limit_is_refused_by_name(docs: Store) -> None:
    await docs.probe()
    text = "x" * (docs.capabilities.max_text_bytes + 1)
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(2, texts=["fine", text], metadata=[{}, {}]))
    assert record_id(1) in refused.value.message or isinstance(refused.value, BatchTooLarge)
    assert len(refused.value.message) < 1_000
    assert await docs.count("docs") == 0


async def test_more_bytes_than_the_limit_are_too_large(docs: Store) -> None:
    await docs.probe()
    limits = docs.capabilities
    text = "x" * max(1, min(limits.max_text_bytes // 2, 2**20))
    count = limits.max_batch_bytes // len(text) + 1
    with pytest.raises(BatchTooLarge):
        await docs.upsert("docs", batch(count, texts=[text] * count, metadata=[{}] * count))
    assert await docs.count("docs") == 0


@pytest.mark.parametrize(
    "name", ["a", "ab", "abc", "A", "Docs", "a-b", "a_b", "a.b", "a..b", "9a", "_a", "-a", "ü", "a b"]
)
async def test_a_name_that_is_allowed_is_kept_and_any_other_refused(store: Store, name: str) -> None:
    made = replace(definition(name), fields=())
    if re.fullmatch(store.capabilities.name_pattern, name) and ".." not in name:
        assert (await store.create_index(made)).name == name
        await store.upsert(name, batch(2))
        assert [index.name for index in await store.list_indexes()] == [name]
        assert await store.count(name) == 2
        await store.delete_index(name)
    else:
        with pytest.raises(Terminal) as refused:
            await store.create_index(made)
        assert refused.value.reason == "InvalidName"
    assert await store.list_indexes() == []


async def test_names_that_differ_in_case_are_two_indexes(store: Store) -> None:
    names = [name for name in ("docs", "Docs", "DOCS") if re.fullmatch(store.capabilities.name_pattern, name)]
    for at, name in enumerate(names):
        await store.create_index(replace(definition(name), fields=()))
        await store.upsert(name, batch(at + 1))
    assert [index.name for index in await store.list_indexes()] == sorted(names)
    assert [await store.count(name) for name in names] == list(range(1, len(names) + 1))


async def test_the_longest_name_is_taken(store: Store) -> None:
    pattern = store.capabilities.name_pattern
    longest = max(length for length in range(1, 600) if re.fullmatch(pattern, "a" * length))
    await store.create_index(replace(definition("a" * longest), fields=()))
    await store.upsert("a" * longest, batch(1))
    assert [index.name for index in await store.list_indexes()] == ["a" * longest]
    with pytest.raises(Terminal):
        await store.create_index(replace(definition("a" * (longest + 1)), fields=()))


async def test_the_largest_dimension_is_taken_and_no_larger(store: Store) -> None:
    dimension = store.capabilities.max_dimension
    await store.create_index(definition("docs", "cosine", dimension))
    written = replace(batch(2), vectors=vectors(2, dimension))
    await store.upsert("docs", written)
    found = await store.query("docs", written.vectors[1], 1, vectors=True)
    assert found[0].record.id == record_id(1)
    np.testing.assert_allclose(found[0].record.vector, written.vectors[1], atol=1e-5)  # type: ignore[arg-type]
    with pytest.raises(Terminal) as refused:
        await store.create_index(definition("larger", "cosine", dimension + 1))
    assert refused.value.reason == "InvalidDimension"
