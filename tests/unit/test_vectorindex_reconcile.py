"""A VectorIndex from its creation on, through the real driver, queue and reconcilers and a real store in memory.

What is checked: made, marked and reported; its alias; stores that are not ready; two claimants of one index; a second
pass does nothing; a listing wakes exactly the indexes that differ; a restart changes nothing. What exists already, is
lost or differs, and models: ``test_vectorindex_{existing,drift,model}.py``.
"""

from __future__ import annotations

import pytest
from tests.support.reconciling import NAMESPACE, World, resource, vectors
from tests.support.vector_indexes import MINE, MODEL, plain, ready

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.errors import Conflict, Retryable
from vectorwright.reconcile import vectorindex
from vectorwright.reconcile.cache import Key
from vectorwright.stores.base import FieldDefinition


async def test_it_is_made_marked_and_reported(world: World) -> None:
    store = world.backend(memory=plain())
    await ready(world, metadataFields=[{"name": "lang", "type": "keyword"}])
    found = await store.memory.describe_index("docs")
    assert (found.dimension, found.metric, found.mark) == (4, "cosine", MINE)
    assert found.fields == (FieldDefinition("lang", "keyword"),)
    status = world.status()
    assert status["incarnation"] == found.incarnation
    assert status["backendId"] == world.status("vectors", "VectorStore")["backendId"]
    assert (status["indexName"], status["physicalName"], status["provider"]) == ("docs", "docs", "memory")
    assert (status["dimension"], status["metric"], status["vectors"], status["vectorsExact"]) == (4, "cosine", 0, True)
    assert (status["adopted"], status["driftedFields"], status["observedGeneration"]) == (False, 0, 1)
    assert set(world.conditions()) == {"Ready", "Synced", "ReferencesResolved"}
    assert world.index()["metadata"]["finalizers"] == ["vectorwright.dev/finalizer"]
    assert world.events.reasons("docs") == ["Creating"]


async def test_no_write_of_ours_is_refused_on_the_way_to_ready(world: World) -> None:
    """A conflict costs a quarter of a second and more: it must not be part of the plain way."""
    refused = []
    real = world.api.patch

    async def patch(*arguments: object, **options: object) -> object:
        try:
            return await real(*arguments, **options)  # type: ignore[arg-type]
        except Conflict as conflict:
            refused.append(conflict.message)
            raise

    world.api.patch = patch  # type: ignore[method-assign, assignment]
    world.backend()
    await ready(world)
    assert refused == []


async def test_the_store_may_come_after_the_index(world: World) -> None:
    world.add_index()
    await world.settle()
    assert world.conditions()["Ready"] == ("False", "StoreNotFound")
    assert world.conditions()["Reconciling"] == ("True", "StoreNotFound")
    assert world.conditions()["ReferencesResolved"] == ("False", "StoreNotFound")
    assert world.message() == "VectorStore vectors does not exist in namespace team-a: create it"
    world.backend()
    world.add_store()
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert "Reconciling" not in world.conditions()


async def test_why_the_store_is_not_ready_is_told_on_the_index(world: World) -> None:
    world.add_store()
    world.add_index()
    await world.settle()
    assert world.conditions()["Ready"] == ("False", "StoreNotReady")
    assert world.message() == "VectorStore vectors is not ready: http://vectors cannot be reached"
    world.backend()
    await world.tick()
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_a_store_that_went_down_shows_on_its_indexes_and_comes_back(world: World) -> None:
    store = world.backend()
    await ready(world)
    store.failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.tick()
    assert world.conditions()["Ready"] == ("False", "StoreNotReady")
    assert world.message() == "VectorStore vectors is not ready: connection refused"
    store.failures.clear()
    await world.tick()
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert store.changes == ["create_index", "set_alias"]


async def test_an_alias_leads_to_a_first_generation(world: World) -> None:
    store = world.backend()
    await ready(world)
    assert await store.memory.aliases() == {"docs": "docs-g1"}
    assert (world.status()["indexName"], world.status()["physicalName"]) == ("docs", "docs-g1")
    assert world.events.reasons("docs") == ["Creating", "AliasSet"]


async def test_an_alias_that_was_moved_behind_its_back_is_put_back(world: World) -> None:
    store = world.backend()
    await ready(world)
    await store.memory.delete_alias("docs")
    await world.tick()
    assert await store.memory.aliases() == {"docs": "docs-g1"}


# -- claims --
async def test_two_resources_do_not_share_an_index_even_through_two_stores(world: World) -> None:
    store = world.backend()
    world.backends["http://second-address"] = store
    world.add_store()
    world.add_store("again", "http://second-address")
    await world.settle()
    world.add_index("docs")
    world.add_index("late", store="again", indexName="docs")
    await world.settle()
    assert world.conditions("docs")["Ready"] == ("True", "Ready")
    assert world.conditions("late")["Stalled"] == ("True", "ClaimedByAnother")
    assert world.message("late") == (
        "index docs is already claimed by VectorIndex team-a/docs: delete one of the two, or change its spec.indexName"
    )
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()
    assert not world.exists("docs")
    assert world.conditions("late")["Stalled"] == ("True", "AlreadyExists")


async def test_one_that_only_observes_claims_nothing(world: World) -> None:
    world.backend()
    world.add_store()
    world.add_index("watcher", indexName="docs", managementPolicy="Observe")
    world.add_index("docs")
    await world.settle()
    assert world.conditions("docs")["Ready"] == ("True", "Ready")


# -- quiet --
async def test_a_second_pass_makes_no_call_but_the_listing_and_writes_nothing(world: World) -> None:
    store = world.backend()
    world.add_store()
    for number in range(5):
        world.add_index(f"docs-{number}")
    await world.settle()
    await world.tick()
    store.calls.clear()
    world.api.writes.clear()
    world.api.reads.clear()
    await world.tick()
    assert store.made() == {"list_indexes": 1, "aliases": 1}
    assert world.api.writes == []
    assert world.api.reads == []


async def test_a_listing_wakes_exactly_the_indexes_that_differ(world: World) -> None:
    store = world.backend()
    world.add_store()
    for number in range(4):
        world.add_index(f"docs-{number}")
    await world.settle()
    await store.memory.upsert("docs-2-g1", vectors(3))
    worked: list[Key] = []
    real = world.driver.work

    async def work(key: Key) -> None:
        worked.append(key)
        await real(key)

    world.driver.queue._work = work
    await world.tick()
    assert [key.name for key in worked if key.kind == "VectorIndex"] == ["docs-2"]
    assert world.status("docs-2")["vectors"] == 3


@pytest.mark.parametrize(
    "order",
    [
        ("VectorStore", "EmbeddingModel", "VectorIndex"),
        ("VectorIndex", "EmbeddingModel", "VectorStore"),
        ("EmbeddingModel", "VectorIndex", "VectorStore"),
    ],
)
async def test_a_restart_changes_nothing(world: World, order: tuple[str, ...]) -> None:
    """Neither in the store nor in any status, whatever kind arrives first."""
    store = world.backend()
    world.add_store()
    world.add_model("small", 4, "print-1")
    world.add_index("plain")
    world.add_index("modelled", **MODEL)
    await world.settle()
    await world.tick()
    store.calls.clear()
    world.api.writes.clear()
    await world.restart(order)
    assert store.changes == []
    assert world.api.writes == []
    assert world.conditions("modelled")["Ready"] == ("True", "Ready")


async def test_a_restart_while_the_store_is_down_says_so(world: World) -> None:
    store = world.backend()
    await ready(world)
    store.failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await world.restart()
    assert world.conditions()["Ready"] == ("False", "StoreNotReady")
    assert world.message() == "VectorStore vectors is not ready: connection refused"


async def test_the_count_is_right_as_soon_as_a_run_has_ended(world: World) -> None:
    """A listing that is seconds old does not know of what the run wrote last."""
    store = world.backend()
    await ready(world)
    await world.tick()
    await store.memory.upsert("docs-g1", vectors(3))
    job = resource("IngestionJob", "docs", {"indexRef": {"name": "docs"}})
    world.context.cache.put("IngestionJob", {**job, "status": {"lastSuccessAt": "2026-01-01T12:00:00Z"}})
    seen = world.index()
    outcome = await vectorindex.reconcile(world.context, VectorIndex.model_validate(seen))
    assert (outcome.status["vectors"], outcome.status["lastIngestedAt"]) == (3, "2026-01-01T12:00:00Z")
    store.calls.clear()
    await vectorindex.reconcile(world.context, VectorIndex.model_validate({**seen, "status": outcome.status}))
    assert not store.calls, "once the run was taken note of, the listing is enough again"
