"""Small parts between the stages: batches, tokens, what is told of a run, and how it stops."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ingest import Bench, StaticSource

from vectorwright.api.v1alpha1.ingestionjob import Counts, DeadLetter, Phase
from vectorwright.ingest import run_frame
from vectorwright.ingest.batching import BoundedQueue, batched, spread
from vectorwright.ingest.contracts import Entry
from vectorwright.ingest.planning import Listing
from vectorwright.ingest.progress import Progress, termination_message
from vectorwright.ingest.runspec import RunState
from vectorwright.ingest.tokens import TokenBudget, TokenEstimate


async def collect(items: list[int | None], **options: Any) -> list[list[int]]:
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    for item in [*items, None]:
        queue.put_nowait(item)
    return [batch async for batch in batched(queue, linger=1.0, **options)]


@given(st.lists(st.integers(1, 50)), st.integers(1, 10), st.integers(1, 120))
def test_batches_keep_order_and_both_bounds(items: list[int], most: int, most_bytes: int) -> None:
    batches = asyncio.run(collect(list(items), most=most, most_bytes=most_bytes, size=lambda item: item))
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        assert 0 < len(batch) <= most
        assert sum(batch) <= most_bytes or len(batch) == 1


async def test_an_incomplete_batch_leaves_after_a_while() -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    source = batched(queue, most=10, linger=0.05)
    queue.put_nowait(1)
    assert await asyncio.wait_for(anext(source), 1.0) == [1]
    queue.put_nowait(2)
    queue.put_nowait(None)
    assert await anext(source) == [2]
    assert await anext(source, None) is None


async def test_a_queue_is_full_by_bytes_too_and_one_item_of_any_size_fits() -> None:
    queue = BoundedQueue[int](10, 100, lambda item: item)
    await queue.put(500)
    waiting = asyncio.ensure_future(queue.put(1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await queue.get() == 500
    await waiting
    for _ in range(9):
        queue.put_nowait(1)
    assert queue.full()
    queue.get_nowait()
    queue.put_nowait(None)
    assert [queue.get_nowait() for _ in range(10)] == [1] * 9 + [None]


async def test_the_first_error_ends_all_workers() -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    cancelled = []

    async def work(batch: list[int]) -> None:
        if batch == [3]:
            raise ValueError("three")
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.append(batch)
            raise

    for number in range(5):
        queue.put_nowait(number)
    with pytest.raises(ExceptionGroup):
        await spread(batched(queue, most=1, linger=0.1), work, 4)
    assert sorted(cancelled) == [[0], [1], [2]]


class TestTokens:
    async def test_the_guess_learns_and_stays_on_the_safe_side(self) -> None:
        estimate = TokenEstimate()
        assert estimate.guess(1000) >= 500
        estimate.learn(1000, 250)
        assert 250 < estimate.guess(1000) < 300
        estimate.learn(1000, 100)
        assert estimate.guess(1000) > 250

    async def test_a_budget_waits_for_what_is_in_flight_before_it_says_no(self) -> None:
        budget = TokenBudget(100)
        assert await budget.reserve([40, 40]) == 2
        waiting = asyncio.ensure_future(budget.reserve([40]))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await budget.settle(80, 30)
        assert await waiting == 1
        await budget.settle(40, 40)
        assert await budget.reserve([20, 20]) == 1
        await budget.settle(20, 30)
        assert await budget.reserve([1]) == 0

    async def test_without_a_budget_everything_passes(self) -> None:
        budget = TokenBudget(None)
        assert await budget.reserve([10**9] * 5) == 5
        await budget.settle(0, 10**9)


class TestProgress:
    def test_the_rate_is_that_of_the_last_seconds(self) -> None:
        now = [0.0]
        progress = Progress("r", clock=lambda: now[0])
        now[0] = 2.0
        progress.wrote(100)
        assert progress.rate == 50.0
        now[0] = 11.0
        progress.wrote(100)
        assert progress.rate == 20.0
        now[0] = 40.0
        assert progress.rate == 0.0
        assert (progress.counts.vectors_written, progress.counts.batches) == (200, 2)

    @given(
        st.lists(st.tuples(st.text(max_size=600), st.text(max_size=1500)), max_size=20),
        st.text(max_size=20_000),
    )
    def test_the_termination_message_always_fits(self, letters: list[tuple[str, str]], message: str) -> None:
        state = RunState(
            run_id="r" * 63,
            phase=Phase.FAILED,
            counts=Counts(**dict.fromkeys(Counts.model_fields, 10**12)),
            reason="TooManyDeadLetters",
            message=message,
            dead_letters=[DeadLetter(document=one, reason="Reason", message=two) for one, two in letters],
        )
        data = termination_message(state)
        assert len(data) <= 4096
        read = RunState.model_validate_json(data)
        assert (read.phase, read.counts, read.reason) == (state.phase, state.counts, state.reason)

    def test_a_short_state_is_told_whole(self) -> None:
        letters = [DeadLetter(document="d", reason="R", message="m")]
        state = RunState(run_id="r", phase=Phase.SUCCEEDED_WITH_ERRORS, dead_letters=letters)
        assert RunState.model_validate_json(termination_message(state)) == state


def test_a_listing_is_kept_outside_of_memory_and_comes_back_as_it_was() -> None:
    entries = [
        Entry(f"{n}.md", f"token {n}" if n % 2 else None, n, {"path": f"é{n}", "n": n, "tags": ["a"]}, "text/plain")
        for n in range(250)
    ]
    listing = Listing()
    for entry in entries:
        listing.add(entry)
    slices = list(listing.slices(100))
    assert [len(part) for part in slices] == [100, 100, 50]
    assert [entry for part in slices for entry in part] == entries
    assert len(listing) == 250
    listing.close()


class TestStopping:
    async def test_what_is_in_flight_is_finished_and_nothing_new_begun(self) -> None:
        bench = await Bench.make()
        bench.embedder.delay = 0.05
        source = StaticSource({f"{n:04}.txt": f"text {n}" for n in range(2000)})
        run = bench.prepare(source)
        executing = asyncio.ensure_future(run.execute())
        await asyncio.sleep(0.4)
        run.stop()
        loop = asyncio.get_running_loop()
        asked = loop.time()
        state = await executing
        assert loop.time() - asked < 8.0
        assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "Interrupted", True)
        assert 0 < state.counts.vectors_written < 2000
        # Nothing that was paid for is lost.
        assert state.counts.vectors_written == state.counts.vectors_embedded == len(bench.embedder.embedded)
        assert (await bench.run(source)).phase is Phase.SUCCEEDED
        assert sorted(bench.embedder.embedded) == sorted(f"text {n}" for n in range(2000))

    async def test_what_hangs_is_given_up_after_the_grace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_frame, "GRACE_SECONDS", 0.3)
        bench = await Bench.make()
        bench.store.delay = 60.0
        run = bench.prepare(StaticSource({"a.txt": "x"}))
        executing = asyncio.ensure_future(run.execute())
        await asyncio.sleep(1.5)
        run.stop()
        state = await asyncio.wait_for(executing, 10.0)
        assert (state.phase, state.reason) == (Phase.FAILED, "Interrupted")

    async def test_a_source_that_hangs_is_left_at_once(self) -> None:
        bench = await Bench.make()
        source = StaticSource({"a.txt": "x"})

        async def hang(_: str) -> None:
            await asyncio.sleep(60)

        source.before_fetch = hang
        run = bench.prepare(source)
        executing = asyncio.ensure_future(run.execute())
        await asyncio.sleep(0.05)
        run.stop()
        state = await asyncio.wait_for(executing, 10.0)
        assert state.reason == "Interrupted"


async def test_every_dead_letter_is_logged_in_full(caplog: pytest.LogCaptureFixture) -> None:
    bench = await Bench.make()
    caplog.set_level(logging.WARNING)
    state = await bench.run({f"{n:02}.txt": "zero" for n in range(40)})
    assert (state.counts.documents_failed, len(state.dead_letters)) == (40, 20)
    logged = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "dead letter"]
    assert {fields["document"] for fields in logged} == {f"{n:02}.txt" for n in range(40)}
    assert {fields["reason"] for fields in logged} == {"ZeroVector"}


async def test_the_state_is_json_that_the_operator_reads() -> None:
    bench = await Bench.make()
    state = await bench.run({"a.txt": "x"})
    assert RunState.model_validate_json(orjson.dumps(state.dump())) == state
