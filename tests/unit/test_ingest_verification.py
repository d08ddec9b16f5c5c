"""How a run is verified, and what it takes to be called Exact."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.ingest import DIMENSION, INDEX, Bench, ScriptedStore, StaticSource

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable
from vectorwright.ingest import run_frame, verification
from vectorwright.ingest.verification import SAMPLE, Written
from vectorwright.stores.base import RecordBatch
from vectorwright.stores.memory import MEMORY_CAPABILITIES

DOCUMENTS = {f"{n}.txt": f"text {n}" for n in range(30)}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ten ids too many to compare one by one."""
    monkeypatch.setattr(verification, "SET_LIMIT", 10)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("capabilities", "sole", "found"),
    [
        ({"filtered_count": True, "exact_counts": True}, False, "Exact"),
        ({"filtered_count": True, "exact_counts": False}, True, "Sampled"),
        ({"filtered_count": False, "exact_counts": True}, True, "Namespace"),
        ({"filtered_count": False, "exact_counts": True}, False, "Sampled"),
    ],
)
@pytest.mark.parametrize("lost", [False, True])
async def test_large_sources(capabilities: dict[str, Any], sole: bool, found: str, lost: bool) -> None:
    store = ScriptedStore(capabilities=replace(MEMORY_CAPABILITIES, **capabilities))
    bench = await Bench.make(store=store)
    if lost:
        probe = await Bench.make()
        await probe.run({"3.txt": "text 3"})
        store.lose = set(await probe.records())
    state = await bench.run(DOCUMENTS, store={"soleWriter": sole})
    if lost:
        assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "VerificationFailed", True)
    else:
        assert (state.phase, state.verification) == (Phase.SUCCEEDED, found)


@pytest.mark.usefixtures("large")
async def test_a_count_of_everything_takes_records_of_others_into_account() -> None:
    store = ScriptedStore(capabilities=replace(MEMORY_CAPABILITIES, filtered_count=False))
    bench = await Bench.make(store=store)
    await store.upsert(INDEX, RecordBatch(["theirs"], np.ones((1, DIMENSION), np.float32), [{"by": "hand"}], [None]))
    state = await bench.run(DOCUMENTS, store={"soleWriter": True})
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Namespace")


async def test_records_that_no_run_wrote_are_told() -> None:
    bench = await Bench.make()

    source = StaticSource(DOCUMENTS)

    async def intrude(key: str) -> None:
        if key == "5.txt":
            other = await Bench.make()
            await other.run({"x.txt": "x"})
            (record,) = (await other.records()).values()
            assert record.vector is not None
            batch = RecordBatch([record.id], record.vector[None], [record.metadata], [None])
            await bench.store.upsert(INDEX, batch)

    source.before_fetch = intrude
    state = await bench.run(source)
    assert state.reason == "VerificationFailed"
    assert "1 are there that no run wrote" in (state.message or "")


async def test_a_store_that_shows_writes_late_is_asked_again() -> None:
    class Late(ScriptedStore):
        blind = 2

        async def scroll(self, name: str, where: Any = None, **options: Any) -> Any:
            hide = not options.get("metadata", True) and self.blind > 0
            self.blind -= hide
            async for page in super().scroll(name, where, **options):
                yield page[1:] if hide else page

    bench = await Bench.make(store=Late())
    state = await bench.run(DOCUMENTS)
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Exact")


async def test_a_time_out_or_a_dead_store_is_unverified_never_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(ScriptedStore):
        pause = 5.0

        async def scroll(self, name: str, where: Any = None, **options: Any) -> Any:
            if not options.get("metadata", True):
                await asyncio.sleep(self.pause)
                raise Retryable("down", reason="Throttled")
            async for page in super().scroll(name, where, **options):
                yield page

    monkeypatch.setattr(run_frame, "VERIFY_SECONDS", 0.2)
    store = Slow()
    bench = await Bench.make(store=store)
    state = await bench.run(DOCUMENTS)
    assert (state.phase, state.reason, state.counts.vectors_written) == (Phase.UNVERIFIED, "Timeout", 30)
    store.pause = 0.0
    monkeypatch.setattr(run_frame, "VERIFY_SECONDS", 30.0)
    state = await bench.run(DOCUMENTS | {"new.txt": "new"})
    assert (state.phase, state.reason) == (Phase.UNVERIFIED, "Throttled")


def test_the_sample_is_drawn_from_all() -> None:
    written = Written()
    for number in range(5 * SAMPLE):
        written.add(f"id-{number}", replaces=number % 5 == 0)
    assert len(written.sample) == len(set(written.sample)) == SAMPLE
    later = sum(int(one.removeprefix("id-")) >= SAMPLE for one in written.sample)
    assert 0.7 * SAMPLE < later < 0.9 * SAMPLE
    assert (len(written), written.added) == (5 * SAMPLE, 4 * SAMPLE)
    assert written.digests().shape == (5 * SAMPLE, 16)
