"""The end of a VectorIndex, through the real control loop and a real store in memory.

What is checked: Retain releases the mark and keeps the vectors; Delete asks for confirmation where there are vectors;
what is not ours stays; the release annotation; a store that is gone, down, another one, or not asked yet; a finalizer
that never hangs, and says what was left behind; the same end after a crash at any moment.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.reconciling import DURABLE, INSTALLATION, NAMESPACE, RecordingStore, World, vectors

from vectorwright.errors import Retryable, Terminal
from vectorwright.observability import metrics
from vectorwright.reconcile import index_deletion
from vectorwright.reconcile.cache import Key
from vectorwright.stores.base import IndexDefinition, OwnershipMark
from vectorwright.stores.memory import MemoryStore

MINE = OwnershipMark(INSTALLATION, NAMESPACE, "docs")
ASKED = datetime(2026, 1, 2, tzinfo=UTC)
"""When the API double says that a deletion was asked for."""


@pytest.fixture(autouse=True)
def asked_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every deletion was asked for just now, where the test does not say otherwise."""
    monkeypatch.setattr(index_deletion, "utc_now", lambda: ASKED)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the deletion have been asked for that many seconds ago."""
    moment = datetime.fromtimestamp(ASKED.timestamp() + seconds, UTC)
    monkeypatch.setattr(index_deletion, "utc_now", lambda: moment)


def left_behind(reason: str) -> float:
    return (
        metrics.REGISTRY.get_sample_value("vectorwright_left_behind_total", {"kind": "VectorIndex", "reason": reason})
        or 0.0
    )


async def made(world: World, count: int = 3, memory: MemoryStore | None = None, **spec: Any) -> RecordingStore:
    """A Ready index with vectors; the record of calls begins after it."""
    store = world.backend(memory=memory)
    world.add_store()
    world.add_index(**spec)
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")
    if count:
        await store.memory.upsert("docs", vectors(count))
    store.calls.clear()
    return store


async def delete(world: World) -> None:
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()


def again(world: World) -> None:
    world.driver.queue.add(Key("VectorIndex", NAMESPACE, "docs"))


# -- Retain --
async def test_retain_keeps_index_and_alias_and_releases_the_mark(world: World) -> None:
    store = await made(world)
    await delete(world)
    assert not world.exists()
    assert store.changes == ["set_mark"]
    found = await store.memory.describe_index("docs")
    assert (found.name, found.count, found.mark) == ("docs-g1", 3, None)
    assert world.events.told[-1][3:] == ("Retained", "index docs-g1 and its 3 vectors were retained in the store")


async def test_a_retained_index_keeps_the_identity_of_its_vectors(world: World) -> None:
    world.add_model("small", 4, "print-1")
    store = await made(world, embeddingModelRef={"name": "small"})
    await delete(world)
    assert (await store.memory.describe_index("docs")).model_fingerprint == "print-1"
    world.add_model("other", 4, "print-2")
    world.add_index(embeddingModelRef={"name": "other"}, adoptionPolicy="IfMatching")
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "ModelMismatch")


async def test_a_retained_index_is_taken_over_by_the_same_resource_only_where_it_may(world: World) -> None:
    store = await made(world)
    await delete(world)
    world.add_index()
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "AlreadyExists")
    world.add_index(adoptionPolicy="IfMatching")
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")
    assert (await store.memory.describe_index("docs")).mark == MINE


async def test_what_another_resource_owns_is_not_touched(world: World) -> None:
    other = OwnershipMark(INSTALLATION, "team-b", "docs")
    store = await made(world, deletionPolicy="Delete")
    await store.memory.set_mark("docs", other, None)
    await delete(world)
    assert not world.exists()
    assert store.changes == []
    assert (await store.memory.describe_index("docs")).mark == other


async def test_what_was_refused_is_not_touched(world: World) -> None:
    store = world.backend()
    await store.memory.create_index(IndexDefinition("docs", 4, "cosine"))
    world.add_store()
    world.add_index(deletionPolicy="Delete")
    await world.settle()
    await delete(world)
    assert not world.exists()
    assert store.changes == []
    assert (await store.memory.describe_index("docs")).count == 0


async def test_what_was_only_observed_is_not_touched(world: World) -> None:
    """Even where the resource was to manage it at the end."""
    store = world.backend()
    await store.memory.create_index(IndexDefinition("docs", 4, "cosine"))
    world.add_store()
    world.add_index(managementPolicy="Observe")
    await world.settle()
    world.add_index(managementPolicy="Manage", deletionPolicy="Delete")
    await world.settle()
    await delete(world)
    assert not world.exists()
    assert store.changes == []


# -- Delete --
async def test_vectors_are_deleted_only_once_that_was_confirmed(world: World) -> None:
    store = await made(world, deletionPolicy="Delete")
    await delete(world)
    assert world.conditions()["Ready"] == ("False", "DeletionNeedsConfirmation")
    assert world.message() == (
        "index docs-g1 holds 3 vectors: to delete them for good, run kubectl annotate vectorindex docs -n team-a "
        "vectorwright.dev/confirm-delete=docs-g1; to keep them, vectorwright.dev/release=true"
    )
    assert store.changes == []
    world.api.annotate("VectorIndex", NAMESPACE, "docs", confirm_delete="docs-g2")
    await world.settle()
    assert store.changes == []
    world.api.annotate("VectorIndex", NAMESPACE, "docs", confirm_delete="docs-g1")
    await world.settle()
    assert not world.exists()
    assert store.changes == ["delete_alias", "delete_index"]
    assert await store.memory.list_indexes() == []
    assert world.events.told[-1][3:] == ("Deleted", "index docs-g1 and its 3 vectors were deleted")


async def test_an_empty_index_needs_no_confirmation(world: World) -> None:
    store = await made(world, 0, deletionPolicy="Delete")
    await delete(world)
    assert not world.exists()
    assert await store.memory.list_indexes() == []


async def test_an_estimate_of_no_vectors_does_not_do_without_confirmation(world: World) -> None:
    memory = MemoryStore(replace(DURABLE, exact_counts=False))
    store = await made(world, 0, memory, deletionPolicy="Delete")
    await delete(world)
    assert world.conditions()["Ready"] == ("False", "DeletionNeedsConfirmation")
    assert "index docs-g1 holds about 0 vectors" in world.message()
    assert store.changes == []


async def test_an_alias_that_leads_elsewhere_by_now_is_not_deleted(world: World) -> None:
    store = await made(world, 0, deletionPolicy="Delete")
    await store.memory.create_index(IndexDefinition("theirs", 4, "cosine"))
    await store.memory.set_alias("docs", "theirs")
    await delete(world)
    assert not world.exists()
    assert await store.memory.aliases() == {"docs": "theirs"}
    assert [item.name for item in await store.memory.list_indexes()] == ["theirs"]


async def test_an_index_that_was_deleted_by_hand_lets_its_resource_go(world: World) -> None:
    store = await made(world, deletionPolicy="Delete")
    await store.memory.delete_index("docs-g1")
    await delete(world)
    assert not world.exists()
    assert store.changes == []


async def test_an_index_that_is_deleted_by_hand_at_the_same_moment_does_not_stall(world: World) -> None:
    store = await made(world, 0, deletionPolicy="Delete")
    store.before["delete_index"] = store.memory._indexes.clear
    await delete(world)
    assert not world.exists()


async def test_a_crash_between_creation_and_status_leaves_nothing_behind(world: World) -> None:
    """The index was made, its name and incarnation were not recorded yet."""
    store = await made(world, 0, deletionPolicy="Delete")
    await store.memory.delete_alias("docs")
    world.api.set_status("VectorIndex", NAMESPACE, "docs", {"conditions": []})
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.restart()
    assert not world.exists()
    assert await store.memory.list_indexes() == []


# -- release --
async def test_the_release_annotation_lets_go_without_the_store(world: World) -> None:
    store = await made(world, deletionPolicy="Delete")
    store.failures["*"] = Retryable("connection refused", reason="StoreUnreachable")
    await delete(world)
    assert world.exists()
    before = left_behind("Released")
    world.api.annotate("VectorIndex", NAMESPACE, "docs", release="true")
    await world.settle()
    assert not world.exists()
    assert store.changes == []
    assert left_behind("Released") == before + 1
    assert world.events.told[-1][3:] == (
        "LeftBehind",
        "index docs-g1 was left as it is, because of vectorwright.dev/release",
    )


async def test_an_unreachable_store_is_tried_again_and_the_way_out_is_named(world: World) -> None:
    store = await made(world, deletionPolicy="Delete")
    store.failures["describe_index"] = Retryable("connection refused", reason="StoreUnreachable")
    await delete(world)
    assert world.conditions()["Ready"] == ("False", "StoreUnreachable")
    assert world.conditions()["Reconciling"] == ("True", "StoreUnreachable")
    assert world.message() == (
        "index docs-g1 is not let go yet: connection refused (to let go without the store, set the annotation "
        "vectorwright.dev/release=true)"
    )


async def test_a_retained_index_does_not_wait_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await made(world)
    store.failures["describe_index"] = Retryable("connection refused", reason="StoreUnreachable")
    await delete(world)
    assert world.exists()
    later(monkeypatch, 61)
    before = left_behind("MarkNotRemoved")
    again(world)
    await world.settle()
    assert not world.exists()
    assert left_behind("MarkNotRemoved") == before + 1


async def test_a_store_that_refuses_lets_a_retained_index_go_and_stalls_a_deletion(world: World) -> None:
    store = await made(world)
    store.failures["describe_index"] = Terminal("the server refuses the token (401)", reason="Unauthorized")
    await delete(world)
    assert not world.exists()
    world.add_index(deletionPolicy="Delete", adoptionPolicy="IfMatching")
    del store.failures["describe_index"]
    await world.settle()
    store.failures["describe_index"] = Terminal("the server refuses the token (401)", reason="Unauthorized")
    await delete(world)
    assert world.conditions()["Stalled"] == ("True", "Unauthorized")


# -- without a store --
async def without_store(world: World) -> None:
    """The VectorStore object goes first."""
    world.api.annotate("VectorStore", NAMESPACE, "vectors", release="true")
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    assert not world.exists("vectors", "VectorStore")


async def test_without_its_vectorstore_an_index_is_let_go_and_what_is_left_is_told(world: World) -> None:
    await made(world, deletionPolicy="Delete")
    await without_store(world)
    before = left_behind("StoreGone")
    await delete(world)
    assert not world.exists()
    assert left_behind("StoreGone") == before + 1
    assert world.events.told[-1][3:] == (
        "LeftBehind",
        "index docs-g1 was left behind: VectorStore vectors is gone",
    )


async def test_an_index_that_never_was_made_goes_at_once(world: World) -> None:
    world.add_index()
    await world.settle()
    await delete(world)
    assert not world.exists()


async def test_a_store_that_never_answered_does_not_hold_its_indexes(world: World) -> None:
    world.add_store()
    world.add_index(deletionPolicy="Delete")
    body = world.index()
    body["metadata"]["finalizers"] = ["vectorwright.dev/finalizer"]
    world.api.apply(body)
    await world.settle()
    before = left_behind("StoreGone")
    await delete(world)
    assert not world.exists()
    assert left_behind("StoreGone") == before


async def test_a_store_that_the_watch_has_not_told_of_yet_is_not_taken_for_gone(world: World) -> None:
    """After a restart the index may arrive before its store does."""
    store = await made(world, 0, deletionPolicy="Delete")
    await world._stop()
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    world.start_afresh()
    world._watched("VectorIndex", None, world.index())
    async with world:
        await world.settle()
        assert world.exists()
        world._watched("VectorStore", None, world.api.get_now("VectorStore", NAMESPACE, "vectors"))
        await world.settle()
        again(world)
        await world.settle()
    assert not world.exists()
    assert await store.memory.list_indexes() == []


async def test_another_backend_is_not_taken_for_one_where_the_index_is_gone(world: World) -> None:
    store = await made(world, deletionPolicy="Delete")
    world.backend("http://elsewhere")
    world.add_store(server="http://elsewhere")
    await world.settle()
    await delete(world)
    assert world.conditions()["Stalled"] == ("True", "BackendChanged")
    world.add_store()
    world.api.annotate("VectorIndex", NAMESPACE, "docs", confirm_delete="docs-g1")
    await world.settle()
    assert not world.exists()
    assert await store.memory.list_indexes() == []


async def test_a_store_that_is_not_asked_yet_is_waited_for_and_a_terminating_namespace_is_not_held_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(world, deletionPolicy="Delete")
    world.backends.clear()
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.restart()
    assert world.conditions()["Ready"] == ("False", "StoreNotReady")
    assert world.message() == (
        "VectorStore vectors was not reached yet, so index docs-g1 is not let go yet (to let go without the store, set "
        "the annotation vectorwright.dev/release=true)"
    )
    later(monkeypatch, 61)
    again(world)
    await world.settle()
    assert world.exists()
    world.api.objects["Namespace", "", NAMESPACE] = {"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}}
    again(world)
    await world.settle()
    assert not world.exists()


async def test_a_crash_before_the_finalizer_was_taken_off_ends_the_same(world: World) -> None:
    store = await made(world, 0, deletionPolicy="Delete")
    killed: list[bool] = []

    def kill(write: Any) -> Retryable | None:
        if not killed and write.verb == "patch" and write.body["metadata"].get("finalizers") == []:
            killed.append(True)
            return Retryable("the operator died here", reason="Killed", after=300)
        return None

    world.api.before_write = kill
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.settle()
    assert killed
    assert world.exists()
    await world.restart()
    assert not world.exists()
    assert store.changes.count("delete_index") == 1


# -- the store waits --
async def test_a_vectorstore_outlives_the_indexes_that_need_it(world: World) -> None:
    store = await made(world, 0, deletionPolicy="Delete")
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    assert world.conditions("vectors", "VectorStore")["Ready"] == ("True", "InUse")
    assert world.message("vectors", "VectorStore") == (
        "kept until VectorIndex docs is deleted, which needs this store; let go at once with the annotation "
        "vectorwright.dev/release=true"
    )
    assert world.conditions()["Ready"] == ("True", "Ready")
    await delete(world)
    assert not world.exists()
    assert not world.exists("vectors", "VectorStore")
    assert await store.memory.list_indexes() == []


async def test_it_does_so_over_a_restart(world: World) -> None:
    store = await made(world, 0, deletionPolicy="Delete")
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    world.api.remove("VectorIndex", NAMESPACE, "docs")
    await world.restart()
    assert not world.exists()
    assert not world.exists("vectors", "VectorStore")
    assert await store.memory.list_indexes() == []


async def test_a_retained_index_does_not_hold_its_store(world: World) -> None:
    await made(world)
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    assert not world.exists("vectors", "VectorStore")
    assert world.conditions()["Ready"] == ("False", "StoreNotFound")


async def test_a_store_goes_once_its_last_index_is_to_be_retained_after_all(world: World) -> None:
    await made(world, deletionPolicy="Delete")
    world.api.remove("VectorStore", NAMESPACE, "vectors")
    await world.settle()
    assert world.exists("vectors", "VectorStore")
    world.add_index(deletionPolicy="Retain")
    await world.settle()
    await world.tick()
    assert not world.exists("vectors", "VectorStore")


async def test_a_resource_that_changes_meanwhile_is_not_taken_for_trouble_in_the_store(world: World) -> None:
    store = await made(world)
    changed: list[bool] = []

    def change(write: Any) -> None:
        if not changed and write.body.get("metadata", {}).get("finalizers") == []:
            changed.append(True)
            world.api.annotate("VectorIndex", NAMESPACE, "docs", note="somebody was here")

    world.api.before_write = change
    before = left_behind("MarkNotRemoved")
    await delete(world)
    assert changed
    assert not world.exists()
    assert left_behind("MarkNotRemoved") == before
    assert "LeftBehind" not in world.events.reasons()
    assert store.changes == ["set_mark"]
