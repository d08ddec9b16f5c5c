"""Parquet as documents of a source.

What is checked: a file that was exported needs no names, and its records come back exactly; of any other the columns
that the job names are taken, as from JSON lines; vectors without rounding; what is broken is named; the parser's own
process reads it within its limits.
"""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from tests.support.copying import record
from tests.support.ingest import Bench, StaticSource
from tests.unit.test_parquet_files import HEAD, RECORDS

from vectorwright.api.v1alpha1.ingestionjob import Chunk, Parse, ParserType, Phase
from vectorwright.ingest.contracts import Document, Entry, Fetched, Rejected
from vectorwright.ingest.copying.record_writer import RecordFileWriter
from vectorwright.ingest.identity import foreign_id
from vectorwright.ingest.parser_pool import ParserPool, parse_bytes
from vectorwright.ingest.parsers.documents import pick_parser
from vectorwright.stores.base import Record

PARQUET = Parse(type=ParserType.PARQUET)


def exported(folder: Path, records: list[Record]) -> bytes:
    path = folder / "f.parquet"
    with RecordFileWriter(path, HEAD) as writer:
        writer.write(records)
    return path.read_bytes()


def table(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def parsed(data: bytes, parse: Parse = PARQUET, field: str | None = None) -> list[Document | Rejected]:
    return parse_bytes(Fetched(Entry("f.parquet"), data), parse, Chunk(), field)


def documents(data: bytes, parse: Parse = PARQUET, field: str | None = None) -> list[Document]:
    found = parsed(data, parse, field)
    assert all(isinstance(one, Document) for one in found), found
    return [one for one in found if isinstance(one, Document)]


@settings(max_examples=40, deadline=None)
@given(RECORDS)
def test_what_was_exported_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]) -> None:
    records = [
        Record(record_id, metadata, text, np.array(vector, np.float32))
        for record_id, metadata, text, vector in drawn
        if record_id.strip()
    ]
    if not records:
        return
    found = documents(exported(tmp_path_factory.mktemp("file"), records), field="vector")
    for one, wanted in zip(found, records, strict=True):
        assert one.record_id == wanted.id
        assert one.key == f"f.parquet#{wanted.id}"
        assert [(name, type(value), value) for name, value in sorted(one.metadata.items())] == [
            (name, type(value), value) for name, value in sorted(wanted.metadata.items())
        ]
        assert [chunk.text for chunk in one.chunks] == [wanted.text or ""]
        assert wanted.vector is not None
        assert np.asarray(one.vector, np.float32).tobytes() == wanted.vector.tobytes()


def test_a_record_under_an_id_that_its_store_could_not_hold_gets_its_own(tmp_path: Path) -> None:
    data = exported(tmp_path, [record(foreign_id("a b"), 1, {"vw_id": "a b"}), record("c", 2, {"vw_id": "d"})])
    assert [one.record_id for one in documents(data, field="vector")] == ["a b", "c"]


def test_of_what_was_exported_some_fields_can_be_chosen(tmp_path: Path) -> None:
    data = exported(tmp_path, [record("a", 1, {"kept": 1.0, "not": 2}, "words")])
    (one,) = documents(data, Parse(type=ParserType.PARQUET, metadata_fields=["kept", "absent"]))
    assert one.metadata == {"kept": 1.0}
    assert (one.vector, one.chunks[0].text) == (None, "words")


def test_columns_are_taken_by_name() -> None:
    data = table(
        key=[7, 8],
        title=["seven", None],
        body=["is a number", "is another"],
        at=[datetime(2024, 5, 1, 12, tzinfo=UTC), None],
        day=[date(2024, 5, 1)] * 2,
        price=[Decimal("1.50")] * 2,
        count=[3, 4],
        share=[0.5, 1.0],
        tags=[["a", "b"], []],
        raw=[b"\0", b"\1"],
        unused=[1, 2],
    )
    names = ["at", "day", "price", "count", "share", "tags", "raw"]
    first, second = documents(data, Parse(id_field="key", text_fields=["title", "body"], metadata_fields=names))
    assert (first.key, first.record_id) == ("f.parquet#7", "7")
    assert first.chunks[0].text == "seven\nis a number"
    assert first.metadata == {
        "at": "2024-05-01T12:00:00+00:00", "day": "2024-05-01", "price": "1.50", "count": 3, "share": 0.5,
        "tags": ["a", "b"],
    }  # fmt: skip
    assert second.chunks[0].text == "is another"
    assert "at" not in second.metadata


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int32()], ids=str)
def test_vectors_of_any_number_type_are_taken(kind: pa.DataType) -> None:
    vectors = pa.array([[1, 2], [3, 4]], pa.list_(kind))
    found = documents(table(id=["a", "b"], rgb=vectors), Parse(id_field="id"), "rgb")
    assert [list(one.vector or ()) for one in found] == [[1, 2], [3, 4]]


def test_what_is_broken_is_named() -> None:
    (one,) = parsed(b"PAR1 nonsense PAR1")
    assert isinstance(one, Rejected)
    assert (one.key, one.reason) == ("f.parquet", "BadParquet")
    (one,) = parsed(table(a=["x"]))
    assert isinstance(one, Rejected)
    assert (one.reason, "no column 'text'; it has 'a'" in one.message) == ("MissingField", True)
    data = table(id=["a", None, "a", "c"], text=["x"] * 4, v=pa.array([[1.0], [1.0], [1.0], None]))
    found = parsed(data, Parse(id_field="id"), "v")
    assert [one.reason if isinstance(one, Rejected) else "" for one in found] == [
        "", "MissingId", "DuplicateId", "BadVector",
    ]  # fmt: skip


def test_it_is_picked_by_name_and_by_content_type() -> None:
    assert pick_parser(Entry("https://example.com/a/b.PARQUET?x=1")) is ParserType.PARQUET
    assert pick_parser(Entry("data", media_type="application/vnd.apache.parquet")) is ParserType.PARQUET
    assert pick_parser(Entry("parquet.md")) is ParserType.MARKDOWN


async def test_the_parsers_process_reads_it_within_its_limits(tmp_path: Path) -> None:
    records = [record(f"r{n}", n, {"n": n, "as float": float(n)}, "text " * 20) for n in range(500)]
    data = exported(tmp_path, records)
    pool = ParserPool(PARQUET, Chunk(), "vector")
    try:
        found = await pool.parse(Fetched(Entry("f.parquet"), data))
        broken = await pool.parse(Fetched(Entry("f.parquet"), data[:-200]))
    finally:
        await pool.close()
    assert [one.record_id for one in found if isinstance(one, Document)] == [one.id for one in records]
    assert [one.reason for one in broken if isinstance(one, Rejected)] == ["BadParquet"]


async def test_a_small_file_that_grows_beyond_the_memory_costs_itself_alone() -> None:
    out = io.BytesIO()
    bomb = pa.table({"text": pa.array(["x" * 400_000_000], pa.large_string())})
    pq.write_table(bomb, out, compression="zstd", use_dictionary=False)
    data = out.getvalue()
    assert len(data) < 1_000_000
    pool = ParserPool(PARQUET, Chunk(), memory_bytes=400 << 20)
    try:
        (refused,) = await pool.parse(Fetched(Entry("bomb.parquet"), data))
        (fine,) = await pool.parse(Fetched(Entry("fine.parquet"), table(text=["words"])))
    finally:
        await pool.close()
    assert isinstance(refused, Rejected)
    assert refused.reason == "ParserOutOfMemory"
    assert isinstance(fine, Document)


async def test_a_run_over_an_exported_file_writes_its_records_under_their_ids(tmp_path: Path) -> None:
    records = [record(f"r {n}", n, {"n": n, "real": 1.0, "vw_source": "old"}, f"text {n}") for n in range(30)]
    bench = await Bench.make(embedder=None, precomputedField="vector", parse={"type": "parquet"})
    source = StaticSource({"f.parquet": exported(tmp_path, records)})
    state = await bench.run(source)
    assert (state.phase, state.counts.vectors_written) == (Phase.SUCCEEDED, 30)
    found = await bench.records()
    for one in records:
        assert one.vector is not None
        stored = found[one.id]
        assert stored.vector is not None
        assert (stored.text, stored.vector.tobytes()) == (one.text, one.vector.tobytes())
        assert (stored.metadata["n"], stored.metadata["real"]) == (one.metadata["n"], 1.0)
        assert isinstance(stored.metadata["real"], float)
        assert stored.metadata["vw_source"] == "team/docs"
    assert (await bench.run(source)).counts.documents_unchanged == 30
