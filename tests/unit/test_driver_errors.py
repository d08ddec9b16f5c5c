"""What the driver makes of what goes wrong, with a reconciler that the test writes.

What is checked: conflicts are looked at again soon; a retryable error backs off, or waits as it says; a terminal one
stalls; defects, of the reconciler and beside it, are logged, retried and never told in a status; an API server that is
down; what must wait for the status.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from tests.support.api_double import Write
from tests.support.driver_bench import DOCS, SPEC, Bench, failing, failing_call, fine, with_vectors
from tests.support.reconciling import NAMESPACE, resource

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.controllers.workqueue import MAX_DELAY
from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.outcome import Outcome, ready_conditions


async def test_a_conflict_is_looked_at_again_within_half_a_second(bench: Bench) -> None:
    await bench.made()
    refused: list[Write] = []

    def refuse(write: Write) -> Conflict | None:
        if len(refused) < 1:
            refused.append(write)
            return Conflict("the object has been modified", reason="Conflict")
        return None

    bench.api.before_write = refuse
    bench.step = with_vectors(2)
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert bench.status()["vectors"] == 2
    assert len(bench.passes) == 2
    assert DOCS not in bench.driver.queue._failures


async def test_a_retryable_backs_off_and_success_resets_it(bench: Bench) -> None:
    bench.step = failing(Retryable("busy", reason="StoreUnreachable"))
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle(horizon=0.6)
    assert bench.conditions()["Reconciling"] == ("True", "StoreUnreachable")
    assert bench.driver.queue._failures[DOCS] >= 1
    written = len(bench.api.writes)
    bench.driver.queue.add(DOCS)
    await bench.settle(horizon=0.0)
    assert len(bench.api.writes) == written, "the same failure is not written twice"
    bench.step = fine
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert DOCS not in bench.driver.queue._failures


async def test_retry_after_is_honoured(bench: Bench) -> None:
    bench.step = failing(Retryable("busy", after=90.0))
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle()
    assert 85 < bench.driver.queue._due[DOCS] - time.monotonic() <= 90


async def test_a_terminal_error_stalls_and_is_looked_at_again_only_where_it_says_so(bench: Bench) -> None:
    bench.step = failing(Terminal("wrong dimension", reason="InvalidDimension"))
    await bench.made()
    assert bench.conditions()["Stalled"] == ("True", "InvalidDimension")
    assert DOCS not in bench.driver.queue._due
    bench.step = failing(Terminal("wrong dimension", reason="InvalidDimension"), requeue_after=60.0)
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert 58 < bench.driver.queue._due[DOCS] - time.monotonic() <= 60


async def test_a_defect_is_logged_retried_and_never_told_in_the_status(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.step = failing_call(KeyError("password=hunter2"))
    with caplog.at_level(logging.ERROR):
        bench.api.apply(resource("VectorIndex", "docs", SPEC))
        await bench.settle(horizon=0.0)
    assert bench.conditions()["Ready"] == ("False", "InternalError")
    assert bench.message() == "internal error: the operator's log tells more"
    assert "hunter2" not in str(bench.api.objects)
    assert "this is a defect of the operator" in caplog.text
    assert 0 < bench.driver.queue._due[DOCS] - time.monotonic() < MAX_DELAY
    bench.step = fine
    await bench.settle()
    assert bench.conditions()["Ready"] == ("True", "Ready")


@pytest.mark.parametrize("where", ["dependents", "once_written", "gone"])
async def test_a_defect_beside_the_reconciler_does_not_end_the_queue(bench: Bench, where: str) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("spec")

    await bench.made()
    if where == "dependents":
        bench.dependents = _BrokenKeys()
        bench.step = with_vectors(3)
    elif where == "once_written":

        async def step(_context: Context, _index: VectorIndex) -> Outcome:
            return Outcome({"vectors": 3}, ready_conditions("fine"), once_written=broken)

        bench.step = step
    else:
        bench._gone_handler = broken  # type: ignore[method-assign, assignment]
        bench.api.remove("VectorIndex", NAMESPACE, "docs")
    bench.driver.queue.add(DOCS)
    await bench.settle(horizon=0.0)
    bench.dependents, bench.step = [], fine
    bench.api.apply(resource("VectorIndex", "other", SPEC))
    await bench.settle(horizon=0.0)
    assert bench.conditions("other")["Ready"] == ("True", "Ready")


class _BrokenKeys(list[Key]):
    def __iter__(self) -> Any:
        raise KeyError("spec")


async def test_an_api_server_that_is_down_is_tried_again(bench: Bench) -> None:
    down = [True]
    bench.api.before_write = lambda _: Retryable("the API server cannot be reached") if down else None
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle(horizon=0.0)
    assert bench.status() == {}
    down.clear()
    await bench.settle()
    assert bench.conditions()["Ready"] == ("True", "Ready")


async def test_what_must_wait_for_the_status_happens_after_it(bench: Bench) -> None:
    order: list[object] = []

    async def then() -> None:
        order.append(bench.status().get("vectors"))

    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        return Outcome({"vectors": 42}, ready_conditions("fine"), once_written=then)

    bench.step = step
    bench.api.before_write = lambda write: (
        Retryable("down") if write.body["status"].get("vectors") and not order and len(bench.passes) == 1 else None
    )
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle()
    assert order == [42], "not called while the status was not written"
    assert len(bench.passes) == 2
