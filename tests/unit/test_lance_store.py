"""Tables in a directory: what holds whoever writes, whatever is asked, and however the process ended before.

- random histories end in the same records, answers and counts as in memory, over merges of files and restarts
- writers that come together share a commit; the same new ids are never there twice; the last to come wins
- a field that is declared later is filled from what is there; what was written meanwhile is found too
- mark, model and fields are the table's own, in its folder
- an old version is kept while somebody reads it
- what a crash left is cleared away; what cannot be read is refused by name and keeps nothing else from work
- a vector index is built when it is worth it, rebuilt when the table grew, dropped when it is unwanted
- a commit is on the disk before it is acknowledged
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.polling import until

from vectorwright.errors import BatchRejected, Conflict, NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, IndexDefinition, Metadata, OwnershipMark, RecordBatch, Store
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar
from vectorwright.stores.lance import files as lance_files
from vectorwright.stores.lance import index_state as lance_index_state
from vectorwright.stores.lance import reading as lance_reading
from vectorwright.stores.lance import table as lance_table
from vectorwright.stores.lance import upkeep as lance_upkeep
from vectorwright.stores.lance.store import LanceStore, open_lance
from vectorwright.stores.memory import MemoryStore

DIMENSION = 4
FIELDS = (
    FieldDefinition("path", "keyword"),
    FieldDefinition("Path", "keyword"),
    FieldDefinition("whole", "integer"),
    FieldDefinition("real", "float"),
)
LATER = (FieldDefinition("flag", "bool"), FieldDefinition("time", "datetime"))

OpenLance = Callable[[], Awaitable[LanceStore]]


@pytest.fixture
async def open_root(tmp_path: Path) -> AsyncIterator[OpenLance]:
    """Opens the directory of this test; the store that was opened before is closed first."""
    opened: list[LanceStore] = []

    async def open_again() -> LanceStore:
        for store in opened:
            await store.close()
        opened.append(await open_lance(tmp_path / "root", fsync=False))
        return opened[-1]

    yield open_again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_root: OpenLance) -> LanceStore:
    store = await open_root()
    await store.create_index(definition())
    return store


def definition(name: str = "docs", metric: str = "cosine", **changes: Any) -> IndexDefinition:
    return replace(IndexDefinition(name, DIMENSION, metric, fields=FIELDS), **changes)


def batch(*ids: str, metadata: Metadata | None = None, seed: int = 0) -> RecordBatch:
    vectors = np.random.default_rng(seed).standard_normal((len(ids), DIMENSION)).astype(np.float32)
    return RecordBatch(list(ids), vectors, [dict(metadata or {}) for _ in ids], [None for _ in ids])


async def ids_of(store: Store, where: Filter | None = None) -> list[str]:
    return sorted([one.id async for page in store.scroll("docs", where, metadata=False) for one in page])


async def version(store: LanceStore) -> int:
    return int(await store._indexes["docs"]._contents.handle.version())


# --- against the reference -------------------------------------------------------------------------------------------

NAMES = ("path", "Path", "whole", "real", "flag", "time", "free", "vw_source", "vw_n", "odd name")
VALUES: tuple[Scalar | list[str], ...] = (
    *("a", "b", "it's", "", '"q"', "%", "é", "\x00z", "2024-01-01T00:00:00Z"),
    *(0, 1, 2, -5, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)),
    *(0.0, -0.0, 1.0, 1.5, 1e300, -1e-320, True, False),
    *(["a", "b"], ["it's"]),
)
BOUNDS: tuple[Scalar, ...] = (
    *(one for one in VALUES if not isinstance(one, list)),
    *(float("inf"), float("-inf"), 10**30, 0.1),
)


class History:
    """A random history, applied to both stores."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.ids = [f"id{number}'" for number in range(60)]

    def metadata(self) -> Metadata:
        names = self.chance.sample(NAMES, self.chance.randint(0, 6))
        return {name: self.chance.choice(VALUES) for name in names}

    def batch(self) -> RecordBatch:
        ids = self.chance.sample(self.ids, self.chance.randint(1, 12))
        vectors = self.numbers.standard_normal((len(ids), DIMENSION)).astype(np.float32)
        texts = [self.chance.choice([None, "t", "ü"]) for _ in ids]
        return RecordBatch(ids, vectors, [self.metadata() for _ in ids], texts)

    def filter(self, depth: int = 0) -> Filter:
        name = self.chance.choice([*NAMES, "missing"])
        kinds = ["eq", "ne", "in", "range", "exists"] + (["and", "or", "not"] if depth < 3 else [])
        match self.chance.choice(kinds):
            case "eq":
                return Eq(name, self.chance.choice(BOUNDS))
            case "ne":
                return Ne(name, self.chance.choice(BOUNDS))
            case "in":
                return In(name, tuple(self.chance.choices(BOUNDS, k=self.chance.randint(0, 4))))
            case "range":
                numbers = [one for one in BOUNDS if not isinstance(one, bool)]
                signs = self.chance.sample(["gt", "gte", "lt", "lte"], self.chance.randint(1, 2))
                return Range(name, **{sign: self.chance.choice(numbers) for sign in signs})
            case "exists":
                return Exists(name)
            case "and":
                return And(tuple(self.filter(depth + 1) for _ in range(self.chance.randint(0, 3))))
            case "or":
                return Or(tuple(self.filter(depth + 1) for _ in range(self.chance.randint(0, 3))))
            case _:
                return Not(self.filter(depth + 1))


async def change(history: History, stores: tuple[Store, Store], step: int) -> None:
    chance = history.chance
    match chance.choices(["write", "delete", "where", "mark", "fields"], [40, 10, 5, 3, 2])[0]:
        case "write":
            batches = [history.batch() for _ in range(chance.randint(1, 3))]
            for store in stores:
                await asyncio.gather(*(store.upsert("docs", one) for one in batches))
        case "delete":
            ids = chance.sample(history.ids, chance.randint(1, 5))
            for store in stores:
                await store.delete("docs", ids)
        case "where":
            where = history.filter()
            for store in stores:
                await store.delete_where("docs", where)
        case "mark":
            for store in stores:
                await store.set_mark("docs", OwnershipMark("a", "b", str(step)), f"fp-{step}")
        case _:
            for store in stores:
                await store.update_index("docs", {}, LATER)


async def compare(history: History, lance: Store, memory: Store) -> None:
    where = history.filter()
    assert await lance.count("docs", where) == await memory.count("docs", where), where
    asked, top_k = history.numbers.standard_normal(DIMENSION).astype(np.float32), history.chance.randint(1, 20)
    found = await lance.query("docs", asked, top_k, where, vectors=True)
    expected = await memory.query("docs", asked, top_k, where, vectors=True)
    assert [one.record.id for one in found] == [one.record.id for one in expected], where
    np.testing.assert_allclose([one.score for one in found], [one.score for one in expected], atol=1e-5)
    for one, other in zip(found, expected, strict=True):
        assert repr(one.record.metadata) == repr(other.record.metadata)
        assert one.record.text == other.record.text
        np.testing.assert_array_equal(one.record.vector, other.record.vector)
    assert await ids_of(lance, where) == await ids_of(memory, where)
    assert await lance.fetch("docs", history.ids[:9]) == await memory.fetch("docs", history.ids[:9])


@pytest.mark.parametrize(("seed", "metric"), [(1, "cosine"), (2, "dotproduct"), (3, "euclidean"), (4, "cosine")])
async def test_a_random_history_ends_as_in_memory(
    open_root: OpenLance, monkeypatch: pytest.MonkeyPatch, seed: int, metric: str
) -> None:
    monkeypatch.setattr(lance_upkeep, "MIN_COMMITS", 5)  # files are merged now and then
    history = History(seed)
    lance, memory = await open_root(), MemoryStore()
    for store in (lance, memory):
        await store.create_index(definition(metric=metric))
    for step in range(120):
        if step % 40 == 39:
            lance = await open_root()
        await change(history, (lance, memory), step)
        if step % 2:
            await compare(history, lance, memory)
        (one,), (other,) = await lance.list_indexes(), await memory.list_indexes()
        assert (one.count, one.mark, one.model_fingerprint) == (other.count, other.mark, other.model_fingerprint)
        assert one.fields == other.fields


# --- one committer ---------------------------------------------------------------------------------------------------


async def test_writers_that_come_together_share_a_commit(store: LanceStore) -> None:
    before = await version(store)
    await asyncio.gather(*(store.upsert("docs", batch(f"{writer}")) for writer in range(40)))
    assert await store.count("docs") == 40
    assert await version(store) - before == 1
    first = asyncio.create_task(store.upsert("docs", batch("first")))
    await asyncio.sleep(0.001)
    await asyncio.gather(first, *(store.upsert("docs", batch(f"later {writer}")) for writer in range(40)))
    assert await version(store) - before == 3  # the first alone, then all who came while it was written


async def test_the_same_new_ids_from_many_writers_are_there_once(store: LanceStore) -> None:
    ids = [f"id{number}" for number in range(50)]
    await asyncio.gather(*(store.upsert("docs", batch(*ids, metadata={"whole": writer})) for writer in range(8)))
    assert await store.count("docs") == 50
    assert await ids_of(store) == sorted(ids)
    assert await store.count("docs", Eq("whole", 7)) == 50  # the last that came


async def test_changes_are_made_in_the_order_in_which_they_came(store: LanceStore) -> None:
    calls = [
        store.upsert("docs", batch("a", "b")),
        store.delete("docs", ["a"]),
        store.upsert("docs", batch("a", metadata={"path": "second"})),
        store.delete_where("docs", Not(Exists("path"))),
        store.upsert("docs", batch("c")),
    ]
    await asyncio.gather(*calls)
    assert await ids_of(store) == ["a", "c"]


async def test_a_bad_batch_is_refused_alone(store: LanceStore) -> None:
    bad = batch("bad")
    bad.vectors[0, 0] = np.nan
    writes = [batch("a"), bad, batch("b")]
    results = await asyncio.gather(*(store.upsert("docs", one) for one in writes), return_exceptions=True)
    assert [type(one) for one in results] == [type(None), BatchRejected, type(None)]
    assert await ids_of(store) == ["a", "b"]


async def test_a_writer_who_does_not_wait_is_written_all_the_same(store: LanceStore) -> None:
    first = asyncio.create_task(store.upsert("docs", batch("a")))
    second = asyncio.create_task(store.upsert("docs", batch("b")))
    await asyncio.sleep(0)
    second.cancel()
    await first
    with suppress(asyncio.CancelledError):
        await second
    await store.upsert("docs", batch("c"))
    assert await ids_of(store) == ["a", "b", "c"]


async def test_a_failed_commit_fails_its_writers_and_leaves_no_doubles(
    store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = store._indexes["docs"]._contents.handle
    add = handle.add
    written = asyncio.Event()

    async def add_and_fail(rows: Any) -> None:
        await add(rows)
        written.set()
        raise RuntimeError("the answer to the commit was lost")

    monkeypatch.setattr(handle, "add", add_and_fail)
    with pytest.raises(Retryable) as failed:
        await store.upsert("docs", batch("a"))
    assert failed.value.reason == "StoreFailed"
    assert "lost" not in failed.value.message
    monkeypatch.undo()
    assert written.is_set()
    await store.upsert("docs", batch("a", "b"))
    assert await ids_of(store) == ["a", "b"]
    assert (await store.list_indexes())[0].count == 2


# --- fields declared later -------------------------------------------------------------------------------------------


async def test_a_field_declared_later_is_filled(store: LanceStore) -> None:
    await store.upsert("docs", batch("a", metadata={"flag": True}))
    await store.upsert("docs", batch("b", metadata={"flag": "no boolean"}))
    await store.upsert("docs", batch("c"))
    await store.update_index("docs", {}, LATER)
    handle = store._indexes["docs"]._contents.handle
    assert await handle.count_rows("f_flag = true") == 1
    assert await ids_of(store, Eq("flag", True)) == ["a"]
    assert await ids_of(store, Eq("flag", "no boolean")) == ["b"]
    assert await ids_of(store, Not(Exists("flag"))) == ["c"]
    assert (await store.describe_index("docs")).fields == (*FIELDS, *LATER)


async def test_what_is_written_while_a_field_is_declared_is_found(store: LanceStore) -> None:
    await asyncio.gather(
        store.update_index("docs", {}, LATER),
        *(store.upsert("docs", batch(f"{number}", metadata={"flag": bool(number % 2)})) for number in range(10)),
    )
    assert await ids_of(store, Eq("flag", True)) == ["1", "3", "5", "7", "9"]


async def test_another_type_for_a_declared_field_is_refused(store: LanceStore) -> None:
    with pytest.raises(Terminal) as refused:
        await store.update_index("docs", {}, [FieldDefinition("whole", "keyword")])
    assert refused.value.reason == "InvalidField"
    await store.update_index("docs", {}, [FieldDefinition("whole", "integer")])


# --- filters beyond SQL ----------------------------------------------------------------------------------------------


async def test_the_nearest_of_a_filter_beyond_sql_are_found_far_away(
    store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_reading, "_FIRST_GUESS", 4)
    vectors = np.ones((200, DIMENSION), np.float32)
    vectors[:, 0] = np.arange(200)
    metadata: list[Metadata] = [{"undeclared": "far"} if number >= 190 else {} for number in range(200)]
    ids = [f"{number:03}" for number in range(200)]
    await store.create_index(definition("lengths", "euclidean"))
    await store.upsert("lengths", RecordBatch(ids, vectors, metadata, [None] * 200))
    found = await store.query("lengths", vectors[0], 3, Eq("undeclared", "far"))
    assert [one.record.id for one in found] == ["190", "191", "192"]


async def test_a_filter_that_is_too_large_for_sql_is_answered(store: LanceStore) -> None:
    await store.upsert("docs", batch("a", metadata={"whole": 3}))
    deep: Filter = Eq("whole", 3)
    for _ in range(40):
        deep = Not(deep)
    wide = Or(tuple(Eq("whole", number) for number in range(2000)))
    assert await ids_of(store, deep) == ["a"]
    assert await ids_of(store, wide) == ["a"]


# --- folders, crashes ------------------------------------------------------------------------------------------------


async def test_mark_model_and_fields_survive_everything(open_root: OpenLance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lance_upkeep, "MIN_COMMITS", 3)
    store = await open_root()
    mark = OwnershipMark("install", "team", "docs")
    made = await store.create_index(definition(mark=mark, model_fingerprint="fp", settings={"num_partitions": 3}))
    for number in range(12):
        await store.upsert("docs", batch("same", f"{number}"))
        await store.delete("docs", [f"{number}"])
    await store.update_index("docs", {}, LATER)
    seen = await (await open_root()).describe_index("docs")
    assert seen == replace(made, count=1, fields=(*FIELDS, *LATER))


async def test_old_versions_go_but_not_under_a_reader(store: LanceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.upsert("docs", batch(*(f"{number:04}" for number in range(3000))))
    monkeypatch.setattr(lance_upkeep, "MIN_COMMITS", 2)
    pages = store.scroll("docs", page=100, vectors=True)
    seen = [one.id for one in await anext(pages)]
    for _ in range(4):
        await store.upsert("docs", batch(*(f"{number:04}" for number in range(3000)), seed=1))
        await asyncio.sleep(0.7)  # a version goes when it is a second old
    files = len(list((store._root / "docs.lance" / "data").iterdir()))
    async for page in pages:
        seen += [one.id for one in page]
    assert sorted(seen) == [f"{number:04}" for number in range(3000)]
    await asyncio.sleep(1.1)
    for _ in range(2):
        await store.upsert("docs", batch(*(f"{number:04}" for number in range(3000)), seed=2))
    assert len(list((store._root / "docs.lance" / "data").iterdir())) < files
    assert await store.count("docs") == 3000


async def test_the_remains_of_a_crash_are_cleared_away(open_root: OpenLance, tmp_path: Path) -> None:
    store = await open_root()
    await store.create_index(definition())
    await store.upsert("docs", batch("a"))
    await store.close()
    root = tmp_path / "root"
    shutil.copytree(root / "docs.lance", root / f"{lance_files.TRASH}half-dropped")
    (root / "half-made.lance" / "data").mkdir(parents=True)
    (root / "half-made.lance" / "_versions").mkdir()
    store = await open_root()
    assert [one.name for one in await store.list_indexes()] == ["docs"]
    assert sorted(path.name for path in root.iterdir()) == ["backend-id", "docs.lance"]
    await store.create_index(definition("half-made"))


async def test_what_cannot_be_read_keeps_nothing_else_from_work(open_root: OpenLance, tmp_path: Path) -> None:
    store = await open_root()
    for name in ("broken", "docs"):
        await store.create_index(definition(name))
        await store.upsert(name, batch("a"))
    await store.close()
    for manifest in (tmp_path / "root" / "broken.lance" / "_versions").glob("*.manifest"):
        manifest.write_bytes(b"torn")
    store = await open_root()
    broken, docs = await store.list_indexes()
    assert (broken.name, broken.dimension, broken.count, docs.count) == ("broken", None, None, 1)
    for call in (store.describe_index("broken"), store.upsert("broken", batch("b")), store.delete_index("broken")):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "UnreadableIndex"
        assert "broken" in refused.value.message
    with pytest.raises(Conflict):
        await store.create_index(definition("broken"))
    await store.upsert("docs", batch("b"))


async def test_somebody_elses_table_is_listed_and_left_alone(open_root: OpenLance, tmp_path: Path) -> None:
    store = await open_root()
    await store._database.create_table("theirs", [{"x": 1}])
    store = await open_root()
    (theirs,) = await store.list_indexes()
    assert (theirs.name, theirs.mark, theirs.dimension) == ("theirs", None, None)
    with pytest.raises(Terminal, match="not made by Vectorwright"):
        await store.delete_index("theirs")
    assert (tmp_path / "root" / "theirs.lance").is_dir()


async def test_the_directory_keeps_its_identity(open_root: OpenLance) -> None:
    first = (await (await open_root()).probe()).backend_id
    assert (await (await open_root()).probe()).backend_id == first


async def test_a_dropped_index_is_gone_for_those_who_wait(store: LanceStore) -> None:
    await store.upsert("docs", batch("a"))
    drop = asyncio.create_task(store.delete_index("docs"))
    late = asyncio.create_task(store.upsert("docs", batch("b")))
    await drop
    with pytest.raises(NotFound):
        await late
    assert not (store._root / "docs.lance").exists()
    with pytest.raises(NotFound):
        await store.count("docs")
    await store.create_index(definition())
    assert await store.count("docs") == 0


async def test_names_do_not_lead_out_of_the_directory(store: LanceStore, tmp_path: Path) -> None:
    before = await asyncio.to_thread(lambda: set(tmp_path.rglob("*")))
    for name in ("../x", "a/b", ".lock", "..", "a..b", "", "x" * 200, "a\x00"):
        with pytest.raises(Terminal) as refused:
            await store.create_index(definition(name))
        assert refused.value.reason == "InvalidName"
    assert await asyncio.to_thread(lambda: set(tmp_path.rglob("*"))) == before


async def test_closing_finishes_what_was_accepted(open_root: OpenLance) -> None:
    store = await open_root()
    await store.create_index(definition())
    writes = [asyncio.create_task(store.upsert("docs", batch(f"{number}"))) for number in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    assert await (await open_root()).count("docs") == 20


# --- vector indexes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ivfPq", "ivfHnswSq"])
async def test_a_vector_index_is_built_grows_and_goes(
    open_root: OpenLance, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for module in (lance_index_state, lance_upkeep):
        monkeypatch.setattr(module, "MIN_INDEXED_ROWS", 300)
    monkeypatch.setattr(lance_table, "IDLE_AFTER", 0.05)
    store = await open_root()
    dimension = 16
    made = await store.create_index(IndexDefinition("docs", dimension, "cosine", settings={"index_type": kind}))
    assert made.settings == {"index_type": kind, "index_state": "exact until 300 vectors"}
    vectors = np.random.default_rng(3).standard_normal((2000, dimension)).astype(np.float32)

    async def write(start: int, stop: int) -> None:
        ids = [f"{number}" for number in range(start, stop)]
        blank: list[Metadata] = [{"vw_n": number % 10} for number in range(start, stop)]
        await store.upsert("docs", RecordBatch(ids, vectors[start:stop], blank, [None] * len(ids)))

    await write(0, 200)
    assert (await store.describe_index("docs")).settings["index_state"] == "exact until 300 vectors"
    await write(200, 400)
    table = store._indexes["docs"]
    await until(lambda: table.describe().settings["index_state"] == "built", 60, 0.02)
    first = table._contents.indexes
    await write(400, 2000)
    await until(lambda: table._contents.indexes != first, 60, 0.02)
    assert len(store._indexes["docs"]._contents.indexes) == 1
    for number in range(34, 2000, 100):
        (nearest,) = await store.query("docs", vectors[number], 1)
        assert nearest.record.id == f"{number}"
    found = await store.query("docs", vectors[7], 5, Eq("vw_n", 3))
    assert len(found) == 5
    assert all(one.record.metadata["vw_n"] == 3 for one in found)
    await store.delete("docs", ["1234"])
    (nearest,) = await store.query("docs", vectors[1234], 1)
    assert nearest.record.id != "1234"
    store = await open_root()
    assert (await store.describe_index("docs")).settings["index_state"] == "built"
    await store.update_index("docs", {"index_type": "none"})
    assert (await store.describe_index("docs")).settings == {"index_type": "none", "index_state": "exact"}
    await until(lambda: not store._indexes["docs"]._contents.indexes, 60, 0.02)


@pytest.mark.parametrize("settings", [{"index_type": "hnsw"}, {"num_partitions": 0}, {"num_partitions": True}])
async def test_wrong_settings_are_refused(store: LanceStore, settings: dict[str, Any]) -> None:
    for call in (store.update_index("docs", settings), store.create_index(definition("other", settings=settings))):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "InvalidSetting"
    assert len(await store.list_indexes()) == 1


# --- the disk --------------------------------------------------------------------------------------------------------


async def test_a_commit_is_flushed_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[Path] = set()
    flush = lance_files.fsync_path

    def recording(path: Path) -> None:
        flush(path)
        flushed.add(path)

    monkeypatch.setattr(lance_files, "fsync_path", recording)
    async with await open_lance(tmp_path / "root") as store:
        table = store._root / "docs.lance"
        await store.create_index(definition())
        steps: list[Callable[[], Awaitable[None]]] = [
            lambda: store.upsert("docs", batch("a", "b")),
            lambda: store.upsert("docs", batch("b", "c")),
            lambda: store.delete("docs", ["a"]),
            lambda: store.set_mark("docs", None, "fp"),
        ]
        for step in steps:
            flushed.clear()
            before = set(table.rglob("*"))
            await step()
            new = {path for path in table.rglob("*") if path.is_file()} - before
            assert any(path.suffix == ".manifest" for path in new)
            assert new | {path.parent for path in new} <= flushed
