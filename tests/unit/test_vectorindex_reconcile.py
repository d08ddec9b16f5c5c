"""A VectorIndex from its creation on, through the real driver, queue and reconcilers and a real store in memory.

What is checked: create, adopt, refuse; drift mended or shown; lost and made again; two claimants of one backend;
another backend; stores and models that are not ready; Observe and read-only change nothing; a second pass does nothing;
a listing wakes exactly the indexes that differ; a restart changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.support.reconciling import DURABLE, INSTALLATION, NAMESPACE, World, resource, vectors

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.reconcile import sessions, vectorindex
from vectorwright.reconcile.cache import Key
from vectorwright.stores.base import (
    ChangeClass,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    OwnershipMark,
    Setting,
)
from vectorwright.stores.memory import MemoryStore

MINE = OwnershipMark(INSTALLATION, NAMESPACE, "docs")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with World() as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        yield made


@pytest.fixture
async def read_only(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with World(read_only=True) as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        yield made


def plain(**changes: object) -> MemoryStore:
    """A store in memory without aliases: the index has the very name that clients use."""
    return MemoryStore(replace(DURABLE, aliases=False, **changes))  # type: ignore[arg-type]


def tunable() -> MemoryStore:
    return plain(
        mutable_settings={
            "hnsw.ef_search": ChangeClass.SAFE,
            "hnsw.max_neighbors": ChangeClass.IMMUTABLE,
            "hnsw.num_threads": ChangeClass.COSTLY,
        }
    )


async def ready(world: World, **spec: object) -> None:
    world.add_store()
    world.add_index(**spec)  # type: ignore[arg-type]
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")


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


# -- what exists already --
async def foreign(store: MemoryStore, name: str = "docs", *, dimension: int = 4, **more: object) -> None:
    await store.create_index(IndexDefinition(name, dimension, "cosine", **more))  # type: ignore[arg-type]


async def test_an_index_that_exists_is_refused_and_not_touched(world: World) -> None:
    store = world.backend()
    await foreign(store.memory)
    world.add_store()
    world.add_index()
    await world.settle()
    assert world.conditions()["Ready"] == ("False", "AlreadyExists")
    assert world.conditions()["Stalled"] == ("True", "AlreadyExists")
    assert world.message() == (
        "index docs exists in the store (dimension 4, cosine) and was not made by this resource: set "
        "spec.adoptionPolicy: IfMatching to take it over, or another spec.indexName"
    )
    assert store.changes == []
    assert world.events.told[-1][3] == "AlreadyExists"


async def test_it_is_adopted_where_the_spec_says_so_and_keeps_what_the_spec_leaves_out(world: World) -> None:
    store = world.backend(memory=tunable())
    await foreign(store.memory, settings={"hnsw.max_neighbors": 48}, fields=(FieldDefinition("year", "integer"),))
    await ready(world, adoptionPolicy="IfMatching")
    found = await store.memory.describe_index("docs")
    assert (found.mark, found.settings) == (MINE, {"hnsw.max_neighbors": 48})
    assert found.fields == (FieldDefinition("year", "integer"),)
    assert store.changes == ["set_mark"]
    assert world.status()["adopted"] is True
    assert world.events.reasons("docs") == ["Adopted"]


async def test_an_index_of_another_dimension_is_not_adopted(world: World) -> None:
    store = world.backend()
    await foreign(store.memory, dimension=8)
    world.add_store()
    world.add_index(adoptionPolicy="IfMatching")
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "DimensionMismatch")
    assert world.message() == (
        "index docs has dimension 8, the spec wants 4: nothing was touched; use another spec.indexName, or the "
        "dimension that it has"
    )
    assert store.changes == []


async def test_observing_does_not_make_an_index_ours(world: World) -> None:
    """An index that was only observed is as foreign as before once the resource is to manage it."""
    store = world.backend()
    await foreign(store.memory)
    await ready(world, managementPolicy="Observe")
    assert store.changes == []
    assert "finalizers" not in world.index()["metadata"]
    world.add_index(managementPolicy="Manage")
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "AlreadyExists")
    world.driver.queue.add(Key("VectorIndex", NAMESPACE, "docs"))
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "AlreadyExists")
    assert store.changes == []


async def test_a_mark_that_was_removed_from_our_own_index_is_restored(world: World) -> None:
    store = world.backend()
    await ready(world)
    await store.memory.set_mark("docs-g1", None, None)
    await world.tick()
    assert (await store.memory.describe_index("docs-g1")).mark == MINE
    assert world.events.reasons("docs")[-1] == "MarkRestored"


async def test_the_mark_of_another_installation_is_respected(world: World) -> None:
    store = world.backend()
    await foreign(store.memory, mark=OwnershipMark("elsewhere", "team-z", "theirs"))
    world.add_store()
    world.add_index(adoptionPolicy="IfMatching")
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "OwnedByAnother")
    assert world.message() == (
        "index docs belongs to VectorIndex team-z/theirs of installation elsewhere: nothing was touched"
    )
    assert store.changes == []


async def test_a_rebuilt_cluster_finds_its_own_index_by_the_mark(world: World) -> None:
    """Backups drop status and UIDs: the mark in the store alone says whose it is."""
    store = world.backend()
    await foreign(store.memory, "docs-g1", mark=MINE)
    await store.memory.set_alias("docs", "docs-g1")
    await store.memory.upsert("docs-g1", vectors(3))
    await ready(world)
    assert world.status()["vectors"] == 3
    assert store.changes == []


async def test_a_crash_after_the_creation_finds_the_index_again(world: World) -> None:
    """The index was made, but neither its alias nor its status was written."""
    store = world.backend()
    await foreign(store.memory, "docs-g1", mark=MINE)
    await ready(world)
    assert store.changes == ["set_alias"]


async def test_an_index_that_appears_while_ours_is_made_is_looked_at_anew(world: World) -> None:
    store = world.backend(memory=plain())

    def appear() -> None:
        store.before.clear()
        store.memory._indexes.update(other._indexes)

    other = plain()
    await foreign(other)
    store.before["create_index"] = appear
    world.add_store()
    world.add_index()
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "AlreadyExists")


# -- drift --
async def test_drift_is_mended_and_told(world: World) -> None:
    store = world.backend(memory=tunable())
    await ready_tuned(world)
    await store.memory.update_index("docs", {"hnsw.ef_search": 7})
    await world.tick()
    assert (await store.memory.describe_index("docs")).settings["hnsw.ef_search"] == 100
    assert world.conditions()["Synced"] == ("True", "ReconcileSuccess")
    assert world.events.told[-1][3:] == ("DriftCorrected", "set in the store: tuning.hnsw.ef_search 7 → 100")
    assert world.status()["driftedFields"] == 0


async def ready_tuned(world: World, **spec: object) -> None:
    """The memory store has no tuning block of its own: a provider that has one stands in front of it."""
    world.api.apply(
        {
            "apiVersion": "vectorwright.dev/v1alpha1",
            "kind": "VectorStore",
            "metadata": {"name": "vectors", "namespace": NAMESPACE},
            "spec": {"chroma": {"url": "http://vectors"}},
        }
    )
    tuning = {"chroma": {"hnsw": {"efSearch": 100}}}
    world.add_index(**{"tuning": tuning, **spec})  # type: ignore[arg-type]
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_what_is_above_the_ceiling_is_shown_and_not_done(world: World) -> None:
    store = world.backend(memory=tunable())
    await ready_tuned(world)
    store.calls.clear()
    tuning = {"chroma": {"hnsw": {"efSearch": 100, "numThreads": 3}}}
    world.add_index(tuning=tuning)
    await world.settle()
    assert store.changes == []
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert world.conditions()["Drifted"] == ("True", "Drifted")
    assert world.conditions()["Synced"] == ("False", "Drifted")
    assert world.message(of="Drifted") == (
        "tuning.hnsw.num_threads is unset, the spec says 3 (Costly: set spec.updatePolicy: Costly to have it done)"
    )
    assert world.status()["drift"] == [
        {"field": "tuning.hnsw.num_threads", "desired": "3", "observed": "unset", "class": "Costly"}
    ]
    world.add_index(tuning=tuning, updatePolicy="Costly")
    await world.settle()
    assert store.changes == ["update_index"]
    assert "Drifted" not in world.conditions()
    assert "drift" not in world.status()


async def test_what_only_a_new_index_can_have_says_so(world: World) -> None:
    world.backend(memory=tunable())
    await ready_tuned(world)
    world.add_index(tuning={"chroma": {"hnsw": {"efSearch": 100, "maxNeighbors": 64}}}, updatePolicy="Disruptive")
    await world.settle()
    assert world.message(of="Drifted") == (
        "tuning.hnsw.max_neighbors is unset, the spec says 64 (fixed at creation: make a new VectorIndex)"
    )


async def test_observe_names_drift_and_does_not_advise_what_would_not_help(world: World) -> None:
    store = world.backend(memory=tunable())
    await foreign(store.memory, settings={"hnsw.num_threads": 1})
    tuning = {"chroma": {"hnsw": {"efSearch": 100, "numThreads": 3}}}
    await ready_tuned(world, managementPolicy="Observe", tuning=tuning)
    assert store.changes == []
    assert world.message(of="Drifted") == (
        "tuning.hnsw.ef_search is unset, the spec says 100 (not managed here); "
        "tuning.hnsw.num_threads is 1, the spec says 3 (not managed here)"
    )
    assert world.status()["driftedFields"] == 2


async def test_a_tuning_block_of_another_provider_is_refused(world: World) -> None:
    world.backend()
    world.add_store()
    world.add_index(tuning={"chroma": {"hnsw": {"efSearch": 100}}})
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "InvalidTuning")
    assert world.message() == (
        "spec.tuning.chroma is set, but the store is memory: use spec.tuning.memory or leave it out"
    )


# -- lost, replaced, moved --
async def test_a_lost_index_is_reported_and_not_made_again(world: World) -> None:
    store = world.backend()
    await ready(world)
    await store.memory.delete_index("docs-g1")
    store.calls.clear()
    await world.tick()
    assert world.conditions()["Stalled"] == ("True", "IndexLost")
    assert world.message() == (
        "index docs-g1 is gone from the store, with its vectors: restore it there, or set spec.onLost: Recreate to "
        "make an empty one"
    )
    assert store.changes == []
    await world.tick()
    assert world.events.reasons("docs").count("IndexLost") == 1


async def test_a_lost_index_that_comes_back_is_seen(world: World) -> None:
    store = world.backend()
    await ready(world)
    kept = store.memory._indexes.pop("docs-g1")
    await world.tick()
    assert world.conditions()["Stalled"] == ("True", "IndexLost")
    store.memory._indexes["docs-g1"] = kept
    await world.tick()
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_a_lost_index_is_made_again_where_the_spec_says_so(world: World) -> None:
    store = world.backend()
    await ready(world, onLost="Recreate")
    before = world.status()["incarnation"]
    await store.memory.delete_index("docs-g1")
    await world.tick()
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert world.status()["incarnation"] != before
    assert await store.memory.aliases() == {"docs": "docs-g1"}
    assert "Recreating" in world.events.reasons("docs")


async def test_an_index_that_was_replaced_is_not_taken_over(world: World) -> None:
    store = world.backend(memory=plain())
    await ready(world)
    await store.memory.delete_index("docs")
    await foreign(store.memory)
    store.calls.clear()
    await world.tick()
    assert world.conditions()["Stalled"] == ("True", "IndexReplaced")
    assert store.changes == []


async def test_another_backend_is_not_an_empty_new_world(world: World) -> None:
    world.backend()
    await ready(world)
    before = world.status("vectors", "VectorStore")["backendId"]
    other = world.backend("http://elsewhere")
    world.add_store(server="http://elsewhere")
    await world.settle()
    store = world.conditions("vectors", "VectorStore")
    assert store["Stalled"] == ("True", "BackendChanged")
    found = (await other.memory.probe()).backend_id
    assert world.message("vectors", "VectorStore") == (
        f"another backend answers at memory (id {found}, before {before}), without the indexes of docs: point the "
        f"store back, or accept the new one with the annotation vectorwright.dev/accept-backend={found}"
    )
    assert world.conditions()["Ready"] == ("False", "StoreNotReady")
    assert other.changes == []
    world.add_store()
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_on_an_accepted_backend_the_index_is_lost_by_its_own_policy(world: World) -> None:
    world.backend()
    await ready(world)
    other = world.backend("http://elsewhere")
    found = (await other.memory.probe()).backend_id
    world.add_store(server="http://elsewhere")
    world.api.annotate("VectorStore", NAMESPACE, "vectors", accept_backend=found)
    await world.settle()
    assert world.conditions("vectors", "VectorStore")["Ready"] == ("True", "Ready")
    assert world.conditions()["Stalled"] == ("True", "IndexLost")
    assert other.changes == []


async def test_a_backend_that_changed_its_address_is_the_same(world: World) -> None:
    """The same indexes behind another identity: nothing was lost."""
    store = world.backend()
    await ready(world)
    store.memory._backend_id = "another-name"
    world.backends["http://moved"] = store
    world.add_store(server="http://moved")
    await world.settle()
    assert world.conditions("vectors", "VectorStore")["Ready"] == ("True", "Ready")
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert world.status()["backendId"] == "another-name"


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


# -- the embedding model --
MODEL: dict[str, Any] = {"embeddingModelRef": {"name": "small"}}


async def test_the_dimension_comes_from_the_model(world: World) -> None:
    store = world.backend()
    world.add_store()
    world.add_model("small", 6, "print-1")
    world.add_index(**MODEL)
    await world.settle()
    assert world.status()["dimension"] == 6
    assert world.status()["model"] == "small"
    assert world.status()["modelFingerprint"] == "print-1"
    assert (await store.memory.describe_index("docs-g1")).model_fingerprint == "print-1"


async def test_a_model_that_is_not_ready_is_waited_for(world: World) -> None:
    world.backend()
    world.add_store()
    world.add_index(**MODEL)
    await world.settle()
    assert world.conditions()["Ready"] == ("False", "ModelNotFound")
    world.models["small"] = Terminal("the endpoint refuses the key (401)", reason="Unauthorized")
    world.api.apply(resource("EmbeddingModel", "small", {"local": {"model": "wordllama"}}))
    await world.settle()
    assert world.conditions()["Ready"] == ("False", "ModelNotReady")
    assert world.message() == "EmbeddingModel small is not ready: the endpoint refuses the key (401)"
    world.models["small"] = (6, "print-1")
    world.driver.queue.add(Key("EmbeddingModel", NAMESPACE, "small"))
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_a_dimension_that_contradicts_the_model_is_refused(world: World) -> None:
    world.backend()
    world.add_store()
    world.add_model("small", 6, "print-1")
    world.add_index(dimension=5, **MODEL)
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "DimensionMismatch")
    assert world.message() == (
        "spec.dimension is 5, but EmbeddingModel small makes vectors of dimension 6: leave spec.dimension out, or use "
        "a model of that dimension"
    )


async def with_model(world: World, count: int) -> None:
    store = world.backend()
    world.add_store()
    world.add_model("small", 4, "print-1")
    world.add_model("other", 4, "print-2")
    world.add_index(**MODEL)
    await world.settle()
    if count:
        await store.memory.upsert("docs-g1", vectors(count))
    store.calls.clear()
    world.add_index(embeddingModelRef={"name": "other"})
    await world.settle()


async def test_another_model_of_the_same_dimension_is_never_mixed_in(world: World) -> None:
    await with_model(world, 2)
    assert world.conditions()["Stalled"] == ("True", "ModelMismatch")
    assert world.message() == (
        "index docs-g1 holds vectors of another embedding model (fingerprint print-1, the spec's is print-2): they "
        "cannot be mixed; use the model that made them, or a new VectorIndex"
    )
    assert world.backend().changes == []


async def test_an_empty_index_may_change_its_model(world: World) -> None:
    await with_model(world, 0)
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert world.status()["modelFingerprint"] == "print-2"
    assert (await world.backend().memory.describe_index("docs-g1")).model_fingerprint == "print-2"


async def test_an_empty_index_may_change_its_model_where_listings_carry_no_counts(world: World) -> None:
    world.backend(memory=_uncounted())
    await with_model(world, 0)
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_an_index_that_holds_vectors_may_not_where_listings_carry_no_counts(world: World) -> None:
    world.backend(memory=_uncounted())
    await with_model(world, 1)
    assert world.conditions()["Stalled"] == ("True", "ModelMismatch")


class _PutsOff(MemoryStore):
    """Has a vector index to build when it is told so."""

    unbuilt = False

    async def describe_index(self, name: str) -> IndexDescription:
        return replace(await super().describe_index(name), unbuilt=self.unbuilt)

    async def list_indexes(self) -> list[IndexDescription]:
        return [replace(one, unbuilt=self.unbuilt) for one in await super().list_indexes()]

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        await super().update_index(name, settings, new_fields)
        self.unbuilt = False


async def test_a_vector_index_that_was_put_off_is_built_after_the_run(world: World) -> None:
    memory = _PutsOff(replace(DURABLE, aliases=False))
    world.backend(memory=memory)
    await ready(world)
    builds = world.backend().made("update_index")
    memory.unbuilt = True
    job = resource("IngestionJob", "fill", {"indexRef": {"name": "docs"}}, uid="u-fill")
    world.context.cache.put("IngestionJob", {**job, "status": {"run": {"id": "fill-1"}}})
    await world.tick()
    assert world.backend().made("update_index") == builds
    world.context.cache.drop(Key("IngestionJob", NAMESPACE, "fill"), "u-fill")
    await world.tick()
    assert world.backend().made("update_index") == builds + Counter(update_index=1)
    assert "Building" in world.events.reasons("docs")
    assert world.conditions()["Ready"] == ("True", "Ready")


class _Uncounted(MemoryStore):
    async def list_indexes(self) -> list[IndexDescription]:
        return [replace(item, count=None) for item in await super().list_indexes()]

    async def describe_index(self, name: str) -> IndexDescription:
        return replace(await super().describe_index(name), count=None)


def _uncounted() -> MemoryStore:
    return _Uncounted(replace(DURABLE, counts_in_listing=False))


async def test_an_index_that_records_no_model_takes_the_specs(world: World) -> None:
    store = world.backend()
    await ready(world)
    world.add_model("small", 4, "print-1")
    world.add_index(**MODEL)
    await world.settle()
    assert (await store.memory.describe_index("docs-g1")).model_fingerprint == "print-1"


# -- read-only --
async def test_a_read_only_installation_changes_nothing_in_the_store(read_only: World) -> None:
    world = read_only
    store = world.backend(memory=tunable())
    await foreign(
        store.memory, "kept", settings={"hnsw.ef_search": 5}, mark=OwnershipMark(INSTALLATION, NAMESPACE, "kept")
    )
    await foreign(store.memory, "unmarked")
    world.api.apply(
        {
            "apiVersion": "vectorwright.dev/v1alpha1",
            "kind": "VectorStore",
            "metadata": {"name": "vectors", "namespace": NAMESPACE},
            "spec": {"chroma": {"url": "http://vectors"}},
        }
    )
    tuning = {"chroma": {"hnsw": {"efSearch": 100}}}
    world.add_index("kept", tuning=tuning, updatePolicy="Disruptive", deletionPolicy="Delete")
    world.add_index("absent", tuning=tuning)
    world.add_index("unmarked", adoptionPolicy="IfMatching")
    await world.settle()
    assert store.changes == []
    assert world.conditions("kept")["Drifted"] == ("True", "Drifted")
    assert world.conditions("absent")["Ready"] == ("False", "IndexNotFound")
    assert world.message("absent") == (
        "index absent does not exist in VectorStore vectors, and this installation is read-only"
    )
    assert world.conditions("unmarked")["Ready"] == ("True", "Ready")
    for name in ("kept", "absent", "unmarked"):
        world.api.remove("VectorIndex", NAMESPACE, name)
    await world.settle()
    assert store.changes == []
    assert not world.exists("kept")
    assert {write.subresource for write in world.api.writes} == {"status"}


async def test_a_finalizer_from_before_goes_without_a_change_in_a_read_only_installation(read_only: World) -> None:
    world = read_only
    store = world.backend(memory=plain())
    await foreign(store.memory, mark=MINE)
    world.add_store()
    world.add_index(deletionPolicy="Delete")
    body = world.index()
    body["metadata"]["finalizers"] = ["vectorwright.dev/finalizer"]
    world.api.apply(body)
    await world.settle()
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()
    assert not world.exists()
    assert store.changes == []


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


async def test_an_index_that_vanishes_while_it_is_mended_is_looked_at_again(world: World) -> None:
    store = world.backend(memory=tunable())
    await ready_tuned(world)
    await store.memory.update_index("docs", {"hnsw.ef_search": 7})
    store.before["update_index"] = store.memory._indexes.clear
    await world.tick()
    assert world.conditions()["Stalled"] == ("True", "IndexLost")


async def test_the_count_that_allows_another_model_is_not_an_old_one(world: World) -> None:
    """Vectors that came after the last listing count."""
    store = world.backend()
    await with_model(world, 0)
    assert world.status()["modelFingerprint"] == "print-2"
    await store.memory.upsert("docs-g1", vectors(1))
    world.add_index(embeddingModelRef={"name": "small"})
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "ModelMismatch")


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
