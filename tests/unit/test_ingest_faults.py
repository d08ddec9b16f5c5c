"""What the outside does wrong during a run, and what never lands in the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.ingest import Bench, StaticSource

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal
from vectorwright.stores.base import RecordBatch

SYNC = {"sync": {"mode": "Sync"}}


@pytest.mark.parametrize("part", ["store", "embedder"])
async def test_passing_failures_are_repeated(part: str) -> None:
    bench = await Bench.make()
    faults = bench.store.upsert_faults if part == "store" else bench.embedder.faults
    faults.extend([Retryable("429", after=0.0), Retryable("500")])
    state = await bench.run({"a.txt": "x"})
    assert (state.phase, state.counts.retries) == (Phase.SUCCEEDED, 2)


@pytest.mark.parametrize("part", ["store", "embedder"])
async def test_lasting_failures_end_the_run_without_dead_letters(part: str) -> None:
    bench = await Bench.make()
    faults = bench.store.upsert_faults if part == "store" else bench.embedder.faults
    faults.extend([Retryable("503", reason="Throttled")] * 50)
    state = await bench.run({f"{n}.txt": f"x {n}" for n in range(30)})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "Throttled", True)
    assert state.counts.documents_failed == 0
    faults.clear()
    assert (await bench.run({f"{n}.txt": f"x {n}" for n in range(30)})).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("part", ["store", "embedder"])
async def test_refused_credentials_end_the_run_for_good(part: str) -> None:
    bench = await Bench.make()
    faults = bench.store.upsert_faults if part == "store" else bench.embedder.faults
    faults.extend([Terminal("401", reason="AccessDenied")] * 10)
    state = await bench.run({"a.txt": "x"})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "AccessDenied", False)
    assert state.counts.documents_failed == state.counts.retries == 0


async def test_a_refused_record_is_found_by_bisecting() -> None:
    bench = await Bench.make()

    def refuse(batch: RecordBatch) -> None:
        if any(text == "poison" for text in batch.texts):
            raise BatchRejected("poison", reason="BadValue")

    bench.store.refuse = refuse
    documents = {f"{n:02}.txt": f"t {n}" for n in range(60)} | {"33.txt": "poison"}
    state = await bench.run(documents)
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    assert [(d.document, d.reason) for d in state.dead_letters] == [("33.txt", "BadValue")]
    assert len(await bench.records()) == 59
    again = await bench.run(documents)
    assert (again.counts.documents_unchanged, again.counts.documents_failed) == (59, 1)


async def test_a_batch_that_is_too_large_is_halved() -> None:
    bench = await Bench.make()

    def refuse(batch: RecordBatch) -> None:
        if len(batch) > 10:
            raise BatchTooLarge("413")

    bench.store.refuse = refuse
    state = await bench.run({f"{n}.txt": f"t {n}" for n in range(60)})
    assert (state.phase, state.counts.vectors_written) == (Phase.SUCCEEDED, 60)


async def test_a_text_that_the_model_refuses_is_found_and_the_rest_is_written() -> None:
    bench = await Bench.make()

    def check(texts: Sequence[str]) -> None:
        if "poison" in texts:
            raise BatchRejected("too long", reason="EmbeddingRejected")

    bench.embedder.check = check
    state = await bench.run({f"{n:02}.txt": f"t {n}" for n in range(20)} | {"07.txt": "poison"})
    assert [(d.document, d.reason) for d in state.dead_letters] == [("07.txt", "EmbeddingRejected")]
    assert len(await bench.records()) == 19


async def test_a_model_that_refuses_everything_blames_no_document() -> None:
    bench = await Bench.make()
    bench.embedder.faults = [BatchRejected("no such option")] * 100
    state = await bench.run({f"{n}.txt": f"t {n}" for n in range(20)})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "EmbedderRefuses", False)
    assert state.counts.documents_failed == 0


async def test_rubbish_from_the_model_ends_the_run_as_retryable() -> None:
    bench = await Bench.make()
    bench.embedder.faults = [Retryable("html", reason="EmbedderBadAnswer")] * 100
    state = await bench.run({f"{n}.txt": f"t {n}" for n in range(20)})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "EmbedderBadAnswer", True)
    assert state.counts.documents_failed == 0


async def test_one_text_that_always_gets_rubbish_does_not_fail_every_run() -> None:
    bench = await Bench.make()

    def check(texts: Sequence[str]) -> None:
        if "poison" in texts:
            raise Retryable("NaN", reason="EmbedderBadAnswer")

    bench.embedder.check = check
    state = await bench.run({f"{n:02}.txt": f"t {n}" for n in range(20)} | {"07.txt": "poison"})
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    assert [(d.document, d.reason) for d in state.dead_letters] == [("07.txt", "EmbedderBadAnswer")]


async def test_a_zero_vector_is_a_dead_letter_under_cosine_only() -> None:
    bench = await Bench.make()
    state = await bench.run({"a.txt": "zero", "b.txt": "fine"})
    assert [(d.document, d.reason) for d in state.dead_letters] == [("a.txt", "ZeroVector")]
    other = await Bench.make(metric="euclidean")
    assert (await other.run({"a.txt": "zero"})).phase is Phase.SUCCEEDED


async def test_a_failed_new_version_keeps_the_old_one() -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": "old"})
    state = await bench.run({"a.txt": "zero"}, **SYNC)
    assert (state.phase, state.counts.documents_failed) == (Phase.SUCCEEDED_WITH_ERRORS, 1)
    assert await bench.texts() == {"a.txt": ["old"]}


async def test_too_many_dead_letters_fail_the_run_and_delete_nothing() -> None:
    bench = await Bench.make()
    await bench.run({f"{n}.txt": f"t {n}" for n in range(10)})
    documents = {f"{n}.txt": "zero" for n in range(3)} | {f"{n}.txt": f"t {n}" for n in range(4, 10)}
    state = await bench.run(documents, maxDeadLetters=2, **SYNC)
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "TooManyDeadLetters", False)
    assert len(await bench.records()) == 10
    state = await bench.run(documents, maxDeadLetters=3, **SYNC)
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS


async def test_a_fetch_that_fails_in_passing_is_repeated() -> None:
    bench = await Bench.make()
    source = StaticSource({"a.txt": "x", "b.txt": "y"})
    source.errors["a.txt"] = [Retryable("reset"), Retryable("reset")]
    state = await bench.run(source)
    assert (state.phase, state.counts.retries) == (Phase.SUCCEEDED, 2)


async def test_one_document_that_cannot_be_fetched_is_a_dead_letter_and_a_dead_source_ends_the_run() -> None:
    bench = await Bench.make()
    down = Retryable("connection refused", reason="SourceDown")
    state = await bench.run({"a.txt": down, "b.txt": "y"})
    assert [(d.document, d.reason) for d in state.dead_letters] == [("a.txt", "SourceDown")]
    state = await bench.run({f"{n:02}.txt": down for n in range(30)})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "SourceUnavailable", True)
