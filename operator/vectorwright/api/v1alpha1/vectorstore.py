"""VectorStore: how to reach one store."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from .common import ApiModel, Credentials, Duration, Resource, ResourceStatus, Tls, exactly_one, rules
from .providers.chroma import ChromaProvider
from .providers.faiss import FaissProvider
from .providers.lance import LanceProvider
from .providers.memory import MemoryProvider
from .providers.milvus import MilvusProvider
from .providers.pgvector import PgvectorProvider
from .providers.pinecone import PineconeProvider
from .providers.qdrant import QdrantProvider
from .providers.weaviate import WeaviateProvider

PROVIDERS = ("pinecone", "qdrant", "weaviate", "milvus", "chroma", "pgvector", "lance", "faiss", "memory")
"""The provider keys of a VectorStore. Exactly one is set."""


class StoreLimits(ApiModel):
    """What this store may be asked for. Two VectorStores of one backend share the lower of each."""

    requests_per_second: float | None = Field(default=None, gt=0, le=100000)
    """Requests a second, all workers of all jobs together. No limit when left out."""
    bytes_per_second: int | None = Field(default=None, ge=1024)
    """Bytes of writes a second, all workers of all jobs together. No limit when left out."""
    max_concurrency: int | None = Field(default=None, ge=1, le=256)
    """Requests in flight from the operator. 8 when left out."""
    timeout: Duration | None = None
    """Time that one request may take. `30s` when left out."""


class VectorStoreSpec(ApiModel):
    """How to reach one store: exactly one provider key, Secrets, TLS, limits."""

    model_config = rules(exactly_one(*PROVIDERS, where="spec"))

    pinecone: PineconeProvider | None = None
    """A Pinecone project."""
    qdrant: QdrantProvider | None = None
    """A Qdrant server."""
    weaviate: WeaviateProvider | None = None
    """A Weaviate server."""
    milvus: MilvusProvider | None = None
    """A Milvus server."""
    chroma: ChromaProvider | None = None
    """A Chroma server."""
    pgvector: PgvectorProvider | None = None
    """PostgreSQL with pgvector."""
    lance: LanceProvider | None = None
    """Lance tables on a volume."""
    faiss: FaissProvider | None = None
    """FAISS indexes on a volume."""
    memory: MemoryProvider | None = None
    """A store in memory, for tests and trials."""
    control_credentials: Credentials | None = None
    """Credentials with which the operator creates, changes and lists indexes. They stay with the operator."""
    data_credentials: Credentials | None = None
    """Credentials that workers write and read records with. The control credentials are used when left out."""
    tls: Tls | None = None
    """How the server is verified."""
    limits: StoreLimits | None = None
    """What this store may be asked for."""
    probe_interval: Duration | None = None
    """How often the store is listed to see drift, with 10 % of jitter. `60s` when left out, at least `1s`."""
    count_interval: Duration | None = None
    """How often vectors are counted where the listing does not carry counts (Chroma: one request an index).
    When left out, such counts are refreshed by reconciliation and by ingestion only."""

    @property
    def provider(self) -> str:
        """The one provider key that is set. Raises ``ValueError`` when none or several are."""
        found = [name for name in PROVIDERS if getattr(self, name) is not None]
        if len(found) != 1:
            raise ValueError(
                f"spec: exactly one of {', '.join(PROVIDERS)} must be set, found {', '.join(found) or 'none'}"
            )
        return found[0]


class StoreCapabilities(ApiModel):
    """What the store can do, as far as specs depend on it."""

    metrics: list[str] | None = Field(default=None, max_length=20)
    """Distance metrics."""
    max_dimension: int | None = None
    """Largest dimension of a vector."""
    field_types: list[str] | None = Field(default=None, max_length=20)
    """Types of metadata fields that searches can filter by."""
    list_metadata: bool | None = None
    """Whether metadata values may be lists of strings."""
    max_metadata_bytes: int | None = None
    """Largest metadata of a record, as JSON, in bytes."""
    max_batch_records: int | None = None
    """Largest number of records in one write."""
    max_batch_bytes: int | None = None
    """Largest size of one write in bytes."""
    aliases: bool | None = None
    """Whether an index can be reached by a second name."""
    namespaces: bool | None = None
    """Whether an index can be divided into namespaces (tenants, partitions)."""
    exact_search: bool | None = None
    """Whether an index with default settings compares with every vector."""
    read_after_write: bool | None = None
    """Whether a read sees every write that was acknowledged before it."""
    counts_in_listing: bool | None = None
    """Whether one listing tells the vectors of every index."""


class VectorStoreStatus(ResourceStatus):
    """What is known of the store."""

    provider: str | None = None
    """The provider key that is set."""
    endpoint: str | None = None
    """Where the store is reached, without credentials."""
    version: str | None = None
    """Version of the server."""
    backend_id: str | None = None
    """Identity of what answers at the endpoint. Two VectorStores with one backend share limits and claims."""
    capabilities: StoreCapabilities | None = None
    """What the store can do."""
    indexes: int | None = None
    """Number of indexes that the store holds, anybody's."""
    throttled: bool | None = None
    """Whether the store asked to be left alone (429, 503) since the last probe."""
    credentials_version: str | None = None
    """Changes when a changed Secret was taken up. It tells nothing of the values."""


class VectorStore(Resource):
    """A VectorStore object."""

    kind: ClassVar[str] = "VectorStore"
    plural: ClassVar[str] = "vectorstores"

    spec: VectorStoreSpec
    status: VectorStoreStatus = Field(default_factory=VectorStoreStatus)
