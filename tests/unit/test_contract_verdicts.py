"""The judge of the fault matrix is strict: what it lets pass is right, and what is wrong it names.

- every fault has errors that are right and others that are not
- a credential anywhere in an error, its causes included, is found; so is text without bounds
- a fault that no request met proves nothing
- a plan gives its fault to the requests that it was armed for, and tells which transport met it
"""

from __future__ import annotations

import pytest
from tests.contract.calls import CALLS, Call
from tests.contract.fault_plan import FAULTS, RETRY_AFTER, FaultPlan
from tests.contract.verdicts import Met, problem

from vectorwright.errors import BatchRejected, BatchTooLarge, Conflict, NotFound, Retryable, Terminal

CALL = {call.name: call for call in CALLS}
THROTTLED = Retryable("busy", reason="Throttled", after=RETRY_AFTER)
RIGHT: dict[str, list[Exception]] = {
    "timeout": [Retryable("late", reason="Timeout")],
    "reset": [Retryable("gone", reason="Unreachable")],
    "401": [Terminal("no", reason="AccessDenied")],
    "403": [Terminal("no", reason="AccessDenied")],
    "404": [NotFound("absent"), Terminal("absent", reason="DatabaseNotFound")],
    "404 of a proxy": [Retryable("who?", reason="UnexpectedAnswer")],
    "409": [Conflict("taken"), Retryable("busy")],
    "413": [BatchTooLarge("large")],
    "429": [THROTTLED],
    "500": [Retryable("down")],
    "503": [Retryable("down"), THROTTLED],
    "garbage": [Retryable("who?", reason="UnexpectedAnswer")],
}
WRONG: dict[str, list[object]] = {
    "timeout": [Retryable("gone", reason="Unreachable"), Terminal("no"), TimeoutError()],
    "reset": [Retryable("late", reason="Timeout"), ConnectionResetError()],
    "401": [Retryable("no"), BatchRejected("no", reason="AccessDenied"), Terminal("no")],
    "403": [NotFound("no"), Terminal("no")],
    "404": [Retryable("who?"), Conflict("taken"), Terminal("no")],
    "404 of a proxy": [NotFound("absent"), Terminal("no")],
    "409": [NotFound("absent"), Terminal("no"), BatchRejected("no")],
    "413": [BatchRejected("no"), Terminal("no"), Retryable("later")],
    "429": [Retryable("busy", reason="Throttled"), Retryable("busy", after=RETRY_AFTER), Terminal("no")],
    "500": [Terminal("no"), BatchRejected("no"), NotFound("absent")],
    "503": [Terminal("no"), ValueError("not ours")],
    "garbage": [Terminal("no"), NotFound("absent"), None],
}


def met(fault: str, result: object, call: Call = CALL["upsert"], transport: str = "http") -> Met:
    return Met(call, fault, 1, 2, [transport], result)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_right_passes_and_what_is_wrong_does_not(fault: str) -> None:
    assert [problem(met(fault, error), ["secret"]) for error in RIGHT[fault]] == [None] * len(RIGHT[fault])
    assert all(problem(met(fault, error), ["secret"]) for error in WRONG[fault])


def test_credentials_and_endless_text_are_found() -> None:
    assert problem(met("500", Retryable("you sent s3cr3t")), ["s3cr3t"]) == "it shows a credential"
    caused = Retryable("down")
    caused.__cause__ = ValueError("Authorization: s3cr3t")
    assert problem(met("500", caused), ["s3cr3t"]) == "it shows a credential"
    assert "characters" in (problem(met("500", Retryable("x" * 2_000)), ["s3cr3t"]) or "")


def test_a_fault_that_nobody_met_proves_nothing() -> None:
    unmet = Met(CALL["count"], "500", 0, 1, [], Retryable("down"))
    assert problem(unmet, []) == "no request met the fault"


def test_every_call_of_the_protocol_is_in_the_matrix() -> None:
    from vectorwright.stores.base import Store

    methods = {name for name in vars(Store) if not name.startswith("_") and callable(getattr(Store, name))}
    assert methods - {"close"} <= {call.name for call in CALLS}


def test_a_plan_counts_and_gives() -> None:
    plan = FaultPlan()
    assert [plan.next("http"), plan.next("grpc")] == [None, None]
    assert plan.seen == 2
    plan.arm("500", 1)
    assert [plan.next("http"), plan.next("grpc"), plan.next("http")] == [None, "500", "500"]
    assert plan.met == ["grpc", "http"]
    plan.disarm()
    assert plan.over.is_set()
    assert plan.next("http") is None
