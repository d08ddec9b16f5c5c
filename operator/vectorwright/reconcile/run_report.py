"""The status of an IngestionJob: from what a worker told to what a person reads. Pure, but for the clock."""

from __future__ import annotations

from decimal import Decimal

from vectorwright.api.v1alpha1.embeddingmodel import Price
from vectorwright.api.v1alpha1.ingestionjob import ActiveRun, IngestionJob, Phase, RunRecord
from vectorwright.ingest.runspec import RunState
from vectorwright.kube.status import ConditionState, condition, rfc3339, utc_now

from .outcome import Status

MOST_RUNS = 20
"""Finished runs that a status remembers."""
RETRY_BASE, RETRY_MAX = 2.0, 300.0
"""Seconds before a failed run starts again: the first time, and at most."""
GOOD = (Phase.SUCCEEDED, Phase.SUCCEEDED_WITH_ERRORS)


def retry_delay(attempt: int) -> float:
    """Seconds before the start after ``attempt``."""
    return float(min(RETRY_MAX, RETRY_BASE * 2.0 ** min(attempt - 1, 16)))


def begin(status: Status, run: ActiveRun) -> None:
    """A run begins: what the last one left is cleared."""
    for name in ("counts", "done", "rate", "eta", "cost", "revision", "verification", "deadLetters"):
        status.pop(name, None)
    status.update(phase=Phase.PENDING.value, run=run.dump())


def handled(state: RunState) -> int:
    """Documents that a run is done with."""
    counts = state.counts
    return (
        counts.documents_unchanged
        + counts.documents_new
        + counts.documents_replaced
        + counts.documents_failed
        + counts.documents_empty
    )


def progress(status: Status, state: RunState, price: Price | None = None) -> None:
    """Take a worker's progress over; ``price`` is that of its embedding model."""
    counts, done = state.counts, handled(state)
    status["counts"] = counts.dump()
    status["done"] = f"{done}/{counts.documents_listed}"
    status["rate"] = f"{state.rate:.0f}/s" if state.rate >= 0.5 else None
    status["eta"] = _eta(status, done, counts.documents_listed)
    if price is not None:
        status["cost"] = f"{Decimal(price.per_million_tokens) * counts.tokens / 1_000_000:.4f} {price.currency}"
    status["revision"] = state.revision or status.get("revision")
    if state.dead_letters:
        status["deadLetters"] = [letter.dump() for letter in state.dead_letters]


def _eta(status: Status, done: int, listed: int) -> str | None:
    """Time left at the mean pace of this run so far."""
    run = status.get("run")
    if run is None or not done or done >= listed:
        return None
    elapsed = (utc_now() - ActiveRun.model_validate(run).started_at).total_seconds()
    left = int(elapsed / done * (listed - done))
    return f"{left // 60}m{left % 60:02d}s" if left >= 60 else f"{left}s"


def finish(status: Status, run: ActiveRun, state: RunState) -> None:
    """A run ended for good."""
    now = utc_now()
    record = RunRecord(
        id=run.id,
        phase=state.phase,
        started_at=run.started_at,
        finished_at=now,
        revision=state.revision,
        written=state.counts.vectors_written,
        failed=state.counts.documents_failed,
    )
    status.pop("run", None)
    status.update(
        phase=state.phase.value,
        eta=None,
        verification=state.verification,
        lastRuns=[record.dump(), *(status.get("lastRuns") or [])][:MOST_RUNS],
    )
    if state.phase in GOOD:
        status["lastSuccessAt"] = rfc3339(now)


def summary(state: RunState) -> str:
    """One sentence on what a run did."""
    counts = state.counts
    documents = {
        "new": counts.documents_new,
        "replaced": counts.documents_replaced,
        "unchanged": counts.documents_unchanged,
        "deleted": counts.documents_deleted,
        "failed": counts.documents_failed,
    }
    vectors = {
        "embedded": counts.vectors_embedded,
        "written": counts.vectors_written,
        "deleted": counts.vectors_deleted,
    }
    parts = [
        f"{kind}: {', '.join(f'{number} {what}' for what, number in numbers.items())}"
        for kind, numbers in (("documents", documents), ("vectors", vectors))
    ]
    if state.verification:
        parts.append(f"verified: {state.verification}")
    if state.message:
        parts.append(state.message)
    return "; ".join(parts)


def last_run_conditions(state: RunState) -> list[ConditionState]:
    """What the last run says of itself."""
    text = summary(state)
    reason = state.reason or ("RunFailed" if state.phase is Phase.FAILED else state.phase.value)
    outcome = {True: "True", False: "Unknown" if state.phase is Phase.UNVERIFIED else "False"}[state.phase in GOOD]
    return [
        ConditionState("Complete", "True", state.phase.value, text),
        ConditionState("LastRunSucceeded", outcome, reason, text),
    ]


def done_conditions(state: RunState) -> list[ConditionState]:
    """Conditions after a run that ended without a failure."""
    return [ConditionState("Ready", "True", state.phase.value, summary(state)), *last_run_conditions(state)]


def _kept(job: IngestionJob, *kinds: str) -> list[ConditionState]:
    found = (condition(job.status.dump(), kind) for kind in kinds)
    return [
        ConditionState(item["type"], item["status"], item["reason"], item["message"])
        for item in found
        if item is not None
    ]


def running_conditions(job: IngestionJob, what: str) -> list[ConditionState]:
    """Conditions while a run goes on: Ready, since a started run is all that was asked for."""
    return [
        ConditionState("Ready", "True", "RunStarted", f"a run is {what}"),
        ConditionState("Complete", "False", "Running", f"a run is {what}"),
        *_kept(job, "LastRunSucceeded"),
    ]


def result_conditions(job: IngestionJob) -> list[ConditionState]:
    """How the last run ended, whatever is told beside it."""
    return [
        item for item in _kept(job, "Complete", "LastRunSucceeded") if (item.type, item.status) != ("Complete", "False")
    ]


def idle_conditions(job: IngestionJob) -> list[ConditionState]:
    """Conditions between two runs: those that the last one left, whatever stood in the way meanwhile."""
    left = {state.type: state for state in result_conditions(job)}
    last = left.get("LastRunSucceeded")
    if last is None:
        return [ConditionState("Ready", "True", "Scheduled", "waits for its schedule")]
    phase = job.status.last_runs[0].phase.value if job.status.last_runs else last.reason
    complete = left.get("Complete") or ConditionState("Complete", "True", phase, last.message)
    failed = last.status == "False"
    ready, reason = ("False", last.reason) if failed else ("True", complete.reason)
    before = {state.type: state for state in _kept(job, "Ready", "Stalled")}
    told = before.get("Ready")
    if told is None or (told.status, told.reason) != (ready, reason) or ("Stalled" in before) != failed:
        told = ConditionState("Ready", ready, reason, last.message)
    stalled = [ConditionState("Stalled", "True", told.reason, told.message)] if failed else []
    return [told, *stalled, complete, last]
