"""Base of stores that pass every call on to another store, and do something around it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from .absent import ClosingStore
from .base import (
    Capabilities,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    IndexStatistics,
    Match,
    OwnershipMark,
    Record,
    RecordBatch,
    Setting,
    Store,
    StoreInfo,
    Vectors,
)
from .filters import Filter

T = TypeVar("T")


class WrappedStore(ClosingStore):
    """Every method is that of :class:`~.base.Store`, and goes through :meth:`_call`; ``scroll`` and ``close`` are left
    to those that derive from it."""

    capabilities: Capabilities

    @abstractmethod
    async def _call(self, operation: str, function: Callable[[Store], Awaitable[T]]) -> T:
        """What ``function`` returns when it is given the store. ``operation`` is the name of the method."""

    async def probe(self) -> StoreInfo:
        """See :class:`~.base.Store`; a probe may refine the capabilities."""
        info = await self._call("probe", lambda store: store.probe())
        self.capabilities = info.capabilities
        return info

    async def list_indexes(self) -> list[IndexDescription]:
        """See :class:`~.base.Store`."""
        return await self._call("list_indexes", lambda store: store.list_indexes())

    async def describe_index(self, name: str) -> IndexDescription:
        """See :class:`~.base.Store`."""
        return await self._call("describe_index", lambda store: store.describe_index(name))

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """See :class:`~.base.Store`."""
        return await self._call("create_index", lambda store: store.create_index(definition))

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """See :class:`~.base.Store`."""
        await self._call("update_index", lambda store: store.update_index(name, settings, new_fields))

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """See :class:`~.base.Store`."""
        await self._call("set_mark", lambda store: store.set_mark(name, mark, model_fingerprint))

    async def delete_index(self, name: str) -> None:
        """See :class:`~.base.Store`."""
        await self._call("delete_index", lambda store: store.delete_index(name))

    async def statistics(self, name: str) -> IndexStatistics:
        """See :class:`~.base.Store`."""
        return await self._call("statistics", lambda store: store.statistics(name))

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """See :class:`~.base.Store`."""
        await self._call("delete_namespace", lambda store: store.delete_namespace(name, namespace))

    async def count(self, name: str, where: Filter | None = None) -> int:
        """See :class:`~.base.Store`."""
        return await self._call("count", lambda store: store.count(name, where))

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """See :class:`~.base.Store`."""
        await self._call("upsert", lambda store: store.upsert(name, batch))

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """See :class:`~.base.Store`."""
        return await self._call("fetch", lambda store: store.fetch(name, ids, vectors=vectors, metadata=metadata))

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """See :class:`~.base.Store`."""
        return await self._call("query", lambda store: store.query(name, vector, top_k, where, vectors=vectors))

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :class:`~.base.Store`."""
        await self._call("delete", lambda store: store.delete(name, ids))

    async def delete_where(self, name: str, where: Filter) -> None:
        """See :class:`~.base.Store`."""
        await self._call("delete_where", lambda store: store.delete_where(name, where))

    async def aliases(self) -> dict[str, str]:
        """See :class:`~.base.Store`."""
        return await self._call("aliases", lambda store: store.aliases())

    async def set_alias(self, alias: str, index: str) -> None:
        """See :class:`~.base.Store`."""
        await self._call("set_alias", lambda store: store.set_alias(alias, index))

    async def delete_alias(self, alias: str) -> None:
        """See :class:`~.base.Store`."""
        await self._call("delete_alias", lambda store: store.delete_alias(alias))
