"""Conditions and status patches.

What is checked: a merge patch turns any status into any other and is empty only for equal ones; transition times move
only with the status of a condition; only current conditions stay; long messages are cut; kstatus reads each outcome of
a pass as what it is.
"""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.api_double import merge

from vectorwright.errors import BatchTooLarge, Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube import status as module
from vectorwright.kube.status import (
    MAX_MESSAGE,
    ConditionState,
    condition,
    is_true,
    merge_conditions,
    merge_patch,
    rfc3339,
    shortened,
)
from vectorwright.reconcile.outcome import error_conditions, is_stalling, ready_conditions, waiting_conditions

_values = st.recursive(
    st.text(max_size=3) | st.integers(-3, 3).map(lambda number: number * 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)
_statuses = st.dictionaries(st.sampled_from("abcd"), _values, max_size=4)


@given(_statuses, _statuses)
def test_the_patch_turns_one_status_into_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = copy.deepcopy((old, new))
    patch = merge_patch(old, new)
    assert merge(old, patch) == new
    assert bool(patch) == (old != new)
    assert (old, new) == before


def test_a_patch_holds_only_what_changed() -> None:
    old = {"phase": "Running", "counts": {"chunks": 1, "tokens": 2}, "eta": "5s", "list": [1]}
    new = {"phase": "Running", "counts": {"chunks": 9, "tokens": 2}, "list": [1, 2]}
    assert merge_patch(old, new) == {"counts": {"chunks": 9}, "eta": None, "list": [1, 2]}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    now = [datetime(2026, 1, 31, 12, tzinfo=UTC)]
    monkeypatch.setattr(module, "utc_now", lambda: now[0])
    return now


def test_a_transition_time_moves_with_the_status_alone(clock: list[datetime]) -> None:
    first = merge_conditions((), [ConditionState("Ready", "False", "Waiting", "a")], 1)
    assert first == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Waiting",
            "message": "a",
            "lastTransitionTime": "2026-01-31T12:00:00Z",
            "observedGeneration": 1,
        }
    ]
    clock[0] += timedelta(minutes=1)
    second = merge_conditions(first, [ConditionState("Ready", "False", "Broken", "b")], 2)
    assert second[0]["lastTransitionTime"] == "2026-01-31T12:00:00Z"
    assert (second[0]["reason"], second[0]["message"], second[0]["observedGeneration"]) == ("Broken", "b", 2)
    third = merge_conditions(second, [ConditionState("Ready", "True", "Ready", "c")], 2)
    assert third[0]["lastTransitionTime"] == "2026-01-31T12:01:00Z"


def test_merging_the_same_again_changes_nothing(clock: list[datetime]) -> None:
    states = [*ready_conditions("fine"), ConditionState("Drifted", "True", "Drifted", "x" * 5000)]
    first = merge_conditions((), states, 3)
    clock[0] += timedelta(hours=1)
    assert merge_conditions(first, states, 3) == first


def test_a_condition_that_is_no_longer_true_goes(clock: list[datetime]) -> None:
    first = merge_conditions((), error_conditions(Terminal("wrong")), 1)
    assert [item["type"] for item in first] == ["Ready", "Stalled", "Synced"]
    assert [item["type"] for item in merge_conditions(first, ready_conditions("ok"), 1)] == ["Ready", "Synced"]


def test_messages_are_cut_to_a_length_that_the_api_server_takes() -> None:
    assert shortened("x" * MAX_MESSAGE) == "x" * MAX_MESSAGE
    cut = shortened("x" * (MAX_MESSAGE + 1))
    assert len(cut) == MAX_MESSAGE
    assert cut.endswith("…")
    assert shortened(cut) == cut


def test_times_are_written_as_kubernetes_does() -> None:
    berlin = timezone(timedelta(hours=1))
    assert rfc3339(datetime(2026, 1, 31, 13, 0, 5, 999, tzinfo=berlin)) == "2026-01-31T12:00:05Z"


def test_conditions_are_found_by_type() -> None:
    status = {"conditions": merge_conditions((), ready_conditions("ok"), 1)}
    assert is_true(status, "Ready")
    assert not is_true(status, "Stalled")
    assert condition(status, "Stalled") is None
    assert condition({}, "Ready") is None
    assert condition({"conditions": None}, "Ready") is None


def kstatus(conditions: list[ConditionState]) -> str:
    """What tools that follow kstatus make of an object whose observedGeneration is current."""
    found = {state.type: state.status for state in conditions}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "InProgress" if found.get("Ready") in ("False", "Unknown") else "Current"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (ready_conditions("ok"), "Current"),
        (waiting_conditions("StoreNotReady", "soon"), "InProgress"),
        (waiting_conditions("Reconciling", "new", ready="Unknown"), "InProgress"),
        (error_conditions(Retryable("busy")), "InProgress"),
        (error_conditions(Terminal("wrong")), "Failed"),
        (error_conditions(Conflict("taken")), "Failed"),
        (error_conditions(NotFound("absent")), "Failed"),
    ],
)
def test_tools_read_each_outcome_as_what_it_is(conditions: list[ConditionState], expected: str) -> None:
    assert kstatus(conditions) == expected
    assert len({state.type for state in conditions}) == len(conditions)


@pytest.mark.parametrize("error", [Terminal("x"), Conflict("x"), NotFound("x"), BatchTooLarge("x")])
def test_only_what_can_pass_by_itself_is_in_progress(error: VectorwrightError) -> None:
    assert is_stalling(error)
    assert not is_stalling(Retryable("x"))
    assert {state.reason for state in error_conditions(error)} == {error.reason, "ReconcileError"}
