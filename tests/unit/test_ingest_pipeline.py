"""The promises of a run over a store, a source and a model under the test's control.

- what is new is written, what is unchanged is not even fetched, what changed is replaced, what is gone is deleted
- order: written, read back, old version deleted
- budgets, dead letters, empty sources, duplicates, failures of every part
"""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest
from tests.support.ingest import INDEX, Bench, ScriptedStore, StaticSource, paragraphs

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.contracts import Entry, Fetched
from vectorwright.stores.base import RecordBatch

SMALL = {"chunk": {"size": 80}}
SYNC = {"sync": {"mode": "Sync"}}


async def test_everything_new_is_written_with_reserved_metadata() -> None:
    bench = await Bench.make()
    state = await bench.run({"a.md": "# Title\n\nhello", "b.txt": paragraphs(3)}, **SMALL)
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Exact")
    counts = state.counts
    assert (counts.documents_listed, counts.documents_new, counts.vectors_written) == (2, 2, 4)
    assert (counts.chunks, counts.vectors_embedded, counts.batches) == (4, 4, 1)
    records = await bench.records()
    assert {record.metadata["vw_source"] for record in records.values()} == {"team/docs"}
    b = [record for record in records.values() if record.metadata["vw_doc"] == "b.txt"]
    assert sorted(record.metadata["vw_n"] for record in b) == [0, 1, 2]
    assert {record.metadata["vw_count"] for record in b} == {3}
    assert {record.metadata["path"] for record in b} == {"b.txt"}
    for record in records.values():
        assert record.vector is not None
        assert record.vector == pytest.approx(bench.embedder.vector(record.text or ""))


async def test_a_second_run_fetches_embeds_and_writes_nothing() -> None:
    bench = await Bench.make()
    documents = {f"{n}.txt": f"text {n}" for n in range(50)}
    await bench.run(documents)
    source = StaticSource(documents)
    calls = bench.embedder.calls
    state = await bench.run(source)
    assert state.phase is Phase.SUCCEEDED
    assert state.counts.documents_unchanged == 50
    assert (state.counts.vectors_embedded, state.counts.vectors_written, state.counts.bytes_read) == (0, 0, 0)
    assert (source.fetched, bench.embedder.calls) == ([], calls)


async def test_without_tokens_documents_are_fetched_and_still_not_embedded_again() -> None:
    bench = await Bench.make()
    documents = {"a.txt": "one", "b.txt": "two"}
    await bench.run(StaticSource(documents, tokens=False))
    source = StaticSource(documents, tokens=False)
    state = await bench.run(source)
    assert source.fetched == ["a.txt", "b.txt"]
    assert (state.counts.documents_unchanged, state.counts.vectors_embedded) == (2, 0)


async def test_a_changed_document_is_written_read_back_and_only_then_its_old_version_deleted() -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": paragraphs(3), "b.txt": "same"}, **SMALL)
    before = set(await bench.records())
    bench.store.log.clear()
    state = await bench.run({"a.txt": paragraphs(2, word="beta"), "b.txt": "same"}, **SMALL)
    counts = state.counts
    assert (counts.documents_replaced, counts.documents_unchanged, counts.documents_new) == (1, 1, 0)
    assert (counts.vectors_written, counts.vectors_deleted) == (2, 3)
    after = set(await bench.records())
    assert [name for name, _ in bench.store.log] == ["upsert", "fetch", "delete"]
    written, read, deleted = (set(ids) for _, ids in bench.store.log)
    assert written == read == after - before
    assert deleted == before - after
    assert len(await bench.texts()) == 2


async def test_an_acknowledged_write_that_is_lost_keeps_the_old_version() -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": "old"})
    old = set(await bench.records())
    probe = await Bench.make()
    await probe.run({"a.txt": "new"})
    bench.store.lose = set(await probe.records())
    run = bench.prepare(StaticSource({"a.txt": "new"}))
    state = await run.execute()
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "VerificationFailed", True)
    assert set(await bench.records()) == old
    bench.store.lose = set()
    assert (await bench.run({"a.txt": "new"})).phase is Phase.SUCCEEDED
    assert await bench.texts() == {"a.txt": ["new"]}


async def test_a_lost_new_document_fails_the_verification() -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": "one"})
    probe = await Bench.make()
    await probe.run({"b.txt": "two"})
    bench.store.lose = set(await probe.records())
    state = await bench.run({"a.txt": "one", "b.txt": "two"})
    assert (state.phase, state.reason) == (Phase.FAILED, "VerificationFailed")
    assert "1 are not in the index" in (state.message or "")


@pytest.mark.parametrize(("mode", "left"), [("Upsert", 10), ("Sync", 9)])
async def test_vanished_documents_go_in_sync_mode_only(mode: str, left: int) -> None:
    bench = await Bench.make()
    documents = {f"{n}.txt": f"text {n}" for n in range(10)}
    await bench.run(documents)
    del documents["3.txt"]
    state = await bench.run(documents, sync={"mode": mode})
    assert state.phase is Phase.SUCCEEDED
    assert state.counts.documents_deleted == state.counts.vectors_deleted == 10 - left
    assert len(await bench.records()) == left


async def test_too_many_deletes_delete_nothing_and_keep_what_was_written() -> None:
    bench = await Bench.make()
    await bench.run({f"{n}.txt": f"text {n}" for n in range(10)})
    state = await bench.run({f"{n}.txt": f"text {n}" for n in range(7)} | {"new.txt": "new"}, **SYNC)
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "TooManyDeletes", False)
    assert "3 of this source's 10 documents" in (state.message or "")
    assert len(await bench.records()) == 11
    state = await bench.run({"1.txt": "text 1"}, sync={"mode": "Sync", "maxDeletePercent": 100})
    assert (state.phase, state.counts.documents_deleted) == (Phase.SUCCEEDED, 10)


@pytest.mark.parametrize("mode", ["Upsert", "Sync"])
async def test_an_empty_source_is_an_error_and_deletes_nothing(mode: str) -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": "one"})
    state = await bench.run({}, sync={"mode": mode, "maxDeletePercent": 100})
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "EmptySource", False)
    assert len(await bench.records()) == 1


async def test_a_partial_listing_deletes_nothing() -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": "one", "b.txt": "two"})
    source = StaticSource({"a.txt": "one", "b.txt": "two"})
    source.listing_error = Retryable("the server went away")
    state = await bench.run(source, sync={"mode": "Sync", "maxDeletePercent": 100})
    assert (state.phase, state.retryable) == (Phase.FAILED, True)
    assert len(await bench.records()) == 2


async def test_what_cannot_be_fetched_or_parsed_did_not_vanish() -> None:
    bench = await Bench.make()
    table = "\n".join(f'{{"id": "r{n}", "text": "row {n}"}}' for n in range(3))
    options = {"parse": {"idField": "id"}, "sync": {"mode": "Sync", "maxDeletePercent": 100}}
    first = {"a.txt": "one", "b.txt": "two", "t.jsonl": table}
    await bench.run(first, **options)
    gone = Terminal("404", reason="HttpNotFound")
    broken = '{"id": "r0", "text": "row 0"}\nnot json'
    state = await bench.run({"a.txt": gone, "t.jsonl": broken}, **options)
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    assert {letter.reason for letter in state.dead_letters} == {"HttpNotFound", "BadRecord"}
    # b.txt vanished; a.txt and the rows that may hide in the broken line stay.
    assert set(await bench.texts()) == {"a.txt", "t.jsonl#r0", "t.jsonl#r1", "t.jsonl#r2"}


async def test_a_record_that_is_known_to_be_broken_spares_only_itself() -> None:
    bench = await Bench.make()
    rows = [f'{{"id": "r{n}", "text": "row {n}"}}' for n in range(4)]
    options = {"parse": {"idField": "id"}, "sync": {"mode": "Sync", "maxDeletePercent": 50}}
    await bench.run({"t.jsonl": "\n".join(rows)}, **options)
    state = await bench.run({"t.jsonl": "\n".join([rows[0], '{"id": "r1"}', rows[2]])}, **options)
    assert (state.counts.documents_failed, state.counts.documents_deleted) == (1, 1)
    assert set(await bench.texts()) == {"t.jsonl#r0", "t.jsonl#r1", "t.jsonl#r2"}


async def test_a_document_that_lost_its_text_goes_under_the_guard_of_deletes() -> None:
    bench = await Bench.make()
    documents = {f"{n}.txt": f"text {n}" for n in range(10)}
    await bench.run(documents)
    state = await bench.run(documents | {"1.txt": "  \n"}, **SYNC)
    assert (state.counts.documents_empty, state.counts.documents_deleted) == (1, 1)
    assert len(await bench.records()) == 9


async def test_half_written_versions_are_completed_and_only_what_is_missing_is_embedded() -> None:
    bench = await Bench.make()
    document = {"a.txt": paragraphs(6)}
    await bench.run(document, **SMALL)
    whole = await bench.records()
    lost = [record_id for record_id, record in whole.items() if record.metadata["vw_n"] in (1, 4)]
    await bench.store.delete(INDEX, lost)
    bench.embedder.embedded.clear()
    state = await bench.run(document, **SMALL)
    assert (state.counts.vectors_embedded, state.counts.vectors_written) == (2, 2)
    assert set(bench.embedder.embedded) == {whole[record_id].text for record_id in lost}
    assert set(await bench.records()) == set(whole)


async def test_an_old_version_that_a_killed_run_left_behind_is_deleted_by_the_next() -> None:
    bench = await Bench.make()
    await bench.run({"a.txt": "old"})
    old = await bench.records()
    await bench.run({"a.txt": "new"})
    fresh = await bench.records()
    for record_id, record in old.items():
        assert record.vector is not None
        batch = RecordBatch([record_id], record.vector[None], [record.metadata], [record.text])
        await bench.store.upsert(INDEX, batch)
    source = StaticSource({"a.txt": "new"})
    state = await bench.run(source)
    assert (state.counts.documents_replaced, state.counts.vectors_embedded, state.counts.vectors_deleted) == (1, 0, 1)
    assert set(await bench.records()) == set(fresh)


async def test_two_sources_touch_only_their_own_records() -> None:
    bench = await Bench.make()
    await bench.run({f"{n}.txt": f"text {n}" for n in range(5)}, sourceName="one")
    await bench.run({f"{n}.txt": f"text {n}" for n in range(5)}, sourceName="two")
    assert len(await bench.records()) == 10
    state = await bench.run({"0.txt": "text 0"}, sourceName="one", sync={"mode": "Sync", "maxDeletePercent": 100})
    assert state.counts.documents_deleted == 4
    assert {str(r.metadata["vw_source"]) for r in (await bench.records()).values()} == {"one", "two"}
    assert len(await bench.records()) == 6


async def test_no_id_is_in_two_batches_and_workers_are_bounded() -> None:
    bench = await Bench.make()
    bench.store.delay = 0.005
    bench.embedder.delay = 0.002
    documents = {f"{n}.txt": paragraphs(5, word=f"w{n}") for n in range(100)}
    state = await bench.run(documents, batch={"maxRecords": 20, "workers": 3}, **SMALL)
    assert state.counts.vectors_written == 500
    assert bench.store.collisions == set()
    assert (bench.store.most_writes, bench.embedder.most_in_flight) == (3, 4)
    assert max(len(ids) for ids in bench.store.upserts) == 20


async def test_batches_respect_bytes() -> None:
    bench = await Bench.make()
    documents = {f"{n}.txt": "x" * 500 for n in range(40)}
    state = await bench.run(documents, batch={"maxBytes": 4096})
    assert state.counts.vectors_written == 40
    assert max(len(ids) for ids in bench.store.upserts) <= 6


async def test_a_document_larger_than_a_batch_and_one_huge_document() -> None:
    bench = await Bench.make()
    state = await bench.run({"huge.txt": paragraphs(3000)}, **SMALL)
    assert (state.phase, state.counts.vectors_written) == (Phase.SUCCEEDED, 3000)
    assert len((await bench.texts())["huge.txt"]) == 3000


async def test_user_metadata_never_overrides_reserved_names() -> None:
    bench = await Bench.make(parse={"metadataFields": ["vw_source", "vw_n", "kind"]})
    await bench.run({"t.jsonl": '{"text": "x", "vw_source": "evil", "vw_n": 7, "kind": "k"}'})
    (record,) = (await bench.records()).values()
    assert (record.metadata["vw_source"], record.metadata["vw_n"], record.metadata["kind"]) == ("team/docs", 0, "k")


async def test_memory_does_not_grow_with_the_source() -> None:
    """400 MB of documents pass through; what stays is what waits in bounded queues and batches."""

    class Endless(StaticSource):
        async def entries(self) -> AsyncIterator[Entry]:
            for number in range(400):
                yield Entry(f"{number:05}.txt", f"token {number}", 1_000_000)

        async def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
            for entry in entries:
                yield Fetched(entry, data=(entry.key * 120_000)[:1_000_000].encode())

    class Sink(ScriptedStore):
        async def upsert(self, name: str, batch: RecordBatch) -> None:
            self.upserts.append([])

    bench = await Bench.make(store=Sink())
    bench.embedder.embedded = _Forgetful()
    bench.embedder.delay = 0.001
    tracemalloc.start()
    state = await bench.run(Endless({}), chunk={"strategy": "none"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (state.counts.vectors_written, state.reason) == (400, "VerificationFailed")
    assert state.counts.bytes_read == 400_000_000
    # 32 MiB in each of two queues, 4 MiB in each of 4 calls, 32 MiB in each of 4 writes, 4 documents being parsed.
    assert peak < 230_000_000


class _Forgetful(list[str]):
    def extend(self, _: Iterable[str]) -> None:
        """Keep nothing."""
