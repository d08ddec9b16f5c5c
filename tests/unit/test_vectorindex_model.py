"""A VectorIndex and its EmbeddingModel, through the real driver, queue and reconcilers.

What is checked: the dimension and the fingerprint come from the model; a model that is not there, not ready, or of
another dimension; vectors of two models are never mixed, and an empty index may change its model, by a count that is
not old.
"""

from __future__ import annotations

from dataclasses import replace

from tests.support.reconciling import DURABLE, NAMESPACE, World, resource, vectors
from tests.support.vector_indexes import MODEL, ready

from vectorwright.errors import Terminal
from vectorwright.reconcile.cache import Key
from vectorwright.stores.base import IndexDescription
from vectorwright.stores.memory import MemoryStore


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


async def test_an_index_that_records_no_model_takes_the_specs(world: World) -> None:
    store = world.backend()
    await ready(world)
    world.add_model("small", 4, "print-1")
    world.add_index(**MODEL)
    await world.settle()
    assert (await store.memory.describe_index("docs-g1")).model_fingerprint == "print-1"


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


async def test_the_count_that_allows_another_model_is_not_an_old_one(world: World) -> None:
    """Vectors that came after the last listing count."""
    store = world.backend()
    await with_model(world, 0)
    assert world.status()["modelFingerprint"] == "print-2"
    await store.memory.upsert("docs-g1", vectors(1))
    world.add_index(embeddingModelRef={"name": "small"})
    await world.settle()
    assert world.conditions()["Stalled"] == ("True", "ModelMismatch")


class _Uncounted(MemoryStore):
    async def list_indexes(self) -> list[IndexDescription]:
        return [replace(item, count=None) for item in await super().list_indexes()]

    async def describe_index(self, name: str) -> IndexDescription:
        return replace(await super().describe_index(name), count=None)


def _uncounted() -> MemoryStore:
    return _Uncounted(replace(DURABLE, counts_in_listing=False))


async def test_an_empty_index_may_change_its_model_where_listings_carry_no_counts(world: World) -> None:
    world.backend(memory=_uncounted())
    await with_model(world, 0)
    assert world.conditions()["Ready"] == ("True", "Ready")


async def test_an_index_that_holds_vectors_may_not_where_listings_carry_no_counts(world: World) -> None:
    world.backend(memory=_uncounted())
    await with_model(world, 1)
    assert world.conditions()["Stalled"] == ("True", "ModelMismatch")
