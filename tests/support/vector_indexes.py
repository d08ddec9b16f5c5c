"""VectorIndexes of a :class:`~tests.support.reconciling.World`: stores for them, and ways to have one made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.reconciling import DURABLE, INSTALLATION, NAMESPACE, World, resource

from vectorwright.stores.base import ChangeClass, IndexDefinition, OwnershipMark
from vectorwright.stores.memory import MemoryStore

MINE = OwnershipMark(INSTALLATION, NAMESPACE, "docs")
"""The mark of VectorIndex docs."""
MODEL: dict[str, Any] = {"embeddingModelRef": {"name": "small"}}
"""In a spec: the dimension comes from this model."""


def plain(**changes: object) -> MemoryStore:
    """A store in memory without aliases: the index has the very name that clients use."""
    return MemoryStore(replace(DURABLE, aliases=False, **changes))  # type: ignore[arg-type]


def tunable() -> MemoryStore:
    """A plain store with a setting of each class."""
    return plain(
        mutable_settings={
            "hnsw.ef_search": ChangeClass.SAFE,
            "hnsw.max_neighbors": ChangeClass.IMMUTABLE,
            "hnsw.num_threads": ChangeClass.COSTLY,
        }
    )


async def foreign(store: MemoryStore, name: str = "docs", *, dimension: int = 4, **more: object) -> None:
    """An index that the operator has not made."""
    await store.create_index(IndexDefinition(name, dimension, "cosine", **more))  # type: ignore[arg-type]


async def ready(world: World, **spec: object) -> None:
    """VectorIndex docs, made and Ready."""
    world.add_store()
    world.add_index(**spec)  # type: ignore[arg-type]
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")


def add_tunable_store(world: World) -> None:
    """The memory store has no tuning block of its own: a provider that has one stands in front of it."""
    world.api.apply(resource("VectorStore", "vectors", {"chroma": {"url": "http://vectors"}}))


async def ready_tuned(world: World, **spec: object) -> None:
    """Like ``ready()``, with a setting; before a ``tunable()`` store."""
    add_tunable_store(world)
    tuning = {"chroma": {"hnsw": {"efSearch": 100}}}
    world.add_index(**{"tuning": tuning, **spec})  # type: ignore[arg-type]
    await world.settle()
    assert world.conditions()["Ready"] == ("True", "Ready")
