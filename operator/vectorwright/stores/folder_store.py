"""Base of the stores of one folder that one process serves: Lance tables, FAISS indexes.

The process holds an object for each index, which does the work; the store knows which there are.
"""

from __future__ import annotations

import asyncio
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np

from vectorwright import __version__
from vectorwright.errors import Conflict, NotFound, Terminal

from .absent import StoreWithoutAliases, StoreWithoutNamespaces
from .base import (
    Capabilities,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    Match,
    OwnershipMark,
    Record,
    Setting,
    StoreInfo,
    Vectors,
)
from .filters import Filter
from .server_checks import check_definition, check_fields


class FolderIndex(Protocol):
    """One index. What its methods do and raise is told in :class:`.base.Store`."""

    @property
    def broken(self) -> bool:
        """Whether the process must be started again before this index takes writes."""
        ...

    def describe(self) -> IndexDescription:
        """As it is now, from memory."""
        ...

    async def update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        """Change settings and declare fields."""
        ...

    async def set_mark(self, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint."""
        ...

    async def drop(self) -> Path:
        """Take the index away in one step; returns what is left of it, to be removed."""
        ...

    async def count(self, where: Filter | None) -> int:
        """Exact number of records."""
        ...

    async def fetch(self, ids: Sequence[str], *, vectors: bool, metadata: bool) -> dict[str, Record]:
        """Records by id."""
        ...

    async def query(self, vector: Vectors, top_k: int, where: Filter | None, /, *, vectors: bool) -> list[Match]:
        """The nearest to ``vector``, float32."""
        ...

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records by id."""
        ...

    async def delete_where(self, where: Filter) -> None:
        """Delete records that match."""
        ...

    def scroll(self, where: Filter | None, *, vectors: bool, metadata: bool, page: int) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages."""
        ...

    async def close(self) -> None:
        """Finish what was accepted."""
        ...


IndexT = TypeVar("IndexT", bound=FolderIndex)


class FolderStore(StoreWithoutAliases, StoreWithoutNamespaces, Generic[IndexT]):
    """The store of one folder. Its indexes and statistics, and how records get in, are of the store that derives from
    it."""

    capabilities: Capabilities
    library: ClassVar[tuple[str, str]]
    """Name of the format, and the distribution whose version is told with it."""
    mending: ClassVar[str]
    """What a person does about an index that cannot be read."""

    def __init__(self, root: Path, identity: str) -> None:
        self._root = root
        self._identity = identity
        self._indexes: dict[str, IndexT] = {}
        self._unreadable: dict[str, str] = {}
        """Name → why. Such an index is listed, refused, and does not keep the others from work."""
        self._lock = asyncio.Lock()
        self._removals: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _check_settings(self, settings: Mapping[str, Setting]) -> None:
        """Raise Terminal for settings that contradict each other or are not those of this store."""

    @abstractmethod
    async def _make(self, description: IndexDescription) -> IndexT:
        """Make an index that does not exist. Raises Retryable (``StoreFailed``)."""

    @abstractmethod
    async def _remove(self, remains: Path) -> None:
        """Remove what is left of an index."""

    @property
    def broken(self) -> bool:
        """Whether this process must be started again for all indexes to take writes."""
        return any(index.broken for index in self._indexes.values())

    def _index(self, name: str) -> IndexT:
        index = self._indexes.get(name)
        if index is None:
            if name in self._unreadable:
                raise Terminal(
                    f"index {name!r}: {self._unreadable[name]}; {self.mending}, then start the store server again",
                    reason="UnreadableIndex",
                )
            raise NotFound(f"index {name[:200]!r} does not exist in this store")
        return index

    async def probe(self) -> StoreInfo:
        """Who is there."""
        label, distribution = self.library
        told = f"{label} {version(distribution)}, vectorwright {__version__}"
        return StoreInfo(told, self._identity, str(self._root), self.capabilities)

    async def list_indexes(self) -> list[IndexDescription]:
        """Every index, sorted by name, with exact counts, from memory."""
        found = [index.describe() for index in self._indexes.values()]
        found += [IndexDescription(name, None, None, incarnation=f"unreadable:{name}") for name in self._unreadable]
        return sorted(found, key=lambda one: one.name)

    async def describe_index(self, name: str) -> IndexDescription:
        """One index. Raises NotFound, or Terminal where its files cannot be read."""
        return self._index(name).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make an index. Raises Conflict when the name is taken, Terminal for a bad definition, Retryable."""
        self._check_settings(definition.settings)
        check_definition(definition, self.capabilities, self.capabilities.mutable_settings)
        name = definition.name
        description = definition.described(str(uuid.uuid4()))
        async with self._lock:
            if name in self._indexes or name in self._unreadable:
                raise Conflict(f"an index named {name!r} exists already in this store", reason="AlreadyExists")
            index = self._indexes[name] = await self._make(description)
        return index.describe()

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings and declare fields, filled from the metadata that is there. Raises NotFound, Terminal."""
        index = self._index(name)
        self._check_settings(settings)
        check_fields(new_fields, self.capabilities)
        await index.update(settings, new_fields)

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint. Raises NotFound."""
        await self._index(name).set_mark(mark, model_fingerprint)

    async def delete_index(self, name: str) -> None:
        """Drop an index, in one step; its files go in the background. Raises NotFound."""
        async with self._lock:
            remains = await self._index(name).drop()
            del self._indexes[name]
        removal = asyncio.create_task(self._remove(remains))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound."""
        return await self._index(name).count(where)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        return await self._index(name).fetch(ids, vectors=vectors, metadata=metadata)

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest: exactly, unless a vector index was asked for and is built. Raises NotFound, Terminal."""
        asked = np.ascontiguousarray(vector, np.float32)
        return await self._index(name).query(asked, top_k, where, vectors=vectors)

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""
        await self._index(name).delete(ids)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        await self._index(name).delete_where(where)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages. Raises NotFound."""
        async for records in self._index(name).scroll(where, vectors=vectors, metadata=metadata, page=page):
            yield records

    async def close(self) -> None:
        """Finish what was accepted, then close. Safe to call twice."""
        await asyncio.gather(*(index.close() for index in self._indexes.values()), *self._removals)
        self._indexes.clear()
