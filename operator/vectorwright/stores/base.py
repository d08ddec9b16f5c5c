"""The protocol that every store is spoken to through, and the values that cross it.

Shapes: a batch of *n* records of dimension *d* holds ``vectors`` of shape ``(n, d)``, C-contiguous float32, and lists
of length *n*. Every method raises only the errors of :mod:`vectorwright.errors`; a store's SDK errors are translated in
its own file, and no message ever holds a credential.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias, runtime_checkable

from .filters import Filter

if TYPE_CHECKING:
    # The operator handles no vectors: numpy's 10 MiB are for those who do.
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""Shape (n, d), C-contiguous float32."""

MetadataValue = str | int | float | bool | list[str]
Metadata = dict[str, MetadataValue]
Setting = str | int | float | bool
"""A tuning setting. Settings are addressed by dotted names, such as ``hnsw.ef_search``."""

RESERVED_FIELDS: Mapping[str, str] = {
    "vw_source": "keyword",
    "vw_doc": "keyword",
    "vw_ver": "keyword",
    "vw_n": "integer",
    "vw_count": "integer",
    "vw_id": "keyword",
}
"""Reserved metadata and its types: source name, document, version, number of the chunk in its document (from 0), number
of chunks of the document's version, and the original id where a record came with one."""


class ChangeClass(StrEnum):
    """What a change costs. Ordered: an update policy is the highest class that is done."""

    SAFE = "Safe"
    COSTLY = "Costly"
    DISRUPTIVE = "Disruptive"
    IMMUTABLE = "Immutable"

    @property
    def rank(self) -> int:
        """Position in the order, from 0."""
        return list(ChangeClass).index(self)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do. Specs that ask for more are refused before any call."""

    metrics: frozenset[str]
    """Of cosine, dotproduct, euclidean."""
    max_dimension: int
    field_types: frozenset[str] = frozenset({"keyword", "integer", "float", "bool", "datetime"})
    """Types of metadata fields that it can filter by."""
    max_batch_records: int = 10_000
    max_batch_bytes: int = 32 * 2**20
    max_metadata_bytes: int = 2**20
    """Largest metadata of a record, as JSON, in bytes."""
    max_text_bytes: int = 16 * 2**20
    """Largest text of a record in bytes."""
    name_pattern: str = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
    """Regular expression of index names that it takes."""
    id_pattern: str | None = None
    """Regular expression of record ids that it takes. None: any text that is not empty."""
    mutable_settings: Mapping[str, ChangeClass] = field(default_factory=dict)
    """Tuning settings that can be changed after creation, and what a change costs. Others are Immutable."""
    list_metadata: bool = False
    """Whether metadata values may be lists of strings."""
    aliases: bool = False
    """Whether an index can have a second name."""
    atomic_alias_swap: bool = False
    """Whether that name moves from one index to another in one step, so that no reader finds it missing."""
    namespaces: bool = False
    """Whether an index can be divided into namespaces (tenants, partitions): see :attr:`Connection.namespace`."""
    namespace_pattern: str = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
    """Regular expression of namespace names that it takes."""
    marks: bool = True
    """Whether the ownership mark is kept in the store."""
    normalises: bool = False
    """Whether vectors of cosine indexes are scaled to unit length when they are written."""
    read_after_write: bool = True
    """Whether a read sees the writes that were acknowledged before it. Otherwise it does so after a while."""
    exact_search: bool = False
    """Whether an index with default settings compares with every vector."""
    sparse_vectors: bool = False
    """Whether the store itself also holds sparse vectors. Vectorwright writes dense ones."""
    backups: bool = False
    """Whether the store itself makes backups of an index that its API can start."""
    rotation_strategies: frozenset[str] = frozenset()
    """How keys that reach it can be changed: DualKey, Token, DualIdentity, InPlace, Generate."""
    filter_limits: tuple[str, ...] = ()
    """What its filters cannot say, one sentence each, for people. Such filters are refused."""
    counts_in_listing: bool = False
    """Whether :meth:`Store.list_indexes` tells the vectors of every index."""
    exact_counts: bool = True
    """Whether :meth:`Store.count` is exact."""
    filtered_count: bool = False
    """Whether :meth:`Store.count` takes a filter in one request. Otherwise ids are listed."""
    durable: bool = True
    """Whether an acknowledged write survives a restart of the store."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What a probe finds."""

    version: str
    backend_id: str
    """Identity of the backend: equal for two addresses of one backend where the store has an identity of its own."""
    endpoint: str
    """Where it was reached, without credentials."""
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class OwnershipMark:
    """Says in the store itself who owns an index: it survives a rebuilt cluster, so it holds no UID."""

    installation: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.installation}/{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str | None) -> OwnershipMark | None:
        """The mark that ``str(mark)`` wrote, or None where the text is none."""
        parts = (text or "").split("/")
        return cls(*parts) if len(parts) == 3 and all(parts) else None


@dataclass(frozen=True, slots=True)
class FieldDefinition:
    """A metadata field that searches filter by."""

    name: str
    type: str
    """keyword, integer, float, bool or datetime (an RFC 3339 string on the record)."""


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """An index to make."""

    name: str
    dimension: int
    metric: str
    fields: tuple[FieldDefinition, ...] = ()
    """User fields; the store adds :data:`RESERVED_FIELDS` by itself."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    mark: OwnershipMark | None = None
    model_fingerprint: str | None = None

    def described(self, incarnation: str, *, count: int | None = None) -> IndexDescription:
        """The index as it is when it was just made to this definition."""
        return IndexDescription(
            name=self.name,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=incarnation,
            fields=self.fields,
            settings=dict(self.settings),
            mark=self.mark,
            model_fingerprint=self.model_fingerprint,
            count=count,
        )


@dataclass(frozen=True, slots=True)
class IndexDescription:
    """An index as the store has it. None means that the store does not tell."""

    name: str
    dimension: int | None
    metric: str | None
    incarnation: str
    """Changes when the index is dropped and made again under the same name."""
    fields: tuple[FieldDefinition, ...] | None = None
    """User fields that are indexed or declared, without the reserved ones."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    mark: OwnershipMark | None = None
    model_fingerprint: str | None = None
    count: int | None = None
    """Number of vectors, where the listing tells it."""
    count_exact: bool = True
    unbuilt: bool = False
    """Whether its vector index was put off, and there are enough vectors now to build it: until then searches compare
    with every vector. :meth:`Store.update_index` builds it."""


@dataclass(frozen=True, slots=True)
class IndexStatistics:
    """What an index holds, in all its namespaces."""

    count: int
    """Records."""
    exact: bool = True
    """Whether ``count`` is exact, or the store's estimate."""
    namespaces: Mapping[str, int] | None = None
    """Records by namespace, "" being the default one; None where the store or the index has no namespaces."""
    storage_bytes: int | None = None
    """Bytes that the index takes, where the store tells."""
    details: Mapping[str, Setting] = field(default_factory=dict)
    """What else the store tells of its state, by its own names, such as ``status`` or ``indexed_vectors``."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """*n* records to write. All lists have length *n*; ``vectors`` has shape (n, d)."""

    ids: list[str]
    vectors: Vectors
    metadata: list[Metadata]
    texts: list[str | None]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> RecordBatch:
        """Records ``start`` to ``stop``, without copying vectors."""
        return RecordBatch(
            self.ids[start:stop], self.vectors[start:stop], self.metadata[start:stop], self.texts[start:stop]
        )


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it is read. ``vector`` has shape (d,) where it was asked for."""

    id: str
    metadata: Metadata = field(default_factory=dict)
    text: str | None = None
    vector: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A search result. Higher ``score`` is nearer: cosine similarity, inner product, minus the euclidean distance."""

    record: Record
    score: float


@runtime_checkable
class Store(Protocol):
    """One store, reached with one set of credentials. Close it, or use it as an async context manager.

    Records are read and written in the one namespace that the store was opened with; indexes, their statistics and
    their deletion span all namespaces.
    """

    capabilities: Capabilities

    async def probe(self) -> StoreInfo:
        """Ask who is there. Raises Retryable when it cannot be reached, Terminal when it refuses the credentials."""
        ...

    async def list_indexes(self) -> list[IndexDescription]:
        """Everything the store holds, anybody's, sorted by name: one request, or one a page."""
        ...

    async def describe_index(self, name: str) -> IndexDescription:
        """One index. Raises NotFound."""
        ...

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make an index and wait until it takes writes. Raises Conflict when the name is taken."""
        ...

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Change mutable settings, add metadata fields, build a vector index that is ``unbuilt``. Touch nothing else.

        Raises NotFound, Terminal.
        """
        ...

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or (None) remove the ownership mark and the model's fingerprint. Raises NotFound."""
        ...

    async def delete_index(self, name: str) -> None:
        """Drop an index with all its records. Raises NotFound."""
        ...

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, in all its namespaces. Raises NotFound."""
        ...

    async def delete_namespace(self, name: str, namespace: str) -> None:
        """Delete a namespace with all its records. Raises NotFound, or Terminal where there are no namespaces."""
        ...

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Number of records, of those that match. Raises NotFound."""
        ...

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write records, replacing those of the same id; acknowledged means stored.

        Ids within one batch are distinct. Raises BatchRejected, BatchTooLarge, Retryable, NotFound.
        """
        ...

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The records that exist, by id. Raises NotFound for the index, never for an id."""
        ...

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The ``top_k`` nearest to ``vector`` (shape (d,)), nearest first."""
        ...

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete records; ids that do not exist are fine. Raises NotFound for the index."""
        ...

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all records that match. Raises NotFound for the index."""
        ...

    def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """All records that match, in pages, each once, in no order. ``metadata=False`` gives ids only."""
        ...

    async def aliases(self) -> dict[str, str]:
        """Alias → index. Empty where the store has none."""
        ...

    async def set_alias(self, alias: str, index: str) -> None:
        """Point an alias at an index, atomically. Raises Terminal where the store has no aliases."""
        ...

    async def delete_alias(self, alias: str) -> None:
        """Remove an alias. Raises NotFound, or Terminal where the store has no aliases."""
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
