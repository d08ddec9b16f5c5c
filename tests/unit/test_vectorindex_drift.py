"""A VectorIndex whose index differs from its spec, through the real driver, queue and reconcilers.

What is checked: drift mended and told, or shown where the ceiling, Observe or the store does not let it be mended; a
vector index that was put off is built; a read-only installation changes nothing, and lets go of what it was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import pytest
from tests.support.reconciling import DURABLE, INSTALLATION, NAMESPACE, World, resource
from tests.support.vector_indexes import MINE, add_tunable_store, foreign, plain, ready, ready_tuned, tunable

from vectorwright.reconcile import sessions
from vectorwright.reconcile.cache import Key
from vectorwright.stores.base import FieldDefinition, IndexDescription, OwnershipMark, Setting
from vectorwright.stores.memory import MemoryStore


async def test_drift_is_mended_and_told(world: World) -> None:
    store = world.backend(memory=tunable())
    await ready_tuned(world)
    await store.memory.update_index("docs", {"hnsw.ef_search": 7})
    await world.tick()
    assert (await store.memory.describe_index("docs")).settings["hnsw.ef_search"] == 100
    assert world.conditions()["Synced"] == ("True", "ReconcileSuccess")
    assert world.events.told[-1][3:] == ("DriftCorrected", "set in the store: tuning.hnsw.ef_search 7 → 100")
    assert world.status()["driftedFields"] == 0


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


# -- read-only --
@pytest.fixture
async def read_only(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with World(read_only=True) as made:
        monkeypatch.setattr(sessions, "open_store", made.open_store)
        yield made


async def test_a_read_only_installation_changes_nothing_in_the_store(read_only: World) -> None:
    world = read_only
    store = world.backend(memory=tunable())
    await foreign(
        store.memory, "kept", settings={"hnsw.ef_search": 5}, mark=OwnershipMark(INSTALLATION, NAMESPACE, "kept")
    )
    await foreign(store.memory, "unmarked")
    add_tunable_store(world)
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
