"""Budgets: the mean rate holds, a share that is handed over holds at once, silence leads to the floor."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.limits import CONTACT_SECONDS, Limits, Share, TokenBucket
from vectorwright.ingest.retry import LONGEST_RETRY_AFTER, Retrier


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_bucket_holds_its_mean_rate_for_requests_of_any_size() -> None:
    bucket = TokenBucket(200.0)
    started = time.monotonic()
    await asyncio.gather(*(bucket.take(20) for _ in range(30)))
    assert 1.9 < time.monotonic() - started < 10
    await bucket.take(600)
    await bucket.take(1)
    assert 4.9 < time.monotonic() - started < 30


async def test_a_raised_rate_frees_who_waits() -> None:
    bucket = TokenBucket(0.1)
    await bucket.take()
    waiting = asyncio.ensure_future(bucket.take())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    bucket.set_rate(1000.0)
    await asyncio.wait_for(waiting, 1.0)
    bucket.set_rate(None)
    await bucket.take(10**9)


async def test_silence_leads_to_the_floor_and_contact_back() -> None:
    clock = Clock()
    limits = Limits(Share(requests_per_second=40, embed_tokens_per_minute=6000), clock=clock)
    clock.now = CONTACT_SECONDS + 1
    limits.check_contact()
    assert limits.alone
    assert (limits.requests.rate, limits.embed_tokens.rate, limits.bytes.rate) == (10, 25, None)
    limits.heard()
    assert (limits.alone, limits.requests.rate, limits.embed_tokens.rate) == (False, 40, 100)
    limits.check_contact()
    assert not limits.alone


def test_a_grant_changes_what_it_names_and_null_lifts_a_limit() -> None:
    limits = Limits(Share(requests_per_second=40, bytes_per_second=1000))
    limits.grant({"requestsPerSecond": 8, "embedRequestsPerMinute": 120})
    assert limits.share == Share(8, 1000, 120, None)
    limits.grant({"requestsPerSecond": None})
    assert limits.requests.rate is None
    assert limits.embed_requests.rate == 2


@pytest.mark.parametrize(
    "budget", [{"requestsPerSecond": 0}, {"bytesPerSecond": "9"}, {"bytesPerSecond": True}, {"what": 1}]
)
def test_a_budget_that_makes_no_sense_changes_nothing(budget: dict[str, object]) -> None:
    limits = Limits(Share(requests_per_second=40))
    with pytest.raises(Terminal) as error:
        limits.grant({"embedRequestsPerMinute": 5} | budget)
    assert error.value.reason == "InvalidBudget"
    assert limits.share == Share(requests_per_second=40)


class TestRetrier:
    async def test_backoff_doubles_with_full_jitter_and_honours_retry_after(self) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        retrier = Retrier(5, sleep=sleep, rng=random.Random(3))
        errors: list[Retryable | None] = [
            Retryable("x"),
            Retryable("x", after=7.0),
            Retryable("x"),
            Retryable("x"),
            None,
        ]

        async def call() -> str:
            error = errors.pop(0)
            if error is not None:
                raise error
            return "done"

        assert await retrier.call(call) == "done"
        assert len(slept) == 4
        assert slept[1] >= 7.0
        assert all(pause <= bound for pause, bound in zip(slept[2:], (2.0, 4.0), strict=True))
        assert len(set(slept)) == 4

    async def test_the_last_error_is_raised_and_others_at_once(self) -> None:
        retried = []

        async def sleep(_: float) -> None:
            return None

        retrier = Retrier(3, sleep=sleep, on_retry=lambda: retried.append(1))

        async def down() -> None:
            raise Retryable("down")

        async def wrong() -> None:
            raise Terminal("wrong")

        async def long() -> None:
            raise Retryable("busy", after=LONGEST_RETRY_AFTER + 1)

        with pytest.raises(Retryable):
            await retrier.call(down)
        assert len(retried) == 2
        with pytest.raises(Terminal):
            await retrier.call(wrong)
        with pytest.raises(Retryable):
            await retrier.call(long)
        assert len(retried) == 2
