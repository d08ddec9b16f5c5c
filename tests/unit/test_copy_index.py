"""Copies of an index: what arrives, what is written again, what is refused, and how a copy ends.

What is checked: records arrive as they are; a second copy writes nothing, a killed one goes on; changed records are
written again, equal ones never; what cannot be kept is named; records of
others are neither overwritten nor mixed in; another vector space is refused; budgets, dead letters, verification.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.copying import SOURCE, TARGET, Pair, all_of, as_batch, described, put, record, some
from tests.support.ingest import ScriptedStore

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal
from vectorwright.ingest.copying import arrivals
from vectorwright.stores.base import IndexDefinition, Metadata, Record, RecordBatch
from vectorwright.stores.memory import MEMORY_CAPABILITIES, MemoryStore

AWKWARD: list[Metadata] = [
    {},
    {"whole": 1, "real": 1.0, "flag": True, "text": "1"},
    {"vw_source": "team/a", "vw_doc": "a.md", "vw_ver": "v1", "vw_n": 0, "vw_count": 1},
    {"big": 2**53 + 1, "negative": -(2**63), "tiny": 5e-324, "minus": -0.0},
    {"words": ["a", "", "ü"], "none": []},
    {"ключ": "значение", 'quote"\n': "\t"},
]


@pytest.fixture
def origin() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def pair(origin: ScriptedStore, store: ScriptedStore) -> Pair:
    return await Pair.make(origin, store)


def narrow(**changes: Any) -> ScriptedStore:
    """A store that can do less."""
    return ScriptedStore(capabilities=replace(MEMORY_CAPABILITIES, **changes))


# -- what arrives --
async def test_records_arrive_as_they_are(pair: Pair) -> None:
    records = [record(f"id {n}", n, metadata, text) for n, metadata in enumerate(AWKWARD) for text in ("long " * 50,)]
    records += [record("no text", 90), record("empty text", 91, {}, ""), record("0001", 92, {}, "x")]
    await put(pair.origin, SOURCE, records)
    state = await pair.run()
    assert (state.phase, state.verification, state.revision) == (Phase.SUCCEEDED, "Exact", pair.origin_incarnation)
    assert described((await pair.copied()).values()) == described(records)
    counts = state.counts
    assert (counts.documents_listed, counts.documents_new, counts.vectors_written) == (len(records),) * 3
    assert (counts.vectors_embedded, counts.tokens, counts.documents_failed) == (0, 0, 0)


async def test_a_copy_is_made_in_batches_that_several_workers_write(pair: Pair, store: ScriptedStore) -> None:
    store.delay = 0.005
    await put(pair.origin, SOURCE, some(100))
    await pair.run(batch={"maxRecords": 7, "workers": 3})
    assert max(map(len, store.upserts)) == 7
    assert store.most_writes == 3
    assert not store.collisions


async def test_the_source_is_only_read(pair: Pair, origin: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(10))
    written = len(origin.upserts)
    await pair.run(sync={"mode": "Sync"})
    assert (len(origin.upserts), origin.deletes) == (written, [])


# -- again --
async def test_a_second_copy_writes_nothing(pair: Pair, store: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(30))
    await pair.run()
    written = len(store.upserts)
    state = await pair.run()
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Exact")
    assert len(store.upserts) == written
    assert (state.counts.documents_unchanged, state.counts.vectors_written) == (30, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"n": 3.0}},
        {"metadata": {"n": True}},
        {"metadata": {"n": 3, "more": ""}},
        {"text": None},
        {"text": ""},
        {"vector": np.nextafter(np.float32(1), np.float32(2)) * np.ones(8, np.float32)},
    ],
    ids=["float for integer", "boolean for integer", "one more field", "no text", "empty text", "vector"],
)
async def test_what_changed_in_the_source_is_written_again_and_nothing_else(
    pair: Pair, store: ScriptedStore, change: dict[str, Any]
) -> None:
    await put(pair.origin, SOURCE, some(6))
    await pair.run()
    changed = replace((await all_of(pair.origin, SOURCE))["r-3"], **change)
    await put(pair.origin, SOURCE, [changed])
    store.upserts.clear()
    state = await pair.run()
    assert store.upserts == [["r-3"]]
    assert (state.counts.documents_replaced, state.counts.documents_unchanged) == (1, 5)
    assert described((await pair.copied()).values()) == described((await all_of(pair.origin, SOURCE)).values())


async def test_a_copy_that_was_killed_goes_on_where_it_was(pair: Pair, store: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(60))
    stopped = asyncio.Event()

    def after_some(_: RecordBatch) -> None:
        if len(store.upserts) == 3:
            stopped.set()

    store.refuse, store.delay = after_some, 0.001
    running = asyncio.ensure_future(pair.prepare(batch={"maxRecords": 5, "workers": 1}).execute())
    await stopped.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    there = set(await pair.copied())
    assert 0 < len(there) < 60
    store.upserts.clear()
    state = await pair.run()
    assert state.phase is Phase.SUCCEEDED
    assert {one for part in store.upserts for one in part} == {f"r-{n}" for n in range(60)} - there
    assert state.counts.documents_unchanged == len(there)


async def test_a_scroll_that_breaks_off_is_begun_anew_and_writes_nothing_twice(
    pair: Pair, origin: ScriptedStore, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(pair.origin, SOURCE, some(40))
    whole, breaks = origin.scroll, [3, 2]

    async def broken(name: str, *args: Any, **options: Any) -> Any:
        pages = 0
        async for page in whole(name, *args, **(options | {"page": 5})):
            if breaks and options.get("vectors") and pages == breaks[0]:
                breaks.pop(0)
                raise Retryable("gone", reason="Unreachable")
            pages += 1
            yield page

    monkeypatch.setattr(origin, "scroll", broken)
    state = await pair.run(batch={"maxRecords": 5})
    assert state.phase is Phase.SUCCEEDED
    assert breaks == []
    written = [one for part in store.upserts for one in part]
    assert len(written) == len(set(written)) == 40
    assert (state.counts.documents_listed, state.counts.retries) == (40, 2)


async def test_vectors_that_the_store_scales_count_as_equal(pair: Pair) -> None:
    class Scaling(ScriptedStore):
        async def upsert(self, name: str, batch: RecordBatch) -> None:
            lengths = np.linalg.norm(batch.vectors, axis=1, keepdims=True)
            await super().upsert(name, replace(batch, vectors=(batch.vectors / lengths).astype(np.float32)))

    store = Scaling(capabilities=replace(MEMORY_CAPABILITIES, normalises=True))
    pair.store, pair.incarnation = store, (await store.create_index(IndexDefinition(TARGET, 8, "cosine"))).incarnation
    longer = [replace(one, vector=one.vector * 37) for one in some(20) if one.vector is not None]
    await put(pair.origin, SOURCE, longer)
    await pair.run()
    written = len(store.upserts)
    assert (await pair.run()).counts.documents_unchanged == 20
    assert len(store.upserts) == written


# -- what cannot be kept --
async def test_what_the_store_cannot_hold_is_named_and_the_rest_arrives(origin: ScriptedStore) -> None:
    pair = await Pair.make(origin, narrow(list_metadata=False, max_metadata_bytes=100, max_text_bytes=50))
    records = [
        record("fine", 1, {"n": 1}, "short"),
        record("list", 2, {"words": ["a"]}),
        record("metadata", 3, {"word": "x" * 100}),
        record("text", 4, {}, "ü" * 26),
    ]
    await put(pair.origin, SOURCE, records)
    state = await pair.run()
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    told = {one.document: (one.reason, one.message) for one in state.dead_letters}
    assert {name: reason for name, (reason, _) in told.items()} == {
        "list": "MetadataNotHeld", "metadata": "MetadataTooLarge", "text": "TextTooLarge",
    }  # fmt: skip
    assert "'words'" in told["list"][1]
    assert set(await pair.copied()) == {"fine"}
    assert (state.counts.documents_failed, state.counts.vectors_failed, state.counts.documents_listed) == (3, 3, 4)


async def test_a_record_that_the_store_refuses_is_found_and_the_rest_arrives(pair: Pair, store: ScriptedStore) -> None:
    def refuse(batch: RecordBatch) -> None:
        if len(batch) > 16:
            raise BatchTooLarge("too much")
        if "r-13" in batch.ids:
            raise BatchRejected("no thirteens", reason="RecordRejected")

    store.refuse = refuse
    await put(pair.origin, SOURCE, some(40))
    state = await pair.run()
    assert [(one.document, one.reason) for one in state.dead_letters] == [("r-13", "RecordRejected")]
    assert set(await pair.copied()) == {f"r-{n}" for n in range(40)} - {"r-13"}


async def test_a_zero_vector_is_not_copied_into_a_cosine_index() -> None:
    class Lax(MemoryStore):
        """Holds what another client wrote."""

    origin = Lax()
    pair = await Pair.make(origin, MemoryStore())
    await put(origin, SOURCE, some(3))
    origin._indexes[SOURCE].matrix[1] = 0.0
    state = await pair.run()
    assert [(one.document, one.reason) for one in state.dead_letters] == [("r-1", "ZeroVector")]


async def test_too_many_dead_letters_end_the_copy(origin: ScriptedStore) -> None:
    pair = await Pair.make(origin, narrow(list_metadata=False))
    await put(pair.origin, SOURCE, [record(f"l{n}", n, {"words": ["a"]}) for n in range(5)])
    state = await pair.run(maxDeadLetters=2)
    assert (state.phase, state.reason) == (Phase.FAILED, "TooManyDeadLetters")


# -- records of others --
async def test_a_record_of_another_source_is_not_overwritten(pair: Pair) -> None:
    theirs = record("x-1", 5, {"vw_source": "other", "mine": True}, "theirs")
    await put(pair.store, TARGET, [theirs])
    await put(pair.origin, SOURCE, some(3, source="x"))
    state = await pair.run(store={"soleWriter": False, "otherSources": ["other"]})
    assert [(one.document, one.reason) for one in state.dead_letters] == [("x-1", "IdTaken")]
    found = await pair.copied()
    assert described([found["x-1"]]) == described([theirs])
    assert set(found) == {"x-0", "x-1", "x-2"}


async def test_a_nameless_record_that_was_there_before_is_not_overwritten_in_an_adopted_index(pair: Pair) -> None:
    theirs = record("r-1", 5, {"mine": True}, "theirs")
    await put(pair.store, TARGET, [theirs])
    await put(pair.origin, SOURCE, some(3))
    state = await pair.run(store={"madeForUs": False})
    assert [(one.document, one.reason) for one in state.dead_letters] == [("r-1", "IdTaken")]
    assert described([(await pair.copied())["r-1"]]) == described([theirs])


async def test_an_equal_record_of_another_is_no_trouble(pair: Pair) -> None:
    await put(pair.store, TARGET, some(2))
    await put(pair.origin, SOURCE, some(3))
    state = await pair.run(store={"madeForUs": False, "soleWriter": False})
    assert (state.phase, state.counts.documents_unchanged) == (Phase.SUCCEEDED, 2)


async def test_a_source_that_another_job_fills_by_itself_ends_the_copy(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(3, source="team/docs"))
    state = await pair.run(store={"soleWriter": False, "otherSources": ["team/docs"]})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "SourceNameTaken", False)
    assert "'team/docs'" in (state.message or "")
    assert await pair.copied() == {}


# -- refused --
@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (IndexDefinition(SOURCE, 4, "cosine"), "WrongDimension"),
        (IndexDefinition(SOURCE, 8, "dotproduct"), "WrongMetric"),
        (IndexDefinition(SOURCE, 8, "cosine", model_fingerprint="another"), "ModelMismatch"),
    ],
    ids=["dimension", "metric", "model"],
)
async def test_another_vector_space_is_refused_before_anything_is_written(
    definition: IndexDefinition, reason: str
) -> None:
    origin, store = MemoryStore(), MemoryStore()
    first = await origin.create_index(definition)
    second = await store.create_index(IndexDefinition(TARGET, 8, "cosine", model_fingerprint="mine"))
    pair = Pair(origin, store, first.incarnation, second.incarnation)
    there = {"dimension": definition.dimension, "metric": definition.metric}
    state = await pair.run(sourceStore=there)
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, reason, False)


async def test_an_index_that_was_made_again_is_refused(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(2))
    for changed in ({"store": {"incarnation": "old"}}, {"sourceStore": {"incarnation": "old"}}):
        state = await pair.run(**changed)
        assert (state.phase, state.reason) == (Phase.FAILED, "IncarnationChanged")
    assert await pair.copied() == {}


async def test_an_empty_source_is_no_success(pair: Pair) -> None:
    state = await pair.run()
    assert (state.phase, state.reason) == (Phase.FAILED, "EmptySource")


async def test_an_index_that_vanished_is_told(pair: Pair) -> None:
    await pair.origin.delete_index(SOURCE)
    state = await pair.run()
    assert (state.phase, state.reason) == (Phase.FAILED, "IndexLost")


# -- budgets and ends --
async def test_a_copy_stops_before_it_goes_over_its_budget(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(50))
    state = await pair.run(budget={"maxVectors": 20}, batch={"maxRecords": 8})
    assert (state.phase, state.reason) == (Phase.FAILED, "BudgetExceeded")
    assert len(await pair.copied()) == 20
    state = await pair.run(budget={"maxVectors": 30}, batch={"maxRecords": 8})
    assert (state.phase, len(await pair.copied())) == (Phase.SUCCEEDED, 50)
    assert (await pair.run(budget={"maxDocuments": 49})).reason == "BudgetExceeded"


async def test_a_store_that_stays_down_ends_the_copy_for_another_start(pair: Pair, store: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(5))
    store.upsert_faults = [Retryable("down", reason="Unavailable")] * 100
    state = await pair.run()
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "Unavailable", True)


async def test_a_terminal_error_ends_the_copy_at_once(pair: Pair, store: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(5))
    store.upsert_faults = [Terminal("no", reason="AccessDenied")]
    state = await pair.run()
    assert (state.phase, state.reason, state.counts.retries) == (Phase.FAILED, "AccessDenied", 0)


async def test_what_the_store_acknowledged_and_lost_is_no_success(pair: Pair, store: ScriptedStore) -> None:
    store.lose = {"r-2"}
    await put(pair.origin, SOURCE, some(5))
    state = await pair.run()
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "VerificationFailed", True)


@pytest.mark.parametrize(("sole", "expected"), [(True, "Namespace"), (False, "Sampled")])
async def test_a_large_copy_is_verified_by_count_or_by_a_sample(
    pair: Pair, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch, sole: bool, expected: str
) -> None:
    monkeypatch.setattr(arrivals.Arrivals.__init__, "__defaults__", (10,))
    await put(pair.store, TARGET, some(4, source="theirs"))
    await put(pair.origin, SOURCE, some(30))
    state = await pair.run(store={"soleWriter": sole})
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, expected)
    await pair.store.delete(TARGET, ["r-0"])
    store.lose = {f"r-{n}" for n in range(30)}
    state = await pair.run(store={"soleWriter": sole})
    assert state.reason == "VerificationFailed"


def test_records_are_described_to_the_last_bit() -> None:
    one: Record = record("a", 1, {"n": 1})
    assert described([one]) != described([replace(one, metadata={"n": 1.0})])
    assert as_batch([one]).ids == ["a"]
