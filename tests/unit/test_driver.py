"""What the driver makes of events and outcomes, with a reconciler that the test writes.

What is checked: who is woken by what, the echo of our own writes before and after their answer above all; statuses
written with their resourceVersion and only when they differ; objects that vanish; paused and invalid objects; requests
to reconcile; a new object says at once that it is worked on. Errors: ``test_driver_errors.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.support.api_double import Body, Write
from tests.support.driver_bench import DOCS, SPEC, Bench, failing, failing_call, fine, with_vectors
from tests.support.reconciling import NAMESPACE, resource

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.errors import NotFound, Retryable
from vectorwright.kube.status import ConditionState
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.finalizers import add_finalizer, remove_finalizer
from vectorwright.reconcile.outcome import Outcome, ready_conditions


# -- a new object --
async def test_a_new_object_says_at_once_that_it_is_worked_on(bench: Bench) -> None:
    during: list[Body] = []

    async def step(_context: Context, index: VectorIndex) -> Outcome:
        during.append(bench.index())
        assert index.metadata.resource_version == bench.index()["metadata"]["resourceVersion"]
        return await fine(_context, index)

    bench.step = step
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle()
    conditions = {item["type"]: item for item in during[0]["status"]["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("Unknown", "Reconciling")
    assert conditions["Reconciling"]["status"] == "True"
    assert during[0]["status"]["observedGeneration"] == 1
    assert bench.conditions() == {"Ready": ("True", "Ready"), "Synced": ("True", "ReconcileSuccess")}
    assert len(bench.passes) == 1


async def test_every_write_carries_the_version_that_it_is_based_on(bench: Bench) -> None:
    async def step(context: Context, index: VectorIndex) -> Outcome:
        await add_finalizer(context, DOCS, index.metadata)
        return await fine(context, index)

    bench.step = step
    await bench.made()
    bench.api.apply(resource("VectorIndex", "docs", {**SPEC, "metric": "cosine"}))
    await bench.settle()
    assert len(bench.passes) == 1
    assert len(bench.api.writes) == 1
    bench.api.remove("VectorIndex", NAMESPACE, "docs")
    await bench.settle()
    assert all("resourceVersion" in write.body["metadata"] for write in bench.api.writes)


# -- who is woken --
async def test_nothing_changed_means_no_write_and_no_second_pass(bench: Bench) -> None:
    await bench.made()
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert len(bench.passes) == 1
    assert bench.api.writes == []
    assert bench.api.reads == []


@pytest.mark.parametrize("echo", ["before", "after", "both"])
async def test_the_echo_of_our_own_writes_wakes_nobody(bench: Bench, echo: str) -> None:
    """The event of a write may overtake the answer to it."""
    held: list[tuple[str, str | None, Body]] = []
    listener = bench.api.listeners[0]

    def watched(kind: str, event: str | None, body: Body) -> None:
        if echo != "after":
            listener(kind, event, body)
        held.append((kind, event, body))

    async def step(context: Context, index: VectorIndex) -> Outcome:
        await add_finalizer(context, DOCS, index.metadata)
        return Outcome({"vectors": len(bench.passes)}, ready_conditions("fine"))

    bench.step = step
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    bench.api.listeners[:] = [watched]
    await bench.settle()
    if echo != "before":
        for item in held:
            listener(*item)
        await bench.settle()
    assert len(bench.passes) == 1
    assert bench.status()["vectors"] == 1


async def test_somebody_elses_change_during_a_pass_is_not_taken_for_an_echo(bench: Bench) -> None:
    await bench.made()
    edited: list[bool] = []

    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        if not edited:
            edited.append(True)
            bench.api.annotate("VectorIndex", NAMESPACE, "docs", reconcile_requested_at="now")
        return await fine(_context, _index)

    bench.step = step
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert len(bench.passes) == 2
    assert bench.status()["lastHandledReconcileAt"] == "now"


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda bench: bench.api.annotate("VectorIndex", NAMESPACE, "docs", anything="x"), 1),
        (lambda bench: bench.api.apply(resource("VectorIndex", "docs", {**SPEC, "metric": "cosine"})), 1),
        (lambda bench: bench.api.apply(resource("VectorIndex", "docs", SPEC, labels={"team": "b"})), 0),
        (lambda bench: bench.api.apply(resource("VectorIndex", "docs", SPEC, managedFields=[{"manager": "x"}])), 0),
        (lambda bench: bench.api.apply(resource("VectorIndex", "docs", SPEC, finalizers=["x/y"])), 1),
    ],
    ids=["annotation", "spec", "label", "managed fields", "finalizer"],
)
async def test_only_what_is_acted_on_wakes(bench: Bench, change: Callable[[Bench], object], passes: int) -> None:
    await bench.made()
    change(bench)
    await bench.settle()
    assert len(bench.passes) == passes


async def test_a_status_that_somebody_else_edited_is_put_right(bench: Bench) -> None:
    await bench.made()
    before = bench.status()
    bench.api.set_status("VectorIndex", NAMESPACE, "docs", {"vectors": 999, "conditions": before["conditions"]})
    await bench.settle()
    assert bench.status() == before
    bench.api.set_status("VectorIndex", NAMESPACE, "docs", None)
    await bench.settle()
    assert bench.status()["vectors"] == 1


async def test_dependents_are_woken_by_a_changed_status_alone(bench: Bench) -> None:
    woken: list[Key] = []
    other = Key("VectorIndex", NAMESPACE, "other")
    bench.dependents = [other]
    real = bench.driver.queue.add

    def add(key: Key) -> None:
        woken.append(key)
        real(key)

    await bench.made()
    bench.driver.queue.add = add  # type: ignore[method-assign]
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert other not in woken
    bench.api.set_status("VectorIndex", NAMESPACE, "docs", {"vectors": 5})
    await bench.settle()
    assert other in woken


async def test_a_secret_wakes_who_reads_it(bench: Bench) -> None:
    await bench.made()
    bench.context.uses[DOCS] = frozenset({("Secret", NAMESPACE, "token")})
    for kind, namespace, name in (
        ("ConfigMap", NAMESPACE, "token"),
        ("Secret", "team-b", "token"),
        ("Secret", NAMESPACE, "x"),
    ):
        bench.driver.on_reference_change(kind, namespace, name)
    await bench.settle()
    assert bench.passes == []
    bench.driver.on_reference_change("Secret", NAMESPACE, "token")
    await bench.settle()
    assert len(bench.passes) == 1


# -- the end of an object --
async def test_what_is_gone_is_told_and_forgotten(bench: Bench) -> None:
    bench.step = failing(Retryable("busy"))
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle(horizon=0.0)
    bench.api.remove("VectorIndex", NAMESPACE, "docs")
    await bench.settle()
    assert bench.gone == [DOCS]
    assert bench.context.cache.get(*DOCS) is None
    assert DOCS not in bench.driver.queue._due
    assert DOCS not in bench.driver.queue._failures


async def test_nothing_is_written_on_an_object_that_is_on_its_way_out(bench: Bench) -> None:
    async def step(context: Context, index: VectorIndex) -> Outcome:
        if index.deleting:
            await remove_finalizer(context, DOCS, index.metadata)
        else:
            await add_finalizer(context, DOCS, index.metadata)
        return await fine(context, index)

    bench.step = step
    await bench.made()
    bench.api.remove("VectorIndex", NAMESPACE, "docs")
    await bench.settle()
    assert not bench.exists()
    assert [write.subresource for write in bench.api.writes] == [None]
    assert bench.context.cache.get(*DOCS) is None


async def test_an_object_whose_last_event_was_missed_is_noticed_at_the_next_write(bench: Bench) -> None:
    await bench.made()
    del bench.api.objects[DOCS.kind, DOCS.namespace, DOCS.name]
    bench.step = with_vectors(7)
    bench.driver.queue.add(DOCS)
    await bench.settle()
    assert bench.gone == [DOCS]
    assert bench.context.cache.get(*DOCS) is None


async def test_a_not_found_of_something_else_is_no_end_of_the_object(bench: Bench) -> None:
    await bench.made()
    bench.step = failing_call(NotFound("index docs does not exist in this store"))
    bench.driver.queue.add(DOCS)
    await bench.settle(horizon=0.0)
    assert bench.gone == []
    assert bench.context.cache.get(*DOCS) is not None
    assert DOCS in bench.driver.queue._due


# -- paused, invalid, asked for --
async def test_a_paused_object_is_left_alone_and_keeps_what_was_known(bench: Bench) -> None:
    await bench.made()
    bench.api.annotate("VectorIndex", NAMESPACE, "docs", paused="true", reconcile_requested_at="t1")
    await bench.settle()
    bench.api.apply(resource("VectorIndex", "docs", {**SPEC, "metric": "cosine"}, annotations=_annotations(bench)))
    await bench.settle()
    assert bench.passes == []
    assert bench.conditions() == {"Ready": ("True", "Ready"), "Synced": ("False", "ReconcilePaused")}
    assert bench.status()["vectors"] == 1
    assert "lastHandledReconcileAt" not in bench.status(), "nothing was handled"
    bench.api.annotate("VectorIndex", NAMESPACE, "docs", paused=None)
    await bench.settle()
    assert len(bench.passes) == 1
    assert bench.conditions()["Synced"] == ("True", "ReconcileSuccess")
    assert bench.status()["lastHandledReconcileAt"] == "t1"


def _annotations(bench: Bench) -> dict[str, str]:
    return dict(bench.index()["metadata"]["annotations"])


async def test_what_said_that_work_goes_on_does_not_stay_while_paused(bench: Bench) -> None:
    bench.step = failing(Retryable("busy", after=100))
    await bench.made()
    assert bench.conditions()["Reconciling"][0] == "True"
    bench.api.annotate("VectorIndex", NAMESPACE, "docs", paused="true")
    await bench.settle()
    assert bench.conditions() == {"Ready": ("False", "Unavailable"), "Synced": ("False", "ReconcilePaused")}


async def test_a_paused_object_can_be_deleted(bench: Bench) -> None:
    async def step(context: Context, index: VectorIndex) -> Outcome:
        if index.deleting:
            await remove_finalizer(context, DOCS, index.metadata)
        return await fine(context, index)

    bench.step = step
    bench.api.apply(
        resource(
            "VectorIndex",
            "docs",
            SPEC,
            annotations={"vectorwright.dev/paused": "true"},
            finalizers=["vectorwright.dev/finalizer"],
        )
    )
    await bench.settle()
    bench.api.remove("VectorIndex", NAMESPACE, "docs")
    await bench.settle()
    assert not bench.exists()


async def test_an_object_that_the_models_refuse_is_stalled_with_the_field_named(bench: Bench) -> None:
    """An API server with older resource definitions lets such things through."""
    bench.api.apply(resource("VectorIndex", "docs", {"storeRef": {"name": "vectors"}, "dimension": 0, "metric": "l1"}))
    await bench.settle()
    assert bench.passes == []
    assert bench.conditions()["Stalled"] == ("True", "InvalidSpec")
    assert bench.message() == (
        "spec.dimension: Input should be greater than or equal to 1; spec.metric: Input should be 'cosine', "
        "'dotproduct' or 'euclidean'"
    )
    assert DOCS not in bench.driver.queue._due


async def test_a_value_that_the_models_refuse_is_not_repeated(bench: Bench) -> None:
    """It may be a credential in the wrong place."""
    bench.api.apply(resource("VectorIndex", "docs", {**SPEC, "embeddingModelRef": "hunter2"}))
    await bench.settle()
    assert bench.conditions()["Stalled"] == ("True", "InvalidSpec")
    assert "hunter2" not in str(bench.status())


async def test_a_request_to_reconcile_is_handled_once_and_recorded(bench: Bench) -> None:
    await bench.made()
    bench.api.annotate("VectorIndex", NAMESPACE, "docs", reconcile_requested_at="2026-01-01")
    await bench.settle()
    assert len(bench.passes) == 1
    assert bench.status()["lastHandledReconcileAt"] == "2026-01-01"
    bench.api.annotate("VectorIndex", NAMESPACE, "docs", reconcile_requested_at="2026-01-02")
    await bench.settle()
    assert len(bench.passes) == 2
    assert bench.status()["lastHandledReconcileAt"] == "2026-01-02"


async def test_a_new_object_that_carries_a_request_is_not_handled_before_it_is(bench: Bench) -> None:
    seen: list[object] = []

    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        seen.append(bench.status().get("lastHandledReconcileAt"))
        return await fine(_context, _index)

    bench.step = step
    bench.api.apply(
        resource("VectorIndex", "docs", SPEC, annotations={"vectorwright.dev/reconcile-requested-at": "t0"})
    )
    await bench.settle()
    assert seen == [None]
    assert bench.status()["lastHandledReconcileAt"] == "t0"


async def test_the_generation_is_that_of_the_spec_that_was_looked_at(bench: Bench) -> None:
    """A spec that changes during a pass must not count as observed."""
    changed: list[bool] = []

    async def step(_context: Context, index: VectorIndex) -> Outcome:
        if not changed:
            changed.append(True)
            bench.api.apply(resource("VectorIndex", "docs", {**SPEC, "metric": "cosine"}))
            await asyncio.sleep(0)
        return Outcome({"vectors": index.metadata.generation}, ready_conditions("fine"))

    observed: list[tuple[int, int]] = []

    def note(write: Write) -> None:
        if "vectors" in write.body.get("status", {}):
            observed.append((write.body["status"]["vectors"], write.body["status"].get("observedGeneration", -1)))

    bench.api.before_write = note
    bench.step = step
    bench.api.apply(resource("VectorIndex", "docs", SPEC))
    await bench.settle()
    assert bench.status()["vectors"] == 2
    assert bench.status()["observedGeneration"] == 2
    assert all(vectors == 2 or generation != 2 for vectors, generation in observed)


async def test_conditions_of_the_reconciler_are_written_as_they_are(bench: Bench) -> None:
    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        return Outcome({"vectors": None, "dimension": 4}, [ConditionState("Ready", "True", "Fine", "x" * 3000)])

    bench.step = step
    await bench.made()
    assert "vectors" not in bench.status()
    assert bench.status()["dimension"] == 4
    assert len(bench.message()) == 1024
