"""An IngestionJob through the real control loop, with workers that the test plays.

What is checked: a run is recorded before its worker starts, and its result before its worker is removed; nothing is
done twice, also over a restart; retries, ends that only a person can change, and their repair; a changed spec,
suspension, deletion and a read-only installation stop what runs; what is waited for, and that a fault that passes
leaves no trace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.api_double import Write
from tests.support.ingestionjob_runs import (
    FILL,
    Workers,
    apply,
    conditions,
    finished,
    look,
    message,
    request,
    started,
    status,
)
from tests.support.reconciling import NAMESPACE, World

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable
from vectorwright.reconcile import run_report, sessions
from vectorwright.reconcile.runner_base import WorkerBudget
from vectorwright.settings import Settings


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
async def world(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(run_report, "RETRY_BASE", 0.05)
    async with World(runners=workers.runners()) as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        made.backend()
        made.add_store()
        made.add_model("small", 4, "print-1")
        made.add_index(embeddingModelRef={"name": "small"})
        await made.settle()
        yield made


# -- the plain way --
async def test_a_run_is_recorded_before_its_worker_starts(world: World, workers: Workers) -> None:
    recorded: list[bool] = []

    def watch(write: Write) -> None:
        if write.kind == "IngestionJob" and "run" in (write.body.get("status") or {}):
            recorded.append(not workers.log)

    world.api.before_write = watch
    name = await started(world)
    assert recorded[0] is True
    assert workers.log == [f"start {name}"]
    assert workers.handed[0].spec.run_id == name.rpartition("-")[0]
    assert conditions(world)["Ready"] == ("True", "RunStarted")
    assert conditions(world)["Complete"] == ("False", "Running")
    assert world.events.reasons("fill") == ["RunStarted"]
    assert status(world)["handledGeneration"] == 1


async def test_progress_and_the_end_are_reported_and_the_worker_is_removed_after_that(
    world: World, workers: Workers
) -> None:
    name = await started(world)
    workers.tell(Phase.RUNNING, counts={"documents_listed": 10, "documents_new": 4, "vectors_written": 9}, rate=3.0)
    await look(world)
    assert (status(world)["done"], status(world)["rate"]) == ("4/10", "3/s")
    removed_first: list[bool] = []

    def watch(write: Write) -> None:
        if "lastRuns" in (write.body.get("status") or {}):
            removed_first.append(f"stop {name}" in workers.log)

    world.api.before_write = watch
    workers.tell(
        Phase.SUCCEEDED, counts={"documents_listed": 10, "documents_new": 10, "vectors_written": 20},
        verification="Exact", revision="abc",
    )  # fmt: skip
    await look(world)
    assert removed_first == [False]
    assert workers.log == [f"start {name}", f"stop {name}"]
    found = status(world)
    assert (found["phase"], found["done"], found["verification"], found["revision"]) == (
        "Succeeded", "10/10", "Exact", "abc",
    )  # fmt: skip
    assert found["lastRuns"][0]["written"] == 20
    assert conditions(world) == {
        "Ready": ("True", "Succeeded"),
        "Complete": ("True", "Succeeded"),
        "LastRunSucceeded": ("True", "Succeeded"),
    }
    assert world.events.reasons("fill") == ["RunStarted", "RunSucceeded"]
    assert world.status()["lastIngestedAt"] == found["lastSuccessAt"]


async def test_applied_again_does_nothing(world: World, workers: Workers) -> None:
    await finished(world, workers)
    apply(world)
    await look(world)
    assert workers.log == []
    assert world.api.writes_of("IngestionJob") == []


async def test_a_restart_finds_the_run_and_its_share_of_the_limits(world: World, workers: Workers) -> None:
    world.add_store(limits={"requestsPerSecond": 8})
    name = await started(world)
    workers.budgets.clear()
    await world.restart(("VectorStore", "EmbeddingModel", "VectorIndex", "IngestionJob"))
    await look(world)
    await look(world)
    assert workers.log == [f"start {name}"]
    assert workers.budgets[-1] == WorkerBudget(requests_per_second=8.0)
    workers.tell(Phase.SUCCEEDED)
    await look(world)
    assert status(world)["phase"] == "Succeeded"


@pytest.mark.parametrize("moment", ["before the worker started", "after the worker ended"])
async def test_a_crash_at_either_end_of_a_run_does_nothing_twice(world: World, workers: Workers, moment: str) -> None:
    if moment == "before the worker started":
        workers.refusal = Retryable("the operator died here", after=300)
        apply(world)
        await world.settle()
        workers.refusal = None
        run = status(world)["run"]["id"]
    else:
        run = (await started(world)).rpartition("-")[0]
        world.api.before_write = lambda write: (
            Retryable("the operator died here", after=300) if "lastRuns" in (write.body.get("status") or {}) else None
        )
        workers.tell(Phase.SUCCEEDED)
        await look(world)
        world.api.before_write = lambda _: None
    await world.restart(("VectorStore", "EmbeddingModel", "VectorIndex", "IngestionJob"))
    if moment == "before the worker started":
        workers.tell(Phase.SUCCEEDED)
        await look(world)
    assert workers.log == [f"start {run}-1", f"stop {run}-1"]
    assert [item["id"] for item in status(world)["lastRuns"]] == [run]


# -- failures --
async def test_a_worker_that_died_starts_again_after_a_while_under_another_name(world: World, workers: Workers) -> None:
    first = await started(world)
    run = status(world)["run"]["id"]
    workers.die("the worker was killed by signal 9")
    await look(world)
    assert workers.log == [f"start {first}", f"stop {first}", f"start {run}-2"]
    assert status(world)["run"]["attempt"] == 2
    assert world.events.told[-1][3:] == ("WorkerDied", "the worker was killed by signal 9")
    workers.tell(Phase.SUCCEEDED)
    await look(world)
    assert status(world)["phase"] == "Succeeded"
    assert len(status(world)["lastRuns"]) == 1


async def test_while_it_waits_to_start_again_it_says_why(
    world: World, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_report, "RETRY_BASE", 30.0)
    await started(world)
    workers.tell(Phase.FAILED, retryable=True, reason="StoreUnreachable", message="connection refused")
    await look(world)
    assert status(world)["phase"] == "Pending"
    assert conditions(world)["Reconciling"] == ("True", "StoreUnreachable")
    assert conditions(world)["Ready"] == ("True", "StoreUnreachable"), "a GitOps wave is not held up"
    assert message(world) == "connection refused (start 2 in 30 s)"


async def test_an_end_that_only_a_person_can_change_stalls(world: World, workers: Workers) -> None:
    await started(world)
    workers.tell(Phase.FAILED, reason="BudgetExceeded", message="12 documents, 10 are allowed")
    await look(world)
    await look(world)
    assert conditions(world) == {
        "Ready": ("False", "BudgetExceeded"),
        "Stalled": ("True", "BudgetExceeded"),
        "Complete": ("True", "Failed"),
        "LastRunSucceeded": ("False", "BudgetExceeded"),
    }
    assert message(world) == "12 documents, 10 are allowed"
    assert status(world)["phase"] == "Failed"
    assert "lastSuccessAt" not in status(world)
    apply(world, budget={"maxDocuments": 20})
    await world.settle()
    assert status(world)["phase"] == "Running"
    assert "Stalled" not in conditions(world)


async def test_it_rests_after_that_and_writes_nothing_more(world: World, workers: Workers) -> None:
    await finished(world, workers, Phase.FAILED, reason="BudgetExceeded", message="too many")
    await look(world)
    await look(world)
    assert world.api.writes_of("IngestionJob") == []
    assert workers.log == []


async def test_an_unverified_run_is_no_success_and_no_failure(world: World, workers: Workers) -> None:
    await finished(world, workers, Phase.UNVERIFIED, reason="VerificationTimeout", message="the store was too slow")
    assert conditions(world)["LastRunSucceeded"] == ("Unknown", "VerificationTimeout")
    assert conditions(world)["Ready"] == ("True", "Unverified")
    assert "lastSuccessAt" not in status(world)


# -- reasons to run --
async def test_a_request_runs_again_once(world: World, workers: Workers) -> None:
    await finished(world, workers)
    request(world, "now")
    await world.settle()
    assert status(world)["run"]["trigger"] == "request-now"
    workers.tell(Phase.SUCCEEDED)
    await look(world)
    workers.log.clear()
    await look(world)
    assert workers.log == []
    assert status(world)["handledRequest"] == "now"
    assert len(status(world)["lastRuns"]) == 2


async def test_an_index_that_was_made_again_is_filled_again(world: World, workers: Workers) -> None:
    world.add_index(embeddingModelRef={"name": "small"}, onLost="Recreate")
    await world.settle()
    await finished(world, workers)
    await world.backend().memory.delete_index("docs-g1")
    await world.tick()
    assert status(world)["run"]["trigger"].startswith("incarnation-")
    assert status(world)["handledIncarnation"] == world.status()["incarnation"]


async def test_a_changed_spec_stops_the_run_and_starts_another(world: World, workers: Workers) -> None:
    first = await started(world)
    apply(world, maxDeadLetters=5)
    await world.settle()
    second = status(world)["run"]
    assert workers.log == [f"start {first}", f"stop {first}", f"start {second['id']}-1"]
    assert status(world)["handledGeneration"] == 2
    assert workers.handed[-1].spec.max_dead_letters == 5


# -- stopped --
async def test_suspension_stops_what_runs_and_what_was_left_is_done_later(world: World, workers: Workers) -> None:
    first = await started(world)
    apply(world, suspend=True)
    await world.settle()
    assert workers.log == [f"start {first}", f"stop {first}"]
    assert status(world)["phase"] == "Suspended"
    assert conditions(world) == {"Ready": ("True", "Suspended")}
    assert "run" not in status(world)
    request(world, "now")
    await world.settle()
    assert len(workers.log) == 2, "nothing starts while it is suspended"
    apply(world, suspend=False)
    await world.settle()
    assert status(world)["phase"] == "Running"
    assert status(world)["handledRequest"] == "now"


async def test_deletion_stops_what_runs(world: World, workers: Workers) -> None:
    first = await started(world)
    world.api.remove("IngestionJob", NAMESPACE, "fill")
    await world.settle()
    assert not world.exists("fill", "IngestionJob")
    assert workers.log == [f"start {first}", f"stop {first}"]
    assert FILL not in world.context.runs


async def test_a_read_only_installation_starts_nothing_and_stops_what_runs(world: World, workers: Workers) -> None:
    first = await started(world)
    world._settings = Settings(read_only=True)
    await world.restart(("VectorStore", "EmbeddingModel", "VectorIndex", "IngestionJob"))
    assert workers.log == [f"start {first}", f"stop {first}"]
    assert conditions(world) == {"Ready": ("True", "ReadOnly")}
    assert message(world) == "this installation is read-only: no run is started"
    request(world, "now")
    await world.settle()
    assert len(workers.log) == 2
    world._settings = Settings()
    await world.restart(("VectorStore", "EmbeddingModel", "VectorIndex", "IngestionJob"))
    assert status(world)["phase"] == "Running"


async def test_a_read_only_time_makes_nothing_run_again(world: World, workers: Workers) -> None:
    await finished(world, workers)
    for settings in (Settings(read_only=True), Settings()):
        world._settings = settings
        await world.restart(("VectorStore", "EmbeddingModel", "VectorIndex", "IngestionJob"))
    assert workers.log == []
    assert status(world)["phase"] == "Succeeded"
    assert conditions(world)["Ready"] == ("True", "Succeeded")


# -- what is in the way --
async def test_an_index_that_is_not_ready_is_waited_for(world: World, workers: Workers) -> None:
    world.backend().failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.tick()
    apply(world)
    await world.settle()
    assert status(world)["phase"] == "Pending"
    assert conditions(world)["Reconciling"] == ("True", "IndexNotReady")
    assert message(world) == ("VectorIndex docs is not ready: VectorStore vectors is not ready: connection refused")
    assert workers.log == []
    world.backend().failures.clear()
    await world.tick()
    assert status(world)["phase"] == "Running"


async def test_an_index_that_is_gone_for_a_while_leaves_a_settled_job_as_it_is(world: World, workers: Workers) -> None:
    await finished(world, workers)
    before = conditions(world)
    world.backend().failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.tick()
    assert conditions(world) == before
    assert status(world)["phase"] == "Succeeded"


async def test_a_secret_that_is_gone_for_a_while_leaves_no_trace(world: World, workers: Workers) -> None:
    world.secrets.set(NAMESPACE, "key", token="t")
    world.add_store(controlCredentials={"name": "key"}, dataCredentials={"name": "key"})
    await world.settle()
    await finished(world, workers)
    before = conditions(world)
    world.add_store(controlCredentials={"name": "key"}, dataCredentials={"name": "other"})
    await world.settle()
    await look(world)
    assert conditions(world)["Stalled"] == ("True", "SecretNotFound"), "the next run could not start"
    world.secrets.set(NAMESPACE, "other", token="t")
    await world.settle()
    await look(world)
    assert conditions(world) == before
    assert status(world)["phase"] == "Succeeded"
    assert workers.log == []


async def test_a_secret_that_was_mended_repeats_a_run_that_failed(world: World, workers: Workers) -> None:
    world.secrets.set(NAMESPACE, "git", username="ada", password="wrong")
    git = {"git": {"url": "https://git.example.com/a.git", "credentials": {"name": "git"}}}
    await started(world, source=git)
    workers.tell(Phase.FAILED, reason="GitUnauthorized", message="the remote refuses the credentials")
    await look(world)
    await look(world)
    workers.log.clear()
    await look(world)
    assert workers.log == []
    world.secrets.set(NAMESPACE, "git", username="ada", password="right")
    await world.settle()
    assert len(workers.log) == 1
    assert status(world)["phase"] == "Running"


@pytest.mark.parametrize(
    ("settings", "runner", "reason"),
    [
        (Settings(worker_image="img:1"), {"type": "InProcess"}, "InProcessNotAllowed"),
        (Settings(allow_in_process=True), {"type": "Job"}, "WorkerImageMissing"),
        (Settings(allow_in_process=True), {}, "WorkerImageMissing"),
    ],
)
async def test_a_runner_that_is_not_allowed_is_refused_in_words(
    world: World, workers: Workers, settings: Settings, runner: dict[str, str], reason: str
) -> None:
    workers.settings = settings
    apply(world, runner=runner)
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", reason)
    assert workers.log == []
    assert "run" not in status(world)


async def test_a_wrong_schedule_is_refused_in_words(world: World, workers: Workers) -> None:
    apply(world, schedule={"cron": "61 * * * *"})
    await world.settle()
    assert conditions(world)["Stalled"] == ("True", "InvalidSchedule")
    assert workers.log == []


async def test_a_scheduled_job_tells_its_next_run(world: World, workers: Workers) -> None:
    apply(world, schedule={"cron": "0 3 * * *", "timeZone": "Europe/Berlin"})
    await world.settle()
    assert status(world)["nextRunAt"].endswith(("T01:00:00Z", "T02:00:00Z"))
    workers.tell(Phase.SUCCEEDED)
    await look(world)
    assert FILL in world.driver.queue._due, "it wakes itself for the slot"
