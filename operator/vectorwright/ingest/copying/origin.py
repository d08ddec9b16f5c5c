"""Where copied records come from: another index."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from vectorwright.ingest.context import StoreCalls
from vectorwright.ingest.identity import holds_id
from vectorwright.ingest.run_frame import check_place
from vectorwright.ingest.runspec import StorePlace
from vectorwright.stores.base import Record

from .fit import Space


class Origin(Protocol):
    """Records with vectors, that can be read more than once."""

    id_pattern: str | None
    """Regular expression of the ids that it can hold. None: any."""
    revision: str | None
    """What is read, for the status of the run."""

    async def prepare(self) -> Space:
        """Look at what is there. To be called first. Raises Terminal, Retryable."""
        ...

    async def count(self) -> int:
        """Number of records, or an estimate of it."""
        ...

    def pages(self, page: int) -> AsyncGenerator[list[Record], None]:
        """All records, each once, with vectors, in pages of at most ``page``. Raises Retryable, Terminal."""
        ...

    async def present(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that it has."""
        ...


class IndexOrigin:
    """Another index."""

    def __init__(self, calls: StoreCalls, place: StorePlace) -> None:
        self._calls = calls
        self._place = place
        self.id_pattern = calls.store.capabilities.id_pattern
        self.revision: str | None = place.incarnation

    async def prepare(self) -> Space:
        """See :class:`Origin`. Raises Terminal where it is not the index that the copy was planned for."""
        calls = self._calls
        await calls.call(calls.store.probe)
        self.id_pattern = calls.store.capabilities.id_pattern
        found = await calls.call(lambda: calls.store.describe_index(calls.index))
        check_place(self._place, found)
        return Space(f"the source index {calls.index!r}", found.dimension, found.metric, found.model_fingerprint)

    async def count(self) -> int:
        """See :class:`Origin`."""
        calls = self._calls
        return await calls.call(lambda: calls.store.count(calls.index))

    def pages(self, page: int) -> AsyncGenerator[list[Record], None]:
        """See :class:`Origin`."""
        return self._calls.scroll(vectors=True, page=page)

    async def present(self, ids: Sequence[str]) -> set[str]:
        """See :class:`Origin`. Ids that the store cannot hold are not asked for."""
        asked = [record_id for record_id in ids if holds_id(self.id_pattern, record_id)]
        return set(await self._calls.fetch(asked, metadata=False))
