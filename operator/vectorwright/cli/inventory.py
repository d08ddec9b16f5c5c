"""What the stores of a namespace hold, and which resource each index belongs to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vectorwright.api.v1alpha1 import VectorIndex, VectorStore
from vectorwright.errors import NotFound, VectorwrightError
from vectorwright.kube import resources
from vectorwright.stores.base import IndexDescription, OwnershipMark, Store, StoreInfo

from .connecting import Cluster, get_store, open_described


@dataclass(frozen=True, slots=True)
class Holding:
    """One index of a store."""

    store: VectorStore
    index: IndexDescription
    aliases: tuple[str, ...]
    """Names that lead to it besides its own, sorted."""
    resource: VectorIndex | None
    """The VectorIndex beside the store's resource that names it."""

    @property
    def name(self) -> str:
        """The name that clients use: the first alias, where there is one."""
        return self.aliases[0] if self.aliases else self.index.name

    @property
    def mark(self) -> OwnershipMark | None:
        """The ownership mark on it."""
        return self.index.mark


async def vector_indexes(cluster: Cluster) -> list[VectorIndex]:
    """All VectorIndexes of the namespace."""
    bodies = await cluster.client.list(resources.VECTOR_INDEXES, cluster.namespace)
    return [VectorIndex.model_validate(body) for body in bodies]


async def vector_stores(cluster: Cluster, name: str | None) -> list[VectorStore]:
    """The VectorStore of that name, or all of the namespace. Raises NotFound for one that does not exist."""
    if name is not None:
        return [await get_store(cluster, name)]
    bodies = await cluster.client.list(resources.VECTOR_STORES, cluster.namespace)
    return [VectorStore.model_validate(body) for body in bodies]


def assigned(
    store: VectorStore,
    found: Iterable[IndexDescription],
    aliases: Mapping[str, str],
    indexes: Iterable[VectorIndex],
) -> list[Holding]:
    """The indexes of a store, each with the resource that names it: by status, by alias, or by its name."""
    by_name: dict[str, VectorIndex] = {}
    for resource in indexes:
        if resource.spec.store_ref.name == store.metadata.name:
            named = resource.spec.index_name or resource.metadata.name
            by_name[resource.status.physical_name or aliases.get(named, named)] = resource
    leading: dict[str, list[str]] = {}
    for alias, target in aliases.items():
        leading.setdefault(target, []).append(alias)
    return [Holding(store, one, tuple(sorted(leading.get(one.name, ()))), by_name.get(one.name)) for one in found]


@asynccontextmanager
async def opened(cluster: Cluster, store: VectorStore) -> AsyncIterator[tuple[Store, StoreInfo]]:
    """The store, with its control credentials, and what a probe tells; its capabilities are those of the server."""
    async with await open_described(cluster.client, store, data=False) as found:
        yield found, await found.probe()


async def holdings(store: VectorStore, found: Store, indexes: Iterable[VectorIndex]) -> list[Holding]:
    """Everything that an open store holds: one listing, and one of the aliases where it has any."""
    aliases = await found.aliases() if found.capabilities.aliases else {}
    return assigned(store, await found.list_indexes(), aliases, indexes)


async def counted(found: Store, holding: Holding) -> tuple[int, bool] | None:
    """Vectors of an index, and whether the number is exact; None where the index is gone by now."""
    if holding.index.count is not None:
        return holding.index.count, holding.index.count_exact
    try:
        held = await found.statistics(holding.index.name)
    except NotFound:
        return None
    return held.count, held.exact


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the stores of a namespace hold."""

    holdings: tuple[tuple[Holding, int | None, bool], ...]
    """Each index with its number of vectors, None where it is gone by now, and whether that number is exact."""
    unread: Mapping[str, str]
    """VectorStores that could not be read, and why."""


async def take_inventory(cluster: Cluster, store: str | None, *, wanted: Callable[[Holding], bool]) -> Inventory:
    """What the stores hold, as far as it is ``wanted``; of two VectorStores of one backend the first by name tells.

    Raises NotFound for a VectorStore that was named and does not exist, Terminal and Retryable where the cluster
    cannot be read. A store that cannot be read is told in ``unread``.
    """
    indexes = await vector_indexes(cluster)
    seen: set[tuple[str, str]] = set()
    found: list[tuple[Holding, int | None, bool]] = []
    unread: dict[str, str] = {}
    for one in sorted(await vector_stores(cluster, store), key=lambda item: item.metadata.name):
        try:
            async with opened(cluster, one) as (handle, info):
                for holding in await holdings(one, handle, indexes):
                    place = info.backend_id, holding.index.name
                    if place in seen or not wanted(holding):
                        continue
                    seen.add(place)
                    count, exact = await counted(handle, holding) or (None, True)
                    found.append((holding, count, exact))
        except VectorwrightError as error:
            unread[one.metadata.name] = error.message
    return Inventory(tuple(found), unread)
