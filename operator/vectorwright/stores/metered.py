"""A store whose calls are counted and timed: by provider, operation and result."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

from vectorwright.errors import Conflict, NotFound, Retryable, VectorwrightError
from vectorwright.observability import metrics

from .base import (
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


def _result(error: VectorwrightError) -> str:
    if isinstance(error, NotFound):
        return "not_found"
    if isinstance(error, Conflict):
        return "conflict"
    return "retryable" if isinstance(error, Retryable) else "terminal"


class MeteredStore:
    """The same store, with metrics. Every method is that of :class:`vectorwright.stores.base.Store`."""

    def __init__(self, store: Store, provider: str) -> None:
        self._store = store
        self._provider = provider
        self.capabilities = store.capabilities

    async def _timed(self, operation: str, call: Awaitable[T]) -> T:
        started = time.perf_counter()
        result = "cancelled"
        try:
            answer = await call
            result = "ok"
        except VectorwrightError as error:
            result = _result(error)
            raise
        else:
            return answer
        finally:
            metrics.STORE_REQUESTS.labels(self._provider, operation, result).inc()
            metrics.STORE_REQUEST_SECONDS.labels(self._provider, operation).observe(time.perf_counter() - started)

    async def probe(self) -> StoreInfo:
        """See :class:`~vectorwright.stores.base.Store`; a probe may refine the capabilities."""
        info = await self._timed("probe", self._store.probe())
        self.capabilities = info.capabilities
        return info

    async def list_indexes(self) -> list[IndexDescription]:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("list_indexes", self._store.list_indexes())

    async def describe_index(self, name: str) -> IndexDescription:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("describe_index", self._store.describe_index(name))

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("create_index", self._store.create_index(definition))

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("update_index", self._store.update_index(name, settings, new_fields))

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("set_mark", self._store.set_mark(name, mark, model_fingerprint))

    async def delete_index(self, name: str) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("delete_index", self._store.delete_index(name))

    async def statistics(self, name: str) -> IndexStatistics:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("statistics", self._store.statistics(name))

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("delete_namespace", self._store.delete_namespace(name, namespace))

    async def count(self, name: str, where: Filter | None = None) -> int:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("count", self._store.count(name, where))

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("upsert", self._store.upsert(name, batch))

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("fetch", self._store.fetch(name, ids, vectors=vectors, metadata=metadata))

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("query", self._store.query(name, vector, top_k, where, vectors=vectors))

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("delete", self._store.delete(name, ids))

    async def delete_where(self, name: str, where: Filter) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("delete_where", self._store.delete_where(name, where))

    def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """See :class:`~vectorwright.stores.base.Store`. Not timed: its pace is the caller's."""
        return self._store.scroll(name, where, vectors=vectors, metadata=metadata, page=page)

    async def aliases(self) -> dict[str, str]:
        """See :class:`~vectorwright.stores.base.Store`."""
        return await self._timed("aliases", self._store.aliases())

    async def set_alias(self, alias: str, index: str) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("set_alias", self._store.set_alias(alias, index))

    async def delete_alias(self, alias: str) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._timed("delete_alias", self._store.delete_alias(alias))

    async def close(self) -> None:
        """See :class:`~vectorwright.stores.base.Store`."""
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
