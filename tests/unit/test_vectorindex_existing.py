"""A VectorIndex and an index that is there already, is gone, or is somewhere else: real driver, queue and reconcilers.

What is checked: an index that exists is refused, adopted, or known by its mark; of another dimension or owner it is not
touched; one that is lost, replaced or comes back; another backend, accepted or not; the same one at another address.
"""

from __future__ import annotations

from tests.support.reconciling import NAMESPACE, World, vectors
from tests.support.vector_indexes import MINE, foreign, plain, ready, ready_tuned, tunable

from vectorwright.reconcile.cache import Key
from vectorwright.stores.base import FieldDefinition, OwnershipMark


# -- what exists already --
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


async def test_an_index_that_vanishes_while_it_is_mended_is_looked_at_again(world: World) -> None:
    store = world.backend(memory=tunable())
    await ready_tuned(world)
    await store.memory.update_index("docs", {"hnsw.ef_search": 7})
    store.before["update_index"] = store.memory._indexes.clear
    await world.tick()
    assert world.conditions()["Stalled"] == ("True", "IndexLost")


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
