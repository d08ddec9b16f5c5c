"""Records that come with ids keep them: in place, across files, and never over somebody else's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.support.ingest import DIMENSION, INDEX, Bench, paragraphs

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.stores.base import RecordBatch

SMALL: dict[str, Any] = {"chunk": {"size": 80}}
SYNC = {"sync": {"mode": "Sync"}}
OPTIONS: dict[str, Any] = {"parse": {"idField": "id"}, "embedder": None, "precomputedField": "v"}


def table(*rows: tuple[str, list[float]]) -> str:
    return "\n".join(json.dumps({"id": name, "text": f"t {name}", "v": vector}) for name, vector in rows)


def one(value: float) -> list[float]:
    return [value, *[1.0] * (DIMENSION - 1)]


async def test_ids_are_kept_and_overwritten_in_place() -> None:
    bench = await Bench.make(**OPTIONS)
    await bench.run({"t.jsonl": table(("x", one(1)), ("y", one(2)))})
    assert set(await bench.records()) == {"x", "y"}
    state = await bench.run({"t.jsonl": table(("x", one(3)), ("y", one(2)))}, **SYNC)
    assert (state.counts.documents_replaced, state.counts.documents_unchanged) == (1, 1)
    assert (state.counts.vectors_written, state.counts.vectors_deleted) == (1, 0)
    records = await bench.records()
    assert records["x"].metadata["vw_id"] == "x"
    vector = records["x"].vector
    assert vector is not None
    assert vector[0] == 3


async def test_the_first_of_two_records_with_one_id_wins() -> None:
    bench = await Bench.make(**OPTIONS)
    documents = {"a.jsonl": table(("x", one(1))), "b.jsonl": table(("x", one(2)))}
    state = await bench.run(documents)
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    assert [(d.document, d.reason) for d in state.dead_letters] == [("b.jsonl#x", "DuplicateId")]
    assert (await bench.records())["x"].metadata["vw_doc"] == "a.jsonl#x"
    again = await bench.run(documents)
    assert (again.counts.documents_unchanged, again.counts.vectors_written) == (1, 0)


async def test_a_record_that_moves_to_another_file_is_not_deleted_with_its_old_place() -> None:
    bench = await Bench.make(**OPTIONS)
    await bench.run({"a.jsonl": table(("x", one(1)), ("y", one(2)))})
    state = await bench.run({"b.jsonl": table(("x", one(1)), ("y", one(2)))}, **SYNC)
    assert (state.phase, state.counts.documents_deleted) == (Phase.SUCCEEDED, 0)
    assert {r.metadata["vw_doc"] for r in (await bench.records()).values()} == {"b.jsonl#x", "b.jsonl#y"}


async def test_an_id_of_somebody_else_is_not_overwritten() -> None:
    bench = await Bench.make(**OPTIONS)
    await bench.run({"t.jsonl": table(("x", one(1)))}, sourceName="first")
    state = await bench.run({"t.jsonl": table(("x", one(9)), ("z", one(2)))}, sourceName="second")
    assert [(d.document, d.reason) for d in state.dead_letters] == [("t.jsonl#x", "IdTaken")]
    records = await bench.records()
    assert records["x"].metadata["vw_source"] == "first"
    assert set(records) == {"x", "z"}


async def test_an_index_with_one_job_may_still_hold_records_of_somebody_else() -> None:
    bench = await Bench.make(**OPTIONS)
    vectors = np.ones((1, DIMENSION), np.float32)
    await bench.store.upsert(INDEX, RecordBatch(["x"], vectors, [{"by": "hand"}], ["kept"]))
    state = await bench.run({"t.jsonl": table(("x", one(9)), ("z", one(2)))}, store={"soleWriter": True})
    assert [(d.document, d.reason) for d in state.dead_letters] == [("t.jsonl#x", "IdTaken")]
    assert (await bench.records())["x"].text == "kept"


async def test_a_record_that_grows_to_several_chunks_gives_up_its_id() -> None:
    bench = await Bench.make(parse={"idField": "id"}, **SMALL)
    await bench.run({"t.jsonl": '{"id": "x", "text": "short"}'})
    assert set(await bench.records()) == {"x"}
    state = await bench.run({"t.jsonl": json.dumps({"id": "x", "text": paragraphs(3)})})
    assert (state.phase, state.counts.vectors_deleted) == (Phase.SUCCEEDED, 1)
    records = await bench.records()
    assert len(records) == 3
    assert "x" not in records
    assert {r.metadata["vw_id"] for r in records.values()} == {"x"}


@pytest.mark.parametrize(
    ("vector", "reason"),
    [([1.0] * 5, "WrongDimension"), ([0.0] * DIMENSION, "ZeroVector"), ([1e30] * DIMENSION, "NotFinite")],
)
async def test_vectors_that_no_store_should_get(vector: list[float], reason: str) -> None:
    bench = await Bench.make(**OPTIONS)
    state = await bench.run({"t.jsonl": table(("bad", vector), ("good", one(1)))})
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    assert [(d.document, d.reason) for d in state.dead_letters] == [("t.jsonl#bad", reason)]
    assert (state.counts.vectors_failed, state.counts.documents_failed) == (1, 1)
    assert set(await bench.records()) == {"good"}
