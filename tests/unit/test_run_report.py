"""From what a worker told to the status of an IngestionJob.

What is checked: a run that begins clears what the last one left; progress, rate and time left; how runs end, phase by
phase, in conditions that tools understand; what the last run left stays true while something else is in the way; the
list of runs is bounded; retries back off.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.api.v1alpha1.ingestionjob import (
    ActiveRun,
    Counts,
    DeadLetter,
    IngestionJobStatus,
    Phase,
    RunnerType,
)
from vectorwright.ingest.runspec import RunState
from vectorwright.kube.status import ConditionState, merge_conditions
from vectorwright.reconcile import run_report
from vectorwright.reconcile.run_report import (
    begin,
    done_conditions,
    finish,
    idle_conditions,
    last_run_conditions,
    progress,
    retry_delay,
    running_conditions,
    summary,
)

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
RUN = ActiveRun(id="docs-1", trigger="generation-1-i1", runner=RunnerType.JOB, started_at=NOW - timedelta(seconds=100))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_report, "utc_now", lambda: NOW)


def state(phase: Phase = Phase.RUNNING, **changes: Any) -> RunState:
    counts = Counts(**changes.pop("counts", {}))
    return RunState(**{"run_id": "docs-1", "phase": phase, "counts": counts, **changes})


def running(**status: Any) -> dict[str, Any]:
    return {"phase": "Running", "run": RUN.dump(), **status}


def test_a_run_that_begins_clears_what_the_last_one_left_and_keeps_its_history() -> None:
    status: dict[str, Any] = {
        "phase": "Failed", "counts": {"chunks": 5}, "done": "1/2", "rate": "3/s", "eta": "1m", "revision": "abc",
        "verification": "Exact", "deadLetters": [{"document": "x"}], "lastSuccessAt": "2026-01-01T00:00:00Z",
        "lastRuns": [{"id": "old"}], "handledSlot": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    begin(status, RUN)
    assert status == {
        "phase": "Pending",
        "run": RUN.dump(),
        "lastSuccessAt": "2026-01-01T00:00:00Z",
        "lastRuns": [{"id": "old"}],
        "handledSlot": "2026-01-01T00:00:00Z",
    }


def test_progress_counts_what_is_done_in_whatever_way() -> None:
    status = running()
    counts = {
        "documents_listed": 100, "documents_unchanged": 20, "documents_new": 15, "documents_replaced": 10,
        "documents_failed": 3, "documents_empty": 2, "documents_deleted": 40,
    }  # fmt: skip
    progress(status, state(counts=counts, rate=12.6, revision="abc"))
    assert status["done"] == "50/100", "what was deleted is not of what was listed"
    assert (status["rate"], status["eta"], status["revision"]) == ("13/s", "1m40s", "abc")
    assert status["counts"]["documentsUnchanged"] == 20


@pytest.mark.parametrize(
    ("done", "listed", "eta"), [(0, 100, None), (100, 100, None), (99, 100, "1s"), (1, 100, "165m00s"), (5, 0, None)]
)
def test_the_time_left_is_told_once_it_can_be(done: int, listed: int, eta: str | None) -> None:
    status = running()
    progress(status, state(counts={"documents_listed": listed, "documents_new": done}))
    assert status["eta"] == eta
    assert status["rate"] is None


def test_a_revision_once_known_stays_and_dead_letters_too() -> None:
    status = running(revision="abc", deadLetters=[{"document": "a", "reason": "R", "message": "m"}])
    progress(status, state())
    assert status["revision"] == "abc"
    assert status["deadLetters"][0]["document"] == "a"
    progress(status, state(dead_letters=[DeadLetter(document="b", reason="R", message="m")]))
    assert status["deadLetters"] == [{"document": "b", "reason": "R", "message": "m"}]


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.SUCCEEDED_WITH_ERRORS, Phase.UNVERIFIED, Phase.FAILED])
def test_the_end_of_a_run_is_recorded(phase: Phase) -> None:
    status = running(eta="5s", lastRuns=[{"id": "before"}])
    finish(status, RUN, state(phase, counts={"vectors_written": 7, "documents_failed": 2}, revision="abc"))
    assert status["phase"] == phase.value
    assert "run" not in status
    assert status["eta"] is None
    assert status["lastRuns"] == [
        {
            "id": "docs-1",
            "phase": phase.value,
            "startedAt": "2026-06-15T11:58:20Z",
            "finishedAt": "2026-06-15T12:00:00Z",
            "revision": "abc",
            "written": 7,
            "failed": 2,
        },
        {"id": "before"},
    ]
    good = phase in (Phase.SUCCEEDED, Phase.SUCCEEDED_WITH_ERRORS)
    assert status.get("lastSuccessAt") == ("2026-06-15T12:00:00Z" if good else None)


def test_a_status_remembers_a_bounded_number_of_runs_and_stays_valid() -> None:
    status: dict[str, Any] = {}
    for number in range(30):
        run = RUN.model_copy(update={"id": f"docs-{number}"})
        begin(status, run)
        progress(status, state())
        finish(status, run, state(Phase.SUCCEEDED, verification="Exact"))
    assert [item["id"] for item in status["lastRuns"][:2]] == ["docs-29", "docs-28"]
    assert len(status["lastRuns"]) == 20
    IngestionJobStatus.model_validate(status)


def test_a_summary_tells_what_was_done_in_numbers() -> None:
    counts = {
        "documents_new": 1, "documents_replaced": 2, "documents_unchanged": 3, "documents_deleted": 4,
        "documents_failed": 5, "vectors_embedded": 6, "vectors_written": 7, "vectors_deleted": 8,
    }  # fmt: skip
    assert summary(state(Phase.UNVERIFIED, counts=counts, verification="Sampled", message="2 ids are missing")) == (
        "documents: 1 new, 2 replaced, 3 unchanged, 4 deleted, 5 failed; vectors: 6 embedded, 7 written, 8 deleted; "
        "verified: Sampled; 2 ids are missing"
    )


@pytest.mark.parametrize(
    ("ended", "succeeded", "reason"),
    [
        (state(Phase.SUCCEEDED), "True", "Succeeded"),
        (state(Phase.SUCCEEDED_WITH_ERRORS), "True", "SucceededWithErrors"),
        (state(Phase.UNVERIFIED, reason="IdsMissing"), "Unknown", "IdsMissing"),
        (state(Phase.FAILED, reason="BudgetExceeded"), "False", "BudgetExceeded"),
        (state(Phase.FAILED), "False", "RunFailed"),
    ],
)
def test_how_a_run_ended_is_told_by_conditions(ended: RunState, succeeded: str, reason: str) -> None:
    complete, last = last_run_conditions(ended)
    assert (complete.type, complete.status, complete.reason) == ("Complete", "True", ended.phase.value)
    assert (last.type, last.status, last.reason) == ("LastRunSucceeded", succeeded, reason)


def job(conditions: list[ConditionState] | None = None) -> IngestionJob:
    status = {"conditions": merge_conditions((), conditions or [], 1)}
    return IngestionJob.model_validate(
        {
            "metadata": {"name": "docs", "namespace": "team-a"},
            "spec": {"indexRef": {"name": "docs"}, "source": {"configMap": {"name": "texts"}}},
            "status": status,
        }
    )


def test_a_job_whose_run_goes_on_is_ready_and_still_says_how_the_last_one_ended() -> None:
    found = {item.type: item for item in running_conditions(job(last_run_conditions(state(Phase.FAILED))), "running")}
    assert (found["Ready"].status, found["Ready"].reason) == ("True", "RunStarted")
    assert (found["Complete"].status, found["Complete"].reason) == ("False", "Running")
    assert found["LastRunSucceeded"].status == "False"
    assert "Stalled" not in found


def test_a_job_that_never_ran_waits_for_its_schedule() -> None:
    assert idle_conditions(job()) == [ConditionState("Ready", "True", "Scheduled", "waits for its schedule")]


def ended_badly(message: str = "git cannot be reached") -> list[ConditionState]:
    ended = state(Phase.FAILED, reason="SourceUnreachable", message=message)
    return [
        ConditionState("Ready", "False", "SourceUnreachable", message),
        ConditionState("Stalled", "True", "SourceUnreachable", message),
        *last_run_conditions(ended),
    ]


@pytest.mark.parametrize("left", [done_conditions(state(Phase.SUCCEEDED)), ended_badly()], ids=["good", "bad"])
def test_between_two_runs_nothing_changes(left: list[ConditionState]) -> None:
    assert idle_conditions(job(left)) == left


WAITED = [
    ConditionState("Ready", "False", "IndexNotReady", "VectorIndex docs is not ready"),
    ConditionState("Reconciling", "True", "IndexNotReady", "VectorIndex docs is not ready"),
]
STALLED = [
    ConditionState("Ready", "False", "SecretNotFound", "Secret team-a/token does not exist: create it"),
    ConditionState("Stalled", "True", "SecretNotFound", "Secret team-a/token does not exist: create it"),
]
SUSPENDED = [ConditionState("Ready", "True", "Suspended", "suspended: no run is started")]


@pytest.mark.parametrize("passing", [WAITED, STALLED, SUSPENDED], ids=["waited", "stalled", "suspended"])
@pytest.mark.parametrize(
    ("ended", "ready", "reason"),
    [
        (state(Phase.SUCCEEDED), "True", "Succeeded"),
        (state(Phase.UNVERIFIED, reason="IdsMissing"), "True", "Unverified"),
        (state(Phase.FAILED, reason="BudgetExceeded"), "False", "BudgetExceeded"),
    ],
)
def test_a_fault_that_passed_leaves_what_the_last_run_left(
    passing: list[ConditionState], ended: RunState, ready: str, reason: str
) -> None:
    found = {item.type: item for item in idle_conditions(job([*passing, *last_run_conditions(ended)]))}
    assert (found["Ready"].status, found["Ready"].reason) == (ready, reason)
    assert ("Stalled" in found) == (ready == "False")
    assert "Reconciling" not in found
    assert found["Complete"].reason == ended.phase.value


def test_retries_back_off_up_to_five_minutes() -> None:
    delays = [retry_delay(attempt) for attempt in range(1, 40)]
    assert delays[:4] == [2.0, 4.0, 8.0, 16.0]
    assert delays == sorted(delays)
    assert max(delays) == 300.0
    assert retry_delay(10**9) == 300.0
