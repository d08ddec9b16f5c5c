"""Exact search in the memory of this process: for tests and trials. Nothing survives a restart.

It is the simplest store that keeps the whole protocol, so what the other stores must do is read here. It runs in
process, or behind the store server like any other. All methods are free of awaits, hence atomic in one event loop.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vectorwright import __version__
from vectorwright.errors import Conflict, NotFound, Terminal

from .absent import StoreWithoutNamespaces
from .base import (
    Capabilities,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    IndexStatistics,
    Match,
    Metadata,
    OwnershipMark,
    Record,
    RecordBatch,
    Setting,
    StoreInfo,
    Vectors,
)
from .filters import Filter, matches
from .server_checks import check_batch, check_definition, check_fields, check_name, check_query, check_settings

MEMORY_CAPABILITIES = Capabilities(
    metrics=frozenset({"cosine", "dotproduct", "euclidean"}),
    max_dimension=65_535,
    list_metadata=True,
    aliases=True,
    atomic_alias_swap=True,
    counts_in_listing=True,
    filtered_count=True,
    durable=False,
    exact_search=True,
)


def _copied(metadata: Metadata) -> Metadata:
    return {name: list(value) if isinstance(value, list) else value for name, value in metadata.items()}


@dataclass(slots=True)
class _Index:
    """One index. Row *i* of ``matrix``, shape (capacity, d), belongs to ``ids[i]``; the first ``len(ids)`` are used."""

    definition: IndexDefinition
    settings: dict[str, Setting]
    fields: dict[str, FieldDefinition]
    mark: OwnershipMark | None
    model_fingerprint: str | None
    incarnation: str = field(default_factory=lambda: str(uuid.uuid4()))
    ids: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    metadata: list[Metadata] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    matrix: Vectors = field(init=False)
    norms: Vectors = field(init=False)
    """The length of each row of ``matrix``."""

    def __post_init__(self) -> None:
        self.matrix = np.empty((0, self.definition.dimension), np.float32)
        self.norms = np.empty(0, np.float32)

    def write(self, batch: RecordBatch) -> None:
        new = sum(record_id not in self.rows for record_id in batch.ids)
        self._reserve(len(self.ids) + new)
        for at, record_id in enumerate(batch.ids):
            row = self.rows.get(record_id)
            if row is None:
                row = self.rows[record_id] = len(self.ids)
                self.ids.append(record_id)
                self.metadata.append(_copied(batch.metadata[at]))
                self.texts.append(batch.texts[at])
            else:
                self.metadata[row] = _copied(batch.metadata[at])
                self.texts[row] = batch.texts[at]
            self.matrix[row] = batch.vectors[at]
            self.norms[row] = np.linalg.norm(batch.vectors[at])

    def _reserve(self, rows: int) -> None:
        if rows > len(self.matrix):
            used, capacity = len(self.ids), max(rows, 2 * len(self.matrix), 64)
            self.matrix, old = np.empty((capacity, self.definition.dimension), np.float32), self.matrix
            self.norms, lengths = np.empty(capacity, np.float32), self.norms
            self.matrix[:used], self.norms[:used] = old[:used], lengths[:used]

    def remove(self, record_id: str) -> None:
        """Remove a record, if it is there, by moving the last one into its place."""
        row = self.rows.pop(record_id, None)
        if row is None:
            return
        last = len(self.ids) - 1
        if row != last:
            self.ids[row] = self.ids[last]
            self.metadata[row] = self.metadata[last]
            self.texts[row] = self.texts[last]
            self.matrix[row] = self.matrix[last]
            self.norms[row] = self.norms[last]
            self.rows[self.ids[row]] = row
        for column in (self.ids, self.metadata, self.texts):
            column.pop()

    def matching(self, where: Filter | None) -> Iterator[int]:
        return (row for row, metadata in enumerate(self.metadata) if where is None or matches(where, metadata))

    def record(self, row: int, *, vectors: bool, metadata: bool) -> Record:
        return Record(
            self.ids[row],
            _copied(self.metadata[row]) if metadata else {},
            self.texts[row] if metadata else None,
            self.matrix[row].copy() if vectors else None,
        )

    def scores(self, vector: Vectors, rows: npt.NDArray[np.intp] | slice) -> Vectors:
        """Scores of rows, higher is nearer: one a row."""
        found = self.matrix[rows]
        match self.definition.metric:
            case "cosine":
                return np.asarray((found @ vector) / (self.norms[rows] * np.linalg.norm(vector)), np.float32)
            case "dotproduct":
                return np.asarray(found @ vector, np.float32)
            case _:
                return np.asarray(-np.linalg.norm(found - vector, axis=1), np.float32)

    def describe(self) -> IndexDescription:
        return IndexDescription(
            name=self.definition.name,
            dimension=self.definition.dimension,
            metric=self.definition.metric,
            incarnation=self.incarnation,
            fields=tuple(self.fields.values()),
            settings=dict(self.settings),
            mark=self.mark,
            model_fingerprint=self.model_fingerprint,
            count=len(self.ids),
        )


class MemoryStore(StoreWithoutNamespaces):
    """A store in the memory of this process. ``capabilities`` may be replaced to try smaller limits or settings.

    Settings that ``capabilities.mutable_settings`` names are kept as they are given; they change nothing else.
    """

    def __init__(self, capabilities: Capabilities = MEMORY_CAPABILITIES) -> None:
        self.capabilities = capabilities
        self._backend_id = str(uuid.uuid4())
        self._indexes: dict[str, _Index] = {}
        self._aliases: dict[str, str] = {}

    def _index(self, name: str) -> _Index:
        found = self._indexes.get(self._aliases.get(name, name))
        if found is None:
            raise NotFound(f"index {name[:200]!r} does not exist in this store")
        return found

    async def probe(self) -> StoreInfo:
        """Who is there. The backend's identity is new with every instance: what was in it is gone too."""
        return StoreInfo(f"vectorwright {__version__}", self._backend_id, "memory", self.capabilities)

    async def list_indexes(self) -> list[IndexDescription]:
        """Everything, sorted by name, with exact counts."""
        return [self._indexes[name].describe() for name in sorted(self._indexes)]

    async def describe_index(self, name: str) -> IndexDescription:
        """One index, by its name or alias. Raises NotFound."""
        return self._index(name).describe()

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make an index. Raises Conflict when an index or alias has the name, Terminal for a bad definition."""
        check_definition(definition, self.capabilities, self.capabilities.mutable_settings)
        if definition.name in self._indexes or definition.name in self._aliases:
            what = "an index" if definition.name in self._indexes else "an alias"
            raise Conflict(f"{what} named {definition.name!r} exists already in this store", reason="AlreadyExists")
        index = self._indexes[definition.name] = _Index(
            definition=definition,
            settings=dict(definition.settings),
            fields={one.name: one for one in definition.fields},
            mark=definition.mark,
            model_fingerprint=definition.model_fingerprint,
        )
        return index.describe()

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change settings and declare fields. Raises NotFound, Terminal."""
        index = self._index(name)
        check_settings(settings, self.capabilities.mutable_settings)
        check_fields(new_fields, self.capabilities)
        for one in new_fields:
            if index.fields.get(one.name, one) != one:
                raise Terminal(
                    f"index {name}: metadata field {one.name!r} is declared as {index.fields[one.name].type} already",
                    reason="InvalidField",
                )
        index.settings |= settings
        index.fields |= {one.name: one for one in new_fields}

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint. Raises NotFound."""
        index = self._index(name)
        index.mark, index.model_fingerprint = mark, model_fingerprint

    async def delete_index(self, name: str) -> None:
        """Drop an index, by its name, with the aliases that point to it. Raises NotFound."""
        if name not in self._indexes:
            raise NotFound(f"index {name[:200]!r} does not exist in this store")
        del self._indexes[name]
        self._aliases = {alias: index for alias, index in self._aliases.items() if index != name}

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds: exact. Raises NotFound."""
        index = self._index(name)
        return IndexStatistics(len(index.ids), self.capabilities.exact_counts, storage_bytes=index.matrix.nbytes)

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of records, of those that match. Raises NotFound."""
        index = self._index(name)
        return len(index.ids) if where is None else sum(1 for _ in index.matching(where))

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, all or none. Raises BatchRejected, BatchTooLarge, NotFound."""
        index = self._index(name)
        definition = index.definition
        check_batch(
            batch,
            index=name,
            dimension=definition.dimension,
            metric=definition.metric,
            capabilities=self.capabilities,
        )
        index.write(batch)

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index."""
        index = self._index(name)
        return {
            record_id: index.record(index.rows[record_id], vectors=vectors, metadata=metadata)
            for record_id in ids
            if record_id in index.rows
        }

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest, exactly; equal scores in the order of their ids. Raises NotFound, Terminal."""
        index = self._index(name)
        definition = index.definition
        asked = np.ascontiguousarray(vector, np.float32)
        check_query(asked, top_k, index=name, dimension=definition.dimension, metric=definition.metric)
        count = len(index.ids)
        rows = np.arange(count) if where is None else np.fromiter(index.matching(where), np.intp)
        scores = index.scores(asked, rows if len(rows) < count else slice(count))  # a slice copies nothing
        if len(rows) > top_k:
            # Ties with the last one stay in, so that the order by id decides among them.
            nearest = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
            rows, scores = rows[nearest], scores[nearest]
        ranked = sorted(zip(scores.tolist(), rows.tolist(), strict=True), key=lambda one: (-one[0], index.ids[one[1]]))
        return [Match(index.record(row, vectors=vectors, metadata=True), score) for score, row in ranked[:top_k]]

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records. Raises NotFound for the index."""
        index = self._index(name)
        for record_id in ids:
            index.remove(record_id)

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        index = self._index(name)
        for record_id in [index.ids[row] for row in index.matching(where)]:
            index.remove(record_id)

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Records that match now, in pages; one that is deleted meanwhile is left out. Raises NotFound."""
        index = self._index(name)
        ids = [index.ids[row] for row in index.matching(where)]
        for start in range(0, len(ids), max(1, page)):
            found = [
                index.record(index.rows[record_id], vectors=vectors, metadata=metadata)
                for record_id in ids[start : start + max(1, page)]
                if record_id in index.rows
            ]
            if found:
                yield found

    async def aliases(self) -> dict[str, str]:
        """Alias → index."""
        return dict(sorted(self._aliases.items()))

    async def set_alias(self, alias: str, index: str) -> None:
        """Point an alias at an index. Raises NotFound, and Conflict where an index has the alias's name."""
        self._needs_aliases()
        check_name(alias, self.capabilities)
        if index not in self._indexes:
            raise NotFound(f"index {index[:200]!r} does not exist in this store")
        if alias in self._indexes:
            raise Conflict(f"an index is named {alias!r}: an alias cannot have its name", reason="AlreadyExists")
        self._aliases[alias] = index

    async def delete_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotFound."""
        self._needs_aliases()
        if self._aliases.pop(alias, None) is None:
            raise NotFound(f"alias {alias[:200]!r} does not exist in this store")

    def _needs_aliases(self) -> None:
        if not self.capabilities.aliases:
            raise Terminal("this store has no aliases", reason="UnsupportedAlias")

    async def close(self) -> None:
        """Nothing is held open; what is stored stays until the process ends."""
