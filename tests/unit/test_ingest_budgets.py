"""A run stops before it goes over a budget, and refuses an index that is not the one it was planned for."""

from __future__ import annotations

from tests.support.ingest import DIMENSION, INDEX, Bench, StaticSource, paragraphs

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.stores.base import IndexDefinition

SMALL = {"chunk": {"size": 80}}


async def test_max_documents_is_checked_before_any_work() -> None:
    bench = await Bench.make()
    state = await bench.run({f"{n}.txt": "x" for n in range(4)}, budget={"maxDocuments": 3})
    assert (state.phase, state.reason) == (Phase.FAILED, "BudgetExceeded")
    assert bench.embedder.calls == 0


async def test_max_documents_counts_the_records_of_tables() -> None:
    bench = await Bench.make()
    rows = "\n".join(f'{{"text": "row {n}"}}' for n in range(4))
    state = await bench.run({"a.txt": "x", "t.jsonl": rows}, budget={"maxDocuments": 4})
    assert (state.phase, state.reason) == (Phase.FAILED, "BudgetExceeded")
    assert set(await bench.texts()) == {"a.txt"}


async def test_max_vectors_is_not_exceeded_and_what_was_written_stays() -> None:
    bench = await Bench.make()
    state = await bench.run({f"{n}.txt": paragraphs(3) for n in range(9)}, budget={"maxVectors": 10}, **SMALL)
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "BudgetExceeded", False)
    assert state.counts.vectors_written == len(await bench.records()) == 9


async def test_max_tokens_is_not_exceeded() -> None:
    bench = await Bench.make()
    documents = {f"{n:03}.txt": "one two three four five six seven" for n in range(200)}
    state = await bench.run(documents, budget={"maxTokens": 700})
    assert (state.phase, state.reason) == (Phase.FAILED, "BudgetExceeded")
    assert 350 < state.counts.tokens <= 700
    assert len(await bench.records()) == state.counts.vectors_embedded


async def test_a_source_beyond_the_ledger_is_refused_before_it_grows_further() -> None:
    bench = await Bench.make()
    documents = {f"{n}.txt": f"t {n}" for n in range(9)}
    state = await bench.prepare(StaticSource(documents), ledger_limit=5).execute()
    assert (state.phase, state.reason) == (Phase.FAILED, "LedgerTooLarge")
    assert len(await bench.records()) == 5


async def test_the_deadline_fails_the_run() -> None:
    bench = await Bench.make()
    bench.embedder.delay = 0.2
    documents = {f"{n}.txt": f"t {n}" for n in range(200)}
    state = await bench.run(documents, deadlineSeconds=0.5)
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "DeadlineExceeded", False)
    assert 0 < len(await bench.records()) < 200


async def test_another_incarnation_is_refused_before_anything() -> None:
    bench = await Bench.make()
    await bench.store.delete_index(INDEX)
    await bench.store.create_index(IndexDefinition(INDEX, DIMENSION, "cosine"))
    state = await bench.run({"a.txt": "x"})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "IncarnationChanged", False)
    assert bench.embedder.calls == 0


async def test_an_index_that_is_gone() -> None:
    bench = await Bench.make()
    await bench.store.delete_index(INDEX)
    state = await bench.run({"a.txt": "x"})
    assert (state.phase, state.reason) == (Phase.FAILED, "IndexLost")


async def test_dimension_metric_and_model() -> None:
    bench = await Bench.make()
    state = await bench.run({"a.txt": "x"}, store={"dimension": 9})
    assert (state.phase, state.reason) == (Phase.FAILED, "WrongDimension")
    state = await bench.run({"a.txt": "x"}, store={"metric": "euclidean"})
    assert (state.phase, state.reason) == (Phase.FAILED, "WrongMetric")
    await bench.store.set_mark(INDEX, None, "other")
    state = await bench.run({"a.txt": "x"})
    assert (state.phase, state.reason) == (Phase.FAILED, "ModelMismatch")
    assert bench.embedder.calls == 0


async def test_a_model_that_answers_in_another_dimension() -> None:
    bench = await Bench.make()
    bench.embedder.dimension = DIMENSION - 1
    state = await bench.run({"a.txt": "x"})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "WrongDimension", False)
