"""Export to parquet and import from it, over real files.

What is checked: any record comes back exactly; the file tells what its vectors are, and other vectors are refused; it
appears whole or not at all; row groups are bounded; what is no such file is refused in words; a second import writes
nothing, and what a store cannot hold is named.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.copying import SOURCE, TARGET, Pair, all_of, described, put, record, some
from tests.support.ingest import ScriptedStore, quick

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.copying import record_writer
from vectorwright.ingest.copying.export import export_index
from vectorwright.ingest.copying.record_reader import FileOrigin
from vectorwright.ingest.copying.record_writer import RecordFileWriter
from vectorwright.ingest.copying.run import CopyRun
from vectorwright.ingest.identity import foreign_id
from vectorwright.ingest.record_files import FileHead
from vectorwright.ingest.runspec import RunState
from vectorwright.stores.base import IndexDefinition, Record
from vectorwright.stores.memory import MEMORY_CAPABILITIES, MemoryStore

HEAD = FileHead(8, "cosine", "print-1", "docs", "2026-01-02T03:04:05Z")
UUIDS = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def filled(records: list[Record], metric: str = "cosine") -> MemoryStore:
    store = MemoryStore()
    await store.create_index(IndexDefinition(SOURCE, 8, metric, model_fingerprint="print-1"))
    if records:
        await put(store, SOURCE, records)
    return store


async def imported(path: Path, store: MemoryStore | None = None, **overrides: Any) -> tuple[RunState, MemoryStore]:
    """The state of an import into an index, which is made where no store is given."""
    store = store or MemoryStore()
    if not await store.list_indexes():
        await store.create_index(IndexDefinition(TARGET, 8, "cosine", model_fingerprint="print-1"))
    found = await store.describe_index(TARGET)
    pair = Pair(store, store, "", found.incarnation, metric=found.metric or "")
    spec = pair.spec(**overrides).model_copy(update={"source_store": None})
    run = CopyRun(spec, store=store, origin=FileOrigin(path), retrier=quick(), looks=quick())
    return await run.execute(), store


# -- there and back --
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES = (
    TEXTS
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.lists(TEXTS, min_size=1, max_size=3)
)
RECORDS = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
        st.dictionaries(TEXTS.filter(bool), VALUES, max_size=5),
        st.none() | TEXTS,
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=8, max_size=8).filter(any),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda drawn: drawn[0],
)


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_any_record_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    records = [
        Record(record_id, metadata, text, np.array(vector, np.float32)) for record_id, metadata, text, vector in drawn
    ]
    path = tmp_path_factory.mktemp("file") / "records.parquet"
    with RecordFileWriter(path, HEAD) as writer:
        writer.write(records)

    async def read() -> list[Record]:
        return [one async for page in FileOrigin(path).pages(5) for one in page]

    assert described(asyncio.run(read())) == described(records)


async def test_an_index_is_exported_and_imported_as_it_is(tmp_path: Path) -> None:
    records = [*some(300), record("lists", 901, {"words": ["a", ""]}), record("reserved", 902, {"vw_source": "x"}, "")]
    store, path = await filled(records), tmp_path / "docs.parquet"
    told: list[int] = []
    assert await export_index(store, SOURCE, path, told=told.append) == 302
    assert told[-1] == 302
    state, target = await imported(path)
    assert (state.phase, state.verification, state.counts.vectors_written) == (Phase.SUCCEEDED, "Exact", 302)
    assert described((await all_of(target, TARGET)).values()) == described(records)
    again, _ = await imported(path, target)
    assert (again.counts.vectors_written, again.counts.documents_unchanged) == (0, 302)


async def test_an_index_without_records_gives_a_file_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    assert await export_index(await filled([]), SOURCE, path) == 0
    assert pq.ParquetFile(path).metadata.num_rows == 0
    assert (await imported(path))[0].reason == "EmptySource"


# -- the file --
async def test_the_file_has_the_columns_and_tells_what_its_vectors_are(tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    await export_index(await filled(some(3)), SOURCE, path)
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        assert [(field.name, str(field.type)) for field in schema] == [
            ("id", "string"),
            ("vector", "fixed_size_list<element: float>[8]"),
            ("text", "string"),
            ("metadata", "string"),
        ]
        told = {name.decode(): value.decode() for name, value in schema.metadata.items() if b"vectorwright" in name}
    assert told.pop("vectorwright.exported_at").endswith("Z")
    assert told == {
        "vectorwright.format": "1", "vectorwright.dimension": "8", "vectorwright.metric": "cosine",
        "vectorwright.model_fingerprint": "print-1", "vectorwright.index": "docs",
    }  # fmt: skip


async def test_rows_are_written_in_groups_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_writer, "_GROUP_BYTES", 20_000)
    path = tmp_path / "docs.parquet"
    await export_index(await filled(some(3000)), SOURCE, path)
    with pq.ParquetFile(path) as file:
        assert file.metadata.num_rows == 3000
        assert file.num_row_groups == 3


async def test_a_broken_export_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = await filled(some(10)), tmp_path / "docs.parquet"
    path.write_bytes(b"before")
    whole = store.scroll

    async def broken(name: str, *args: Any, **options: Any) -> Any:
        async for page in whole(name, *args, **options):
            yield page
            raise Retryable("gone")

    monkeypatch.setattr(store, "scroll", broken)
    with pytest.raises(Retryable):
        await export_index(store, SOURCE, path)
    assert (path.read_bytes(), names(tmp_path)) == (b"before", ["docs.parquet"])


async def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="cannot be written: No such file") as caught:
        await export_index(await filled(some(1)), SOURCE, tmp_path / "absent" / "docs.parquet")
    assert caught.value.reason == "FileNotWritable"


def test_what_json_cannot_hold_is_refused_and_named(tmp_path: Path) -> None:
    odd = record("a", 1, {"odd": float("nan")})
    with (
        pytest.raises(Terminal, match="record 'a': its metadata field 'odd' is nan"),
        RecordFileWriter(tmp_path / "f.parquet", HEAD) as writer,
    ):
        writer.write([odd])
    assert names(tmp_path) == []


# -- refused --
@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (replace(HEAD, metric="dotproduct"), "WrongMetric"),
        (replace(HEAD, model_fingerprint="another"), "ModelMismatch"),
        (replace(HEAD, dimension=4), "WrongDimension"),
    ],
    ids=["metric", "model", "dimension"],
)
async def test_vectors_of_another_space_are_refused(tmp_path: Path, head: FileHead, reason: str) -> None:
    path = tmp_path / "f.parquet"
    with RecordFileWriter(path, head) as writer:
        writer.write([replace(one, vector=one.vector[: head.dimension]) for one in some(2) if one.vector is not None])
    state, store = await imported(path)
    assert (state.phase, state.reason) == (Phase.FAILED, reason)
    assert await store.count(TARGET) == 0


def _table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


VECTORS = pa.array([[0.5] * 8, [1.5] * 8], pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", "b"]}, "has no column 'vector'"),
        ({"id": ["a", None], "vector": VECTORS}, "row 2: its id is not a text, or it is empty"),
        ({"id": [1, 2], "vector": VECTORS}, "row 1: its id is not a text"),
        ({"id": ["a", "b"], "vector": [[1.0], [2.0]]}, "rows 1 to 2: vectors must be lists of float32"),
        ({"id": ["a", "b"], "vector": pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32()))}, "of one length"),
        ({"id": ["a", "b"], "vector": VECTORS, "metadata": ["{}", "[1]"]}, "row 2: its metadata is not a JSON object"),
        ({"id": ["a", "b"], "vector": VECTORS, "metadata": ['{"a":{}}', "{}"]}, "row 1: its metadata is not"),
    ],
    ids=["column", "null id", "number id", "float64", "lengths", "metadata", "nested metadata"],
)
async def test_a_file_that_is_none_of_ours_is_refused_in_words(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    state, _ = await imported(_table(tmp_path / "f.parquet", **columns))
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "BadParquet", False)
    assert message in (state.message or "")


async def test_what_is_no_parquet_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(b"PAR1 but not really PAR1")
    assert (await imported(tmp_path / "f.parquet"))[0].reason == "BadParquet"
    assert (await imported(tmp_path / "absent.parquet"))[0].reason == "FileNotReadable"


async def test_a_file_of_another_tool_with_the_columns_is_taken(tmp_path: Path) -> None:
    state, store = await imported(_table(tmp_path / "f.parquet", id=["a", "b"], vector=VECTORS, more=[1, 2]))
    assert state.phase is Phase.SUCCEEDED
    assert {name: (one.metadata, one.text) for name, one in (await all_of(store, TARGET)).items()} == {
        "a": ({}, None), "b": ({}, None),
    }  # fmt: skip


# -- into other stores --
async def test_ids_that_a_store_cannot_hold_are_mapped_and_rivals_found(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    with RecordFileWriter(path, replace(HEAD, model_fingerprint=None)) as writer:
        writer.write([record("a", 1), record("b", 2), record(foreign_id("b"), 3)])
    store = ScriptedStore(capabilities=replace(MEMORY_CAPABILITIES, id_pattern=UUIDS))
    state, _ = await imported(path, store)
    assert [(one.document, one.reason) for one in state.dead_letters] == [("b", "DuplicateId")]
    assert set(await all_of(store, TARGET)) == {foreign_id("a"), foreign_id("b")}
