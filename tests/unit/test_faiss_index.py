"""A FAISS index at work, without a server.

- columns and records agree with the meaning of filters, whatever is written, replaced and removed
- an inverted file is built when there are enough vectors, finds what exact search finds, and follows every change
- with a filter, everything that matches is compared
- changes, searches, snapshots and training go on side by side, and none sees half of another
- what was written comes back bit by bit, also where a copy of another length is compared
- a snapshot is readable by FAISS itself and as JSON lines
- memory is bounded, and given back after removals
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.faiss import batch_of, docs, finds_all, held, opened

from vectorwright.errors import NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, Metadata, RecordBatch, Vectors
from vectorwright.stores.faiss.budget import MemoryBudget, default_limit
from vectorwright.stores.faiss.columns import Column, select
from vectorwright.stores.faiss.files import Files
from vectorwright.stores.faiss.store import FaissStore, open_faiss
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, matches

values = st.one_of(
    st.sampled_from(("a", "b", "", "ü")),
    st.integers(-3, 3),
    st.sampled_from((0.0, -0.0, 1.0, 2.5, -2.5, 2**53, 2**53 + 1, float(2**53))),
    st.booleans(),
)
stored = st.one_of(values, st.lists(st.sampled_from(("a", "b", "ü")), max_size=3))
fields = st.sampled_from(("one", "two", "undeclared"))
bounds = st.one_of(st.integers(-3, 3), st.sampled_from((0.5, -2.5, float(2**53))), st.sampled_from(("a", "b")))
signs = st.sampled_from(("gt", "gte", "lt", "lte"))
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Eq, fields, values),
    st.builds(Ne, fields, values),
    st.builds(In, fields, st.lists(values, max_size=4).map(tuple)),
    st.builds(
        lambda name, limits: Range(name, **limits), fields, st.dictionaries(signs, bounds, min_size=1, max_size=2)
    ),
    st.builds(Exists, fields),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
records = st.dictionaries(fields, stored, max_size=3)


@given(st.lists(records, min_size=1, max_size=12), st.lists(st.tuples(st.integers(0, 11), records)), filters)
@settings(max_examples=400, deadline=None)
def test_columns_say_what_filters_mean(
    first: list[Metadata], changes: list[tuple[int, Metadata]], where: Filter
) -> None:
    columns = {name: Column(name) for name in ("one", "two")}
    present = list(first)
    for column in columns.values():
        column.reserve(len(present))
    for slot, metadata in (*enumerate(first), *((at % len(first), one) for at, one in changes)):
        present[slot] = metadata
        for name, column in columns.items():
            column.set(slot, metadata.get(name))
    among = np.arange(len(present)) % 5 != 4
    for column in columns.values():
        column.tidy(0)
    found = select(where, among, columns, lambda slot, _: present[slot])
    assert found.tolist() == [bool(among[slot]) and matches(where, one) for slot, one in enumerate(present)]


def test_a_column_forgets_values_that_nobody_has() -> None:
    column = Column("n")
    column.reserve(10)
    for value in range(5000):
        column.set(value % 10, value)
    column.tidy(10)
    assert column.nbytes < 5000
    assert column.matching(Eq("n", 4993), 10).tolist() == [slot == 3 for slot in range(10)]
    assert not column.matching(Eq("n", 17), 10).any()


# --- inverted files --------------------------------------------------------------------------------------------------

WIDE = 24


def clustered(count: int, seed: int) -> Vectors:
    """Vectors around 40 centres, of different lengths."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((40, WIDE))
    drawn = centres[chance.integers(0, 40, count)] + 0.3 * chance.standard_normal((count, WIDE))
    return np.ascontiguousarray(drawn * chance.uniform(0.5, 2, (count, 1)), np.float32)


def records_of(vectors: Vectors, start: int = 0) -> RecordBatch:
    numbers = range(start, start + len(vectors))
    return RecordBatch(
        [f"id-{at}" for at in numbers],
        vectors,
        [{"number": at, "rare": at % 500 == 0} for at in numbers],
        [None for _ in numbers],
    )


def nearest(vectors: dict[str, Vectors], asked: Vectors, metric: str, count: int) -> list[str]:
    names, matrix = list(vectors), np.stack(list(vectors.values())).astype(np.float64)
    match metric:
        case "cosine":
            scores = matrix @ asked / np.linalg.norm(matrix, axis=1)
        case "dotproduct":
            scores = matrix @ asked
        case _:
            scores = -np.linalg.norm(matrix - asked, axis=1)
    return [names[at] for at in np.argsort(-scores)[:count]]


@pytest.mark.parametrize("metric", ["cosine", "dotproduct", "euclidean"])
async def test_an_inverted_file_finds_and_follows(tmp_path: Path, metric: str) -> None:
    everything = {f"id-{at}": one for at, one in enumerate(clustered(3000, 1))}
    async with opened(tmp_path) as store:
        await store.create_index(replace(docs(metric, WIDE, ivf_lists=16), fields=(FieldDefinition("rare", "bool"),)))
        await store.upsert("docs", records_of(clustered(3000, 1)[:500]))
        assert str((await store.statistics("docs")).details["index_state"]).startswith(
            "exact, ivf of 16 lists from 624"
        )
        await store.upsert("docs", records_of(clustered(3000, 1)[500:], 500))
        await store.settled()
        assert (await store.statistics("docs")).details["index_state"] == "ivf of 16 lists"
        replaced, removed = clustered(400, 2), [f"id-{at}" for at in range(1000, 1300)]
        await store.upsert("docs", records_of(replaced, 700))
        await store.delete("docs", removed)
        everything |= {f"id-{700 + at}": one for at, one in enumerate(replaced)}
        everything = {name: one for name, one in everything.items() if name not in removed}
        assert await store.count("docs") == len(everything)
        await agrees(store, everything, metric)
    async with opened(tmp_path) as store:
        await store.settled()
        await agrees(store, everything, metric)
        await store.update_index("docs", {"ivf.lists": 4, "ivf.probes": 4})
        await store.settled()
        assert (await store.statistics("docs")).details["index_state"] == "ivf of 4 lists"
        for asked in clustered(10, 4):  # all lists are looked into
            found = [match.record.id for match in await store.query("docs", asked, 10)]
            assert found == nearest(everything, asked, metric, 10)


async def agrees(store: FaissStore, everything: dict[str, Vectors], metric: str) -> None:
    hits = 0
    for asked in clustered(30, 3):
        matches = await store.query("docs", asked, 10, vectors=True)
        hits += len({match.record.id for match in matches} & set(nearest(everything, asked, metric, 10)))
        for match in matches:
            np.testing.assert_array_equal(match.record.vector, everything[match.record.id])
        rare = {name: one for name, one in everything.items() if int(name.removeprefix("id-")) % 500 == 0}
        found = [match.record.id for match in await store.query("docs", asked, 100, Eq("rare", True))]
        assert found == nearest(rare, asked, metric, 100)
    assert hits >= 0.95 * 300
    assert len(await store.query("docs", clustered(1, 5)[0], 2000)) == 2000


@pytest.mark.parametrize("name", ["ivf.lists", "ivf.probes"])
@pytest.mark.parametrize("value", [0, -1, 65_537, 2.0, "4", True])
async def test_settings_without_sense_are_refused(tmp_path: Path, name: str, value: object) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(Terminal) as refused:
            await store.create_index(replace(docs(), settings={name: value}))  # type: ignore[dict-item]
        assert refused.value.reason == "InvalidSetting"
        with pytest.raises(Terminal) as refused:
            await store.create_index(replace(docs(), settings={"hnsw.m": 16}))
        assert "cannot remove" in refused.value.message
        assert await store.list_indexes() == []


# --- side by side ----------------------------------------------------------------------------------------------------


async def test_everything_at_once_and_nobody_sees_half(tmp_path: Path) -> None:
    """Groups of records are always of one value, whoever looks; what is there after a restart is the newest."""
    groups, size = 6, 40
    newest = dict.fromkeys(range(groups), 0)
    async with opened(tmp_path, min_log=20_000) as store:
        await store.create_index(docs(ivf_lists=4))

        async def write(group: int) -> None:
            ids = [f"{group}-{at}" for at in range(size)]
            for value in range(1, 25):
                if value % 9 == 0:
                    await store.delete("docs", ids)
                await store.upsert("docs", batch_of(ids, value))
                newest[group] = value

        async def read(group: int) -> None:
            ids = [f"{group}-{at}" for at in range(size)]
            while newest[group] < 24:
                before = newest[group]
                found = await store.fetch("docs", ids, vectors=True)
                seen = {int(str(one.metadata["value"])) for one in found.values()}
                assert (len(found), len(seen)) in ((size, 1), (0, 0))
                assert not seen or min(seen) >= before
                await store.query("docs", batch_of(ids, before).vectors[0], 5, Ne("word", "w1"))
                assert sum([len(page) async for page in store.scroll("docs", page=50)]) <= groups * size

        await asyncio.gather(*(write(group) for group in range(groups)), *(read(group) for group in range(groups)))
        await store.settled()
        expected = {f"{group}-{at}": 24 for group in range(groups) for at in range(size)}
        assert await held(store) == expected
        assert (await store.statistics("docs")).details["index_state"] == "ivf of 4 lists"
        await finds_all(store, expected)
    assert list((tmp_path / "docs.faiss").glob("snapshot-*"))
    async with opened(tmp_path) as store:
        assert await held(store) == expected
        await finds_all(store, expected)


async def test_writes_that_wait_share_a_flush(tmp_path: Path) -> None:
    class Counting(Files):
        flushes = 0
        pause = 0.0

        def flush(self, descriptor: int) -> None:
            self.flushes += 1
            time.sleep(self.pause)  # so that the others are waiting by then
            super().flush(descriptor)

    files = Counting()
    async with opened(tmp_path, files) as store:
        await store.create_index(docs())
        files.flushes, files.pause = 0, 0.1
        await asyncio.gather(*(store.upsert("docs", batch_of([f"id-{at}"], at)) for at in range(100)))
        assert files.flushes < 40
        assert len(await held(store)) == 100


async def test_an_index_is_dropped_in_the_middle_of_writes(tmp_path: Path) -> None:
    async with opened(tmp_path, min_log=10_000) as store:
        await store.create_index(docs())
        writes = [asyncio.create_task(store.upsert("docs", batch_of([f"{at}"], at))) for at in range(200)]
        await asyncio.sleep(0.01)
        await store.delete_index("docs")
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert all(result is None or isinstance(result, NotFound | Retryable) for result in results)
        await store.create_index(docs())
        assert await store.count("docs") == 0
    assert names(tmp_path) == ["docs.faiss", "faiss-id"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- files and memory ------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_readable_by_others(tmp_path: Path) -> None:
    ids = [f"id-{at}" for at in range(300)]
    async with opened(tmp_path) as store:
        await store.create_index(docs(ivf_lists=2))
        await store.upsert("docs", batch_of(ids, 3))
        await store.delete("docs", ids[:10])
    async with opened(tmp_path, min_log=1) as store:
        await store.settled()
    (snapshot,) = (tmp_path / "docs.faiss").glob("snapshot-*")
    index = faiss.read_index(str(snapshot / "vectors.faiss"))
    lines = [orjson.loads(line) for line in (snapshot / "records.jsonl").read_bytes().splitlines()]
    assert index.ntotal == len(lines) == 290
    for at, line in enumerate(lines):
        assert line["n"] == at
        expected = batch_of([line["id"]], 3)
        assert (line["metadata"], line["text"]) == (expected.metadata[0], expected.texts[0])
        np.testing.assert_array_equal(index.reconstruct(at), expected.vectors[0])
    assert faiss.read_index(str(snapshot / "ivf.faiss")).is_trained


@pytest.mark.parametrize("metric", ["cosine", "dotproduct", "euclidean"])
async def test_vectors_come_back_bit_by_bit(tmp_path: Path, metric: str) -> None:
    vectors = clustered(50, 1)
    vectors[1] *= np.float32(1e18)
    vectors[2] *= np.float32(1e-18)
    vectors[3] /= np.linalg.norm(vectors[3])
    for _ in range(2):
        async with opened(tmp_path, min_log=1) as store:
            if not await store.list_indexes():
                await store.create_index(docs(metric, WIDE))
                await store.upsert("docs", records_of(vectors))
                await store.settled()
            found = await store.fetch("docs", [f"id-{at}" for at in range(50)], vectors=True)
            for at, one in enumerate(vectors):
                assert found[f"id-{at}"].vector.tobytes() == one.tobytes()  # type: ignore[union-attr]


async def test_memory_is_bounded_and_given_back(tmp_path: Path) -> None:
    store = await open_faiss(tmp_path, files=Files(fsync=False), budget=MemoryBudget(2_000_000))
    await store.create_index(docs("euclidean", WIDE))

    async def fill() -> None:
        for start in range(0, 20_000, 500):
            await store.upsert("docs", records_of(clustered(500, start), start))

    with pytest.raises(Terminal) as refused:
        await fill()
    kept = await store.count("docs")
    assert refused.value.reason == "StoreFull"
    assert "--faiss-memory" in refused.value.message
    assert 1000 < kept < 4000
    await store.delete_where("docs", Range("number", gte=100))
    await store.upsert("docs", records_of(clustered(500, 9), 5000))
    assert await store.count("docs") == 600
    assert {match.record.id for match in await store.query("docs", clustered(1, 3)[0], 600)} == {
        f"id-{at}" for at in (*range(100), *range(5000, 5500))
    }
    await store.close()
    assert default_limit() > 2**20
