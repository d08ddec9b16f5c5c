"""IngestionJob: start a run when one is due, follow it, record how it ended."""

from __future__ import annotations

import functools
import logging
import time
from datetime import datetime

from vectorwright.api.cron import next_slot
from vectorwright.api.v1alpha1.common import API_VERSION, FINALIZER
from vectorwright.api.v1alpha1.embeddingmodel import Price
from vectorwright.api.v1alpha1.ingestionjob import ActiveRun, IngestionJob, Phase
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.ingest.runspec import RunState
from vectorwright.kube.status import ConditionState, rfc3339, utc_now
from vectorwright.observability import metrics

from . import run_report
from .cache import Key
from .connections import Reference, remember_uses
from .context import Context
from .finalizers import add_finalizer, remove_finalizer
from .handover import RunInputs, renewed_digest
from .outcome import Outcome, Status, failed, waiting_conditions
from .run_budget import share
from .run_inputs import gather
from .run_renewal import MENDED_BY_CREDENTIALS, credentials_now
from .runner_base import Look
from .triggers import Trigger, due, run_id

log = logging.getLogger(__name__)

POLL = 2.0
"""Seconds between two looks at a running worker."""
STATUS_EVERY = 5.0
"""Seconds between two writes of progress to a status."""


def worker_name(run: ActiveRun) -> str:
    """Name of one start of a run: of its Job, for a Job."""
    return f"{run.id}-{run.attempt}"


async def reconcile(context: Context, job: IngestionJob) -> Outcome:
    """One pass over one job."""
    key = Key("IngestionJob", *job.key)
    if job.deleting:
        return await _finalize(context, key, job)
    await add_finalizer(context, key, job.metadata)
    status: Status = job.status.dump()
    status["index"] = job.spec.index_ref.name
    used: list[Reference] = []
    try:
        if job.spec.suspend:
            return await _suspend(context, key, job, status, "Suspended", "suspended: no run is started")
        if context.settings.read_only:
            told = "this installation is read-only: no run is started"
            return await _suspend(context, key, job, status, "ReadOnly", told)
        if job.spec.schedule is not None:
            upcoming = next_slot(job.spec.schedule, utc_now())
            status["nextRunAt"] = rfc3339(upcoming) if upcoming else None
        if job.status.run is not None and job.status.handled_generation == job.metadata.generation:
            return await _follow(context, key, job, job.status.run, status, used)
        if job.status.run is not None:
            log.info("the spec changed: stopping run %s", job.status.run.id)
            await _stop(context, key, job.status.run)
            status.pop("run", None)
        inputs = await gather(context, job, "", used)
        return await _start_if_due(context, key, job, inputs, status)
    except VectorwrightError as error:
        return _not_started(error, job, status)
    finally:
        remember_uses(context, key, used)


def _not_started(error: VectorwrightError, job: IngestionJob, status: Status) -> Outcome:
    settled = job.status.run is None and job.status.handled_generation == job.metadata.generation
    if settled and isinstance(error, Retryable):
        # Nothing that this generation asks for is undone: what the last run left stays true while others recover.
        return Outcome(status, run_report.idle_conditions(job), requeue_after=30.0)
    if "run" not in status:
        status["phase"] = Phase.PENDING.value if isinstance(error, Retryable) else Phase.FAILED.value
    if isinstance(error, Retryable):
        # What it waits for wakes it when it comes; a look now and then costs nothing.
        conditions = [*waiting_conditions(error.reason, error.message), *run_report.result_conditions(job)]
        return Outcome(status, conditions, requeue_after=30.0)
    outcome = failed(error, status)
    outcome.conditions += run_report.result_conditions(job)
    outcome.requeue_after = 60.0
    return outcome


async def _start_if_due(context: Context, key: Key, job: IngestionJob, inputs: RunInputs, status: Status) -> Outcome:
    now = utc_now()
    trigger = due(job, inputs.incarnation, now) or _repaired(context, key, job, inputs)
    if trigger is None:
        return _idle(job, status, now)
    kind = context.runners.choose(job)
    run = ActiveRun(id=run_id(job, trigger), trigger=trigger.name, runner=kind, started_at=now, attempt=1)
    status.update(trigger.handled)
    run_report.begin(status, run)
    # The run is in the status before its worker exists: whoever comes after us finds it, and starts it once.
    log.info("run %s is due (%s)", run.id, trigger.name)
    return Outcome(status, run_report.running_conditions(job, "starting"), requeue_after=0.0)


def _repaired(context: Context, key: Key, job: IngestionJob, inputs: RunInputs) -> Trigger | None:
    """A run is due when the last one failed and a Secret, a ConfigMap or the store's address changed since."""
    if not job.status.last_runs or job.status.last_runs[0].phase is not Phase.FAILED:
        return None
    digest = inputs.digest()
    if context.handed.setdefault(key, digest) == digest:
        return None
    return Trigger(f"repaired-{digest}", {})


def _idle(job: IngestionJob, status: Status, now: datetime) -> Outcome:
    outcome = Outcome(status, run_report.idle_conditions(job))
    if job.status.last_runs:
        status["phase"] = job.status.last_runs[0].phase.value
    if job.spec.schedule is not None and (slot := next_slot(job.spec.schedule, now)) is not None:
        outcome.requeue_after = max(0.5, (slot - utc_now()).total_seconds() + 0.2)
    return outcome


async def _follow(
    context: Context, key: Key, job: IngestionJob, run: ActiveRun, status: Status, used: list[Reference]
) -> Outcome:
    """Look at the run that is going on; start its worker where there is none."""
    runner = context.runners.get(run.runner)
    name = worker_name(run)
    look = await runner.look(key.namespace, name, share(context, key))
    if look.finished:
        await _renew(context, key, job, run, look, used)
        return await _finish(context, key, job, run, look, status)
    if look.exists:
        if key not in context.runs:
            await _know_again(context, key, job, run, used)
        await _renew(context, key, job, run, look, used)
        return _progress(context, key, job, look, status)
    wait = context.retry_at.get(key, 0.0) - time.monotonic()
    if wait > 0:
        conditions = waiting_conditions("Retrying", f"run {run.id} starts again in {wait:.0f} s", ready="True")
        return Outcome(status, conditions, requeue_after=wait)
    inputs = await gather(context, job, run.id, used)
    if inputs.incarnation != job.status.handled_incarnation:
        status.pop("run", None)
        return await _start_if_due(context, key, job, inputs, status)
    context.runs[key] = (inputs.backend_id, inputs.spec)
    context.handed[key] = inputs.digest()
    await runner.start(job, name, inputs)
    if run.attempt == 1 and key not in context.retry_at:
        _tell(context, key, "RunStarted", f"run {run.id} started ({run.trigger})")
    metrics.JOB_RUNNING.set(*job.key, 1)
    status["phase"] = Phase.RUNNING.value
    return Outcome(status, run_report.running_conditions(job, "running"), requeue_after=min(POLL, 1.0))


async def _know_again(context: Context, key: Key, job: IngestionJob, run: ActiveRun, used: list[Reference]) -> None:
    """A run that the process before this one started takes its share of the limits, too."""
    try:
        inputs = await gather(context, job, run.id, used)
    except VectorwrightError as error:
        log.debug("the limits of run %s are not known again yet: %s", run.id, error.message)
        return
    context.runs[key] = (inputs.backend_id, inputs.spec)
    metrics.JOB_RUNNING.set(*job.key, 1)


async def _renew(
    context: Context, key: Key, job: IngestionJob, run: ActiveRun, look: Look, used: list[Reference]
) -> None:
    """Let the worker have the credentials of now: a Secret that changes neither ends its run nor starts another one."""
    try:
        files = await credentials_now(context, job, used)
    except VectorwrightError as error:
        log.debug("the credentials of run %s stay as they are: %s", run.id, error.message)
        return
    if look.finished:
        # A pod may have had the newest ones or not. Where that cannot have been the fault, it is as if it had.
        failure = look.state.reason if look.state is not None else None
        has_them = failure not in MENDED_BY_CREDENTIALS
    else:
        has_them = await context.runners.get(run.runner).renew(key.namespace, worker_name(run), files)
    if has_them and key in context.handed:
        context.handed[key] = renewed_digest(context.handed[key], files)


def _progress(context: Context, key: Key, job: IngestionJob, look: Look, status: Status) -> Outcome:
    last, now = context.progress_written.get(key, 0.0), time.monotonic()
    if look.state is not None and now - last >= STATUS_EVERY:
        context.progress_written[key] = now
        run_report.progress(status, look.state, _price(context, key))
        _count(job, look.state)
    status["phase"] = Phase.RUNNING.value
    return Outcome(status, run_report.running_conditions(job, "running"), requeue_after=POLL)


async def _finish(context: Context, key: Key, job: IngestionJob, run: ActiveRun, look: Look, status: Status) -> Outcome:
    """Record how the run ended; start it again, after a while, where that can help."""
    state = look.state or RunState(
        run_id=run.id, phase=Phase.FAILED, reason="WorkerDied", message=look.died or "the worker died", retryable=True
    )
    run_report.progress(status, state, _price(context, key))
    _count(job, state)
    runner = context.runners.get(run.runner)
    if state.phase is Phase.FAILED and state.retryable:
        await runner.stop(key.namespace, worker_name(run))
        error = Retryable(state.message or "the run failed", reason=state.reason or "RunFailed")
        delay = run_report.retry_delay(run.attempt)
        context.retry_at[key] = time.monotonic() + delay
        again = run.model_copy(update={"attempt": run.attempt + 1})
        status.update(run=again.dump(), phase=Phase.PENDING.value)
        told = f"{error.message} (start {again.attempt} in {delay:.0f} s)"
        log.warning("run %s failed: %s: %s", run.id, error.reason, told)
        _tell(context, key, error.reason, error.message, warning=True)
        return Outcome(status, waiting_conditions(error.reason, told, ready="True"), requeue_after=delay)
    run_report.finish(status, run, state)
    context.retry_at.pop(key, None)
    context.runs.pop(key, None)
    metrics.JOB_RUNNING.set(*job.key, 0)
    if status.get("lastSuccessAt"):
        metrics.JOB_LAST_SUCCESS.set(*job.key, datetime.fromisoformat(status["lastSuccessAt"]).timestamp())
    message = run_report.summary(state)
    log.info("run %s ended: %s: %s", run.id, state.phase.value, message)
    _tell(context, key, f"Run{state.phase.value}", message, warning=state.phase is not Phase.SUCCEEDED)
    outcome = _ended(job, state, status)
    outcome.once_written = functools.partial(runner.stop, key.namespace, worker_name(run))
    return outcome


def _ended(job: IngestionJob, state: RunState, status: Status) -> Outcome:
    if state.phase is Phase.FAILED:
        outcome = failed(Terminal(state.message or "the run failed", reason=state.reason or "RunFailed"), status)
        outcome.conditions = [item for item in outcome.conditions if item.type != "Synced"]
        outcome.conditions += run_report.last_run_conditions(state)
    else:
        outcome = Outcome(status, run_report.done_conditions(state))
    outcome.requeue_after = 0.0 if job.spec.schedule is not None else 1.0
    return outcome


def _price(context: Context, key: Key) -> Price | None:
    """The price of the model that a run embeds with; None where it has none, or this process did not start the run."""
    _, spec = context.runs.get(key, ("", None))
    return spec.embedder.spec.price if spec is not None and spec.embedder is not None else None


def _count(job: IngestionJob, state: RunState) -> None:
    """Take the run's own counts over into the metrics."""
    counts, run = state.counts, state.run_id
    for outcome, total in (
        ("done", counts.documents_new + counts.documents_replaced),
        ("unchanged", counts.documents_unchanged),
        ("failed", counts.documents_failed),
        ("deleted", counts.documents_deleted),
    ):
        metrics.INGEST_DOCUMENTS.follow(*job.key, run, total, outcome=outcome)
    metrics.INGEST_VECTORS.follow(*job.key, run, counts.vectors_written)
    metrics.INGEST_TOKENS.follow(*job.key, run, counts.tokens)
    metrics.INGEST_BATCHES.follow(*job.key, run, counts.batches)
    metrics.INGEST_RETRIES.follow(*job.key, run, counts.retries)
    metrics.DEAD_LETTERS.follow(*job.key, run, counts.documents_failed + counts.vectors_failed)


async def _suspend(context: Context, key: Key, job: IngestionJob, status: Status, reason: str, message: str) -> Outcome:
    if job.status.run is not None:
        await _stop(context, key, job.status.run)
        _tell(context, key, "RunStopped", f"run {job.status.run.id} was stopped: {message}")
        # What it was started for is still to be done.
        status.update(run=None, handledGeneration=None)
    status.update(phase=Phase.SUSPENDED.value, nextRunAt=None, eta=None, rate=None)
    return Outcome(status, [ConditionState("Ready", "True", reason, message), *run_report.result_conditions(job)])


async def _stop(context: Context, key: Key, run: ActiveRun) -> None:
    await context.runners.get(run.runner).stop(key.namespace, worker_name(run))
    context.runs.pop(key, None)
    context.retry_at.pop(key, None)
    metrics.JOB_RUNNING.set(key.namespace, key.name, 0)


async def _finalize(context: Context, key: Key, job: IngestionJob) -> Outcome:
    """Stop the run; what it wrote stays in the index."""
    if FINALIZER in job.metadata.finalizers:
        if job.status.run is not None:
            await _stop(context, key, job.status.run)
        await remove_finalizer(context, key, job.metadata)
    remember_uses(context, key, [])
    metrics.forget(*key)
    return Outcome()


def _tell(context: Context, key: Key, reason: str, message: str, *, warning: bool = False) -> None:
    body = context.cache.get(*key)
    if body is not None:
        tell = context.events.warning if warning else context.events.normal
        tell({**body, "kind": key.kind, "apiVersion": API_VERSION}, reason, message)
