"""Writing, reading and deleting records, in every store.

- what was written is read back: vectors, texts, metadata of every type
- writing an id again replaces the whole record, nothing of the old one stays
- a bad record is refused by name and nothing of its batch is written
- several writers of the same ids leave each id once
- deleting takes ids that are absent, and filters
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import DIMENSION, batch, definition, record_id, scrolled, vectors

from vectorwright.errors import BatchRejected, BatchTooLarge
from vectorwright.stores.base import Metadata, RecordBatch, Store
from vectorwright.stores.filters import And, Eq, In, Ne, Or, Range

pytestmark = pytest.mark.server


async def test_records_are_read_back(docs: Store) -> None:
    written = batch(5)
    await docs.upsert("docs", written)
    found = await docs.fetch("docs", written.ids, vectors=True)
    assert sorted(found) == sorted(written.ids)
    for at, one in enumerate(written.ids):
        assert found[one].id == one
        assert found[one].metadata == written.metadata[at]
        assert found[one].text == written.texts[at]
        vector = found[one].vector
        assert vector is not None
        assert vector.dtype == np.float32
        assert vector.shape == (DIMENSION,)
        np.testing.assert_allclose(vector, written.vectors[at], rtol=1e-5, atol=1e-6)


async def test_vectors_that_are_not_normalised_are_kept_for_the_euclidean_metric(store: Store) -> None:
    await store.create_index(definition("docs", "euclidean"))
    written = replace(batch(4), vectors=np.ascontiguousarray(vectors(4) * np.float32(37.5)))
    await store.upsert("docs", written)
    found = await store.fetch("docs", written.ids, vectors=True)
    for at, one in enumerate(written.ids):
        np.testing.assert_allclose(found[one].vector, written.vectors[at], rtol=1e-6)  # type: ignore[arg-type]


async def test_what_is_not_asked_for_is_not_given(docs: Store) -> None:
    await docs.upsert("docs", batch(1))
    (with_metadata,) = (await docs.fetch("docs", [record_id(0)])).values()
    assert with_metadata.vector is None
    (alone,) = (await docs.fetch("docs", [record_id(0)], metadata=False)).values()
    assert alone.metadata == {}
    assert alone.text is None
    assert alone.vector is None


async def test_ids_that_do_not_exist_are_left_out(docs: Store) -> None:
    await docs.upsert("docs", batch(2))
    assert list(await docs.fetch("docs", [record_id(9), record_id(1)])) == [record_id(1)]
    assert await docs.fetch("docs", []) == {}
    assert await docs.fetch("docs", [record_id(9)]) == {}


METADATA: dict[str, Metadata] = {
    "empty": {},
    "text": {"word": "plain"},
    "empty text": {"word": ""},
    "unicode": {"word": "Größe Ωμέγα 漢字 🎉 \u202e e\u0301"},
    "quotes": {"word": """a "b" 'c' \\d\\ %s {e} $1 -- /* ; */ \n\t"""},
    "reserved": {
        "vw_source": "ns/job",
        "vw_doc": "docs/a b#c.md",
        "vw_ver": "a" * 64,
        "vw_n": 0,
        "vw_count": 12,
        "vw_id": "7",
    },
    "booleans": {"flag": True, "other_flag": False},
    "integers": {"whole": 0, "negative": -5, "large": 2**53 + 1, "largest": 2**63 - 1, "smallest": -(2**63)},
    "floats": {"real": 1.5, "round": 2.0, "tiny": 1e-300, "negative_real": -0.1, "third": 1 / 3},
    "all": {"word": "a", "whole": 1, "real": 1.25, "flag": False, "undeclared": "x"},
    "long": {"word": "w" * 5_000},
    "many": {f"field_{number}": number for number in range(100)},
    "dots and dashes": {"a.b": 1, "c-d": 2, "Ключ": 3},
    "one of each type": {"a": 1, "b": 1.0, "c": True, "d": "1", "e": 0, "f": 0.0, "g": False, "h": ""},
    "numbers at the edge": {"a": 2**53, "b": float(2**53), "c": 2**53 + 1, "d": -(2**53) - 1, "e": 1e300, "f": 5e-324},
    "whole floats": {"a": 1e15, "b": 1e22, "c": -3.0, "whole": 3.0, "real": 3},
    "declared fields of other types": {"word": 1, "whole": "1", "real": True, "flag": 0.5},
    "text that looks like others": {"word": "true", "a": "null", "b": "1.0", "c": "[]", "d": "{}", "e": "NaN"},
    "escapes as text": {"word": "\\u0000 \\n \\\\ \\x00 &amp; %00", "a": "\\"},
}


@pytest.mark.parametrize("kind", list(METADATA))
async def test_metadata_comes_back_with_its_types(docs: Store, kind: str) -> None:
    written = METADATA[kind]
    await docs.upsert("docs", batch(1, metadata=[written]))
    (record,) = (await docs.fetch("docs", [record_id(0)])).values()
    assert record.metadata == written
    assert {name: type(value) for name, value in record.metadata.items()} == {
        name: type(value) for name, value in written.items()
    }


@pytest.mark.needs("list_metadata")
async def test_lists_come_back(docs: Store) -> None:
    written: list[Metadata] = [{"tags": ["a", "ü", "a"], "word": "x"}, {"tags": [], "word": "y"}, {"tags": [""]}]
    await docs.upsert("docs", batch(3, metadata=written))
    found = await docs.fetch("docs", [record_id(number) for number in range(3)])
    assert [found[record_id(number)].metadata for number in range(3)] == written


@pytest.mark.needs(list_metadata=False)
async def test_lists_are_refused_by_name(docs: Store) -> None:
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(2, metadata=[{}, {"tags": ["a"]}]))
    assert record_id(1) in refused.value.message
    assert await docs.count("docs") == 0


@pytest.mark.parametrize("place", ["text", "metadata"])
async def test_a_null_character_comes_back_or_is_refused_by_name(docs: Store, place: str) -> None:
    odd = batch(2, texts=["fine", "a\0b"]) if place == "text" else batch(2, metadata=[{}, {"word": "a\0b"}])
    (refused,) = await asyncio.gather(docs.upsert("docs", odd), return_exceptions=True)
    if refused is not None:
        assert isinstance(refused, BatchRejected)
        assert record_id(1) in refused.message
        assert await docs.count("docs") == 0
        return
    (record,) = (await docs.fetch("docs", [record_id(1)])).values()
    assert (record.metadata, record.text) == (odd.metadata[1], odd.texts[1])


async def test_texts_come_back(docs: Store) -> None:
    # Where a text has to fit beside the metadata of its record, half of the limit does.
    long = "long " * min(20_000, docs.capabilities.max_text_bytes // 10)
    texts = [None, "", "plain", "Größe 🎉\nline two\ttab", long]
    await docs.upsert("docs", batch(len(texts), texts=texts))
    found = await docs.fetch("docs", [record_id(number) for number in range(len(texts))])
    assert [found[record_id(number)].text for number in range(len(texts))] == texts


async def test_writing_again_replaces_the_whole_record(docs: Store) -> None:
    await docs.upsert("docs", batch(3, metadata=[{"word": "old", "whole": 1}] * 3, texts=["old"] * 3))
    new: list[Metadata] = [{"real": 2.5}, {}, {"word": "new"}]
    await docs.upsert("docs", batch(3, metadata=new, texts=["new", None, ""], seed=2))
    found = await docs.fetch("docs", [record_id(number) for number in range(3)], vectors=True)
    assert [found[record_id(number)].metadata for number in range(3)] == new
    assert [found[record_id(number)].text for number in range(3)] == ["new", None, ""]
    np.testing.assert_allclose(found[record_id(2)].vector, vectors(3, seed=2)[2], atol=1e-6)  # type: ignore[arg-type]
    assert await docs.count("docs") == 3
    assert await docs.count("docs", Eq("word", "old")) == 0


async def test_old_and_new_records_in_one_batch(docs: Store) -> None:
    await docs.upsert("docs", batch(4))
    await docs.upsert("docs", batch(8, start=2))
    assert await docs.count("docs") == 10


async def test_asking_twice_for_an_id_gives_it_once(docs: Store) -> None:
    await docs.upsert("docs", batch(2))
    found = await docs.fetch("docs", [record_id(0), record_id(1), record_id(0)])
    assert sorted(found) == [record_id(0), record_id(1)]


async def test_thousands_are_fetched_and_deleted_by_id(store: Store) -> None:
    await store.create_index(definition("docs", dimension=4))
    step = min(1_000, store.capabilities.max_batch_records)
    for start in range(0, 3_000, step):
        await store.upsert("docs", batch(min(step, 3_000 - start), start=start, dimension=4))
    ids = [record_id(number) for number in range(3_200)]
    assert len(await store.fetch("docs", ids)) == 3_000
    await store.delete("docs", ids[:2_500])
    assert await store.count("docs") == 500
    await store.delete_where("docs", Range("whole", gte=2_600))
    assert sorted(record.id for record in await scrolled(store)) == ids[2_500:2_600]


async def test_an_empty_batch_is_fine(docs: Store) -> None:
    await docs.upsert("docs", RecordBatch([], np.empty((0, DIMENSION), np.float32), [], []))
    assert await docs.count("docs") == 0


def _spoilt(kind: str) -> RecordBatch:
    good = batch(3)
    bad = good.vectors.copy()
    match kind:
        case "wrong dimension":
            return batch(3, dimension=DIMENSION + 1)
        case "nan":
            bad[1, 2] = np.nan
        case "infinity":
            bad[1, 2] = np.inf
        case "zero under cosine":
            bad[1] = 0
        case "nan in metadata":
            return replace(good, metadata=[{}, {"real": math.nan}, {}])
        case "too large an integer":
            return replace(good, metadata=[{}, {"whole": 2**63}, {}])
        case "no unicode":
            return replace(good, metadata=[{}, {"word": "\ud800"}, {}])
        case "a nested object":
            return replace(good, metadata=[{}, {"word": {"a": 1}}, {}])  # type: ignore[dict-item]
        case "an empty id":
            return replace(good, ids=[good.ids[0], "", good.ids[2]])
        case "the same id twice":
            return replace(good, ids=[good.ids[0], good.ids[1], good.ids[1]])
    return replace(good, vectors=bad)


@pytest.mark.parametrize(
    "kind",
    [
        "wrong dimension",
        "nan",
        "infinity",
        "zero under cosine",
        "nan in metadata",
        "too large an integer",
        "no unicode",
        "a nested object",
        "an empty id",
        "the same id twice",
    ],
)
async def test_a_bad_record_is_refused_and_nothing_is_written(docs: Store, kind: str) -> None:
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", _spoilt(kind))
    assert not isinstance(refused.value, BatchTooLarge)
    assert await docs.count("docs") == 0
    await docs.upsert("docs", batch(3))
    assert await docs.count("docs") == 3


async def test_the_declared_dimension_counts_before_the_first_record(docs: Store, open_another: StoreFactory) -> None:
    another = open_another(None)
    with pytest.raises(BatchRejected) as refused:
        await another.upsert("docs", batch(1, dimension=DIMENSION * 2))
    assert str(DIMENSION) in refused.value.message


async def test_a_large_batch_is_written_or_refused_for_its_size(store: Store) -> None:
    await store.create_index(definition("docs", dimension=4))
    await store.probe()
    limit = store.capabilities.max_batch_records
    many = min(limit, 3_000)
    await store.upsert("docs", batch(many, dimension=4))
    assert await store.count("docs") == many
    with pytest.raises(BatchTooLarge):
        await store.upsert("docs", batch(limit + 1, dimension=4))
    assert await store.count("docs") == many


async def test_many_writers_of_the_same_ids_leave_each_id_once(docs: Store, open_another: StoreFactory) -> None:
    stores = [docs, open_another(None)]
    wanted = batch(50)

    async def write(writer: int) -> None:
        order = np.random.default_rng(writer).permutation(50).tolist()
        mine = RecordBatch(
            [wanted.ids[at] for at in order],
            np.ascontiguousarray(wanted.vectors[order]),
            [wanted.metadata[at] for at in order],
            [wanted.texts[at] for at in order],
        )
        await stores[writer % 2].upsert("docs", mine)

    await asyncio.gather(*(write(writer) for writer in range(8)))
    assert await docs.count("docs") == 50
    records = await scrolled(docs)
    assert sorted(record.id for record in records) == sorted(wanted.ids)
    assert {record.id: record.metadata for record in records} == dict(zip(wanted.ids, wanted.metadata, strict=True))


async def test_many_batches_at_once_are_all_written(docs: Store) -> None:
    await asyncio.gather(*(docs.upsert("docs", batch(20, start=20 * part)) for part in range(12)))
    assert await docs.count("docs") == 240


async def test_a_bad_batch_among_many_is_refused_alone(docs: Store) -> None:
    batches = [batch(5, start=5 * part) for part in range(6)]
    batches[3] = replace(batches[3], vectors=vectors(5, DIMENSION + 1))
    results = await asyncio.gather(*(docs.upsert("docs", one) for one in batches), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 3 + [BatchRejected] + [type(None)] * 2
    assert await docs.count("docs") == 25


async def test_writes_are_seen_by_another_connection(docs: Store, open_another: StoreFactory) -> None:
    await docs.upsert("docs", batch(3))
    another = open_another(None)
    assert await another.count("docs") == 3
    assert len(await another.query("docs", vectors(1)[0], 3)) == 3


async def test_deleting_takes_ids_that_do_not_exist(docs: Store) -> None:
    await docs.upsert("docs", batch(4))
    await docs.delete("docs", [record_id(0), record_id(99), record_id(2)])
    assert sorted(record.id for record in await scrolled(docs)) == [record_id(1), record_id(3)]
    await docs.delete("docs", [record_id(0)])
    await docs.delete("docs", [])
    assert await docs.count("docs") == 2


async def test_a_deleted_id_can_be_written_again(docs: Store) -> None:
    await docs.upsert("docs", batch(2, metadata=[{"word": "old", "whole": 1}] * 2))
    await docs.delete("docs", [record_id(0)])
    await docs.upsert("docs", batch(1, metadata=[{"real": 1.5}], texts=[None]))
    (record,) = (await docs.fetch("docs", [record_id(0)])).values()
    assert (record.metadata, record.text) == ({"real": 1.5}, None)


async def test_deleting_by_filter_deletes_what_matches(docs: Store) -> None:
    await docs.upsert("docs", batch(30))
    await docs.delete_where("docs", And((Eq("word", "w1"), Range("whole", lt=20))))
    left = [record.metadata["whole"] for record in await scrolled(docs)]
    assert sorted(map(int, left)) == [n for n in range(30) if n % 3 != 1 or n >= 20]  # type: ignore[arg-type]
    await docs.delete_where("docs", Eq("word", "nobody"))
    await docs.delete_where("docs", Or(()))
    assert await docs.count("docs") == len(left)
    await docs.delete_where("docs", And(()))
    assert await docs.count("docs") == 0


async def test_counts_with_and_without_a_filter(docs: Store) -> None:
    await docs.upsert("docs", batch(30))
    assert await docs.count("docs") == 30
    assert await docs.count("docs", Eq("word", "w0")) == 10
    assert await docs.count("docs", Ne("word", "w0")) == 20
    assert await docs.count("docs", In("whole", (1, 2, 99))) == 2
    assert await docs.count("docs", Or(())) == 0
    assert await docs.count("docs", And(())) == 30
