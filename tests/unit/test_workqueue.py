"""The queue of objects that wait to be looked at.

What is checked: one worker a key at a time; what arrives meanwhile runs after; many additions are one; delays, and that
something earlier wins; backoff that grows within its bounds, honours what was asked for and is forgotten after success;
nobody starves; what is gone is forgotten; no growth without bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.support.polling import until

from vectorwright.controllers.workqueue import BASE_DELAY, MAX_DELAY, WorkQueue
from vectorwright.reconcile.cache import Key


def key(name: str = "a", kind: str = "VectorIndex") -> Key:
    return Key(kind, "team-a", name)


@asynccontextmanager
async def running(work: Callable[[Key], Awaitable[None]], workers: int = 4) -> AsyncIterator[WorkQueue]:
    queue = WorkQueue(work, workers)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_key_is_worked_on_by_one_worker_at_a_time_and_again_for_what_arrived_meanwhile() -> None:
    working: Counter[Key] = Counter()
    passes: Counter[Key] = Counter()
    most: Counter[Key] = Counter()

    async def work(item: Key) -> None:
        working[item] += 1
        most[item] = max(most[item], working[item])
        await asyncio.sleep(0.01)
        passes[item] += 1
        working[item] -= 1

    async with running(work, 8) as queue:
        queue.add(key("a"))
        await until(lambda: working[key("a")] == 1)
        for _ in range(50):
            queue.add(key("a"))
            queue.add(key("b"))
        await until(lambda: passes[key("a")] >= 2 and passes[key("b")] >= 1)
        await asyncio.sleep(0.05)
    assert most == {key("a"): 1, key("b"): 1}
    assert passes == {key("a"): 2, key("b"): 1}


async def test_different_keys_are_worked_on_together_but_by_no_more_workers_than_there_are() -> None:
    inside = most = done = 0

    async def work(_: Key) -> None:
        nonlocal inside, most, done
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1
        done += 1

    async with running(work, 3) as queue:
        for number in range(12):
            queue.add(key(str(number)))
        await until(lambda: done == 12)
    assert most == 3


async def test_a_key_that_asks_for_itself_all_the_time_does_not_starve_others() -> None:
    done: list[str] = []

    async def work(item: Key) -> None:
        done.append(item.name)
        await asyncio.sleep(0)
        if item.name == "greedy":
            queue.add(item)

    async with running(work, 1) as queue:
        queue.add(key("greedy"))
        await until(lambda: len(done) > 5)
        for number in range(20):
            queue.add(key(f"modest-{number}"))
        await until(lambda: len([name for name in done if name != "greedy"]) == 20)
    first = next(at for at, name in enumerate(done) if name != "greedy")
    between = done[first : first + 25]
    assert between.count("greedy") <= 5


async def test_delays_end_in_their_order() -> None:
    done: list[str] = []

    async def work(item: Key) -> None:
        done.append(item.name)

    async with running(work) as queue:
        queue.add_after(key("late"), 0.12)
        queue.add_after(key("soon"), 0.03)
        queue.add(key("now"))
        queue.add_after(key("at once"), -5)
        await until(lambda: len(done) == 4)
    assert done in (["now", "at once", "soon", "late"], ["at once", "now", "soon", "late"])


async def test_of_two_delays_the_earlier_wins_and_the_later_is_none() -> None:
    done: list[float] = []

    async def work(_: Key) -> None:
        done.append(time.monotonic())

    async with running(work) as queue:
        begun = time.monotonic()
        queue.add_after(key(), 60)
        queue.add_after(key(), 0.05)
        queue.add_after(key(), 30)
        await until(lambda: bool(done))
        await asyncio.sleep(0.05)
        assert key() not in queue._due
    assert len(done) == 1
    assert done[0] - begun > 0.045


async def test_being_added_takes_the_place_of_a_delay() -> None:
    passes = 0

    async def work(_: Key) -> None:
        nonlocal passes
        passes += 1

    async with running(work) as queue:
        queue.add_after(key(), 0.05)
        queue.add(key())
        await asyncio.sleep(0.15)
    assert passes == 1


async def test_a_delay_that_ends_while_the_key_is_worked_on_runs_after() -> None:
    passes = 0

    async def work(_: Key) -> None:
        nonlocal passes
        passes += 1
        if passes == 1:
            queue.add_after(key(), 0.01)
            await asyncio.sleep(0.05)
            assert passes == 1

    async with running(work) as queue:
        queue.add(key())
        await until(lambda: passes == 2)
        await asyncio.sleep(0.05)
    assert passes == 2


async def _nothing(_: Key) -> None:
    return


async def test_backoff_doubles_up_to_a_ceiling_with_half_of_it_random() -> None:
    queue = WorkQueue(_nothing, 1)
    seen = []
    for failures in range(1, 40):
        ceiling = min(MAX_DELAY, BASE_DELAY * 2 ** (failures - 1))
        delay = queue.failed(key())
        assert ceiling / 2 <= delay <= ceiling
        seen.append(delay)
    assert len(set(seen)) == len(seen), "no jitter"
    assert seen[-1] >= MAX_DELAY / 2


async def test_success_and_the_end_of_an_object_forget_its_failures() -> None:
    queue = WorkQueue(_nothing, 1)
    for forget in (queue.succeeded, queue.forget):
        for _ in range(8):
            queue.failed(key())
        forget(key())
        assert queue.failed(key()) <= BASE_DELAY
        forget(key())
    assert not queue._failures


@pytest.mark.parametrize("after", [0.0, 7.0, 1000.0])
async def test_what_the_outside_asked_for_is_a_least_delay(after: float) -> None:
    queue = WorkQueue(_nothing, 1)
    begun = time.monotonic()
    delay = queue.failed(key(), after)
    assert delay >= after
    assert queue._due[key()] >= begun + after


async def test_what_is_gone_does_not_come_back_by_a_delay() -> None:
    passes = 0

    async def work(_: Key) -> None:
        nonlocal passes
        passes += 1

    async with running(work) as queue:
        queue.add_after(key(), 0.03)
        queue.forget(key())
        await asyncio.sleep(0.1)
    assert passes == 0


async def test_delays_that_were_cut_short_do_not_pile_up() -> None:
    """A job with a weekly schedule whose index changes every few seconds."""
    queue = WorkQueue(_nothing, 1)
    for _ in range(10_000):
        queue.add_after(key(), 7 * 24 * 3600)
        queue.add(key())
    assert len(queue._timers) < 200


async def test_the_depth_is_told_by_kind() -> None:
    gate = asyncio.Event()

    async def work(_: Key) -> None:
        await gate.wait()

    async with running(work, 1) as queue:
        for number in range(3):
            queue.add(key(str(number)))
        queue.add(key("x", "IngestionJob"))
        assert (queue.depth("VectorIndex"), queue.depth("IngestionJob"), len(queue)) == (3, 1, 4)
        await until(lambda: queue.depth("VectorIndex") == 2)
        gate.set()
        await until(lambda: len(queue) == 0)
        assert (queue.depth("VectorIndex"), queue.depth("IngestionJob")) == (0, 0)


async def test_a_thousand_keys_at_once_are_all_done_once() -> None:
    done: Counter[Key] = Counter()

    async def work(item: Key) -> None:
        await asyncio.sleep(0)
        done[item] += 1

    async with running(work, 16) as queue:
        for number in range(1000):
            queue.add(key(str(number)))
            queue.add_after(key(str(number)), 0.0)
        await until(lambda: len(done) == 1000 and not len(queue))
        await asyncio.sleep(0.05)
    assert set(done.values()) <= {1, 2}
