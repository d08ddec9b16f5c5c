"""A store whose calls are counted and timed: by provider, operation and result."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from vectorwright.errors import Conflict, NotFound, Retryable, VectorwrightError
from vectorwright.observability import metrics

from .base import Record, Store
from .filters import Filter
from .wrapped import WrappedStore

T = TypeVar("T")


def _result(error: VectorwrightError) -> str:
    if isinstance(error, NotFound):
        return "not_found"
    if isinstance(error, Conflict):
        return "conflict"
    return "retryable" if isinstance(error, Retryable) else "terminal"


class MeteredStore(WrappedStore):
    """The same store, with metrics. Every method is that of :class:`~.base.Store`."""

    def __init__(self, store: Store, provider: str) -> None:
        self._store = store
        self._provider = provider
        self.capabilities = store.capabilities

    async def _call(self, operation: str, function: Callable[[Store], Awaitable[T]]) -> T:
        started = time.perf_counter()
        result = "cancelled"
        try:
            answer = await function(self._store)
            result = "ok"
        except VectorwrightError as error:
            result = _result(error)
            raise
        else:
            return answer
        finally:
            metrics.STORE_REQUESTS.labels(self._provider, operation, result).inc()
            metrics.STORE_REQUEST_SECONDS.labels(self._provider, operation).observe(time.perf_counter() - started)

    def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """See :class:`~.base.Store`. Not timed: its pace is the caller's."""
        return self._store.scroll(name, where, vectors=vectors, metadata=metadata, page=page)

    async def close(self) -> None:
        """See :class:`~.base.Store`."""
        await self._store.close()
