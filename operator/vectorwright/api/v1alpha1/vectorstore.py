"""VectorStore: how to reach one store."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .common import ApiModel, Credentials, Duration, Resource, ResourceStatus, Tls, exactly_one, rules

HttpUrl = Field(min_length=1, max_length=2048, pattern=r"^https?://[^\s@]+$")
"""An http or https address without user information: credentials belong in a Secret."""

PROVIDERS = ("chroma", "pgvector", "lance", "memory")
"""The provider keys of a VectorStore. Exactly one is set."""


class ChromaProvider(ApiModel):
    """A Chroma server (1.0 or newer)."""

    url: str = HttpUrl
    """Address of the server, such as `http://chroma.search.svc:8000`."""
    tenant: str | None = Field(default=None, min_length=1, max_length=128)
    """Tenant. `default_tenant` when left out."""
    database: str | None = Field(default=None, min_length=1, max_length=128)
    """Database. `default_database` when left out."""
    auth_header: Literal["Authorization", "X-Chroma-Token"] | None = None
    """Header that carries the token: `Authorization` (as a bearer token, the default) or `X-Chroma-Token`."""


class PgvectorProvider(ApiModel):
    """PostgreSQL with the pgvector extension (0.7 or newer)."""

    host: str = Field(min_length=1, max_length=253, pattern=r"^[^\s/@]+$")
    """Host name or address."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port. 5432 when left out."""
    database: str = Field(min_length=1, max_length=63)
    """Database. It must exist."""
    schema_name: str | None = Field(default=None, alias="schema", min_length=1, max_length=63)
    """Schema that holds the tables. `public` when left out. It must exist."""
    ssl_mode: Literal["disable", "require", "verify-ca", "verify-full"] | None = None
    """TLS of the connection. `verify-full` when left out."""


class LanceProvider(ApiModel):
    """Lance tables on a volume, behind `vectorwright store-server`, their single writer."""

    model_config = rules(exactly_one("server", "path", where="spec.lance"))

    server: str | None = Field(default=None, min_length=1, max_length=2048, pattern=r"^https?://[^\s@]+$")
    """Address of the store server that owns the volume."""
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
    )
    """For trials: a folder below the operator's `--local-stores` directory; the operator runs its store server."""


class MemoryProvider(ApiModel):
    """Exact search in the memory of a `vectorwright store-server`: for tests and trials; gone when it stops."""

    model_config = rules(
        exactly_one("server", "local", where="spec.memory"),
        ("!has(self.local) || self.local", "spec.memory.local: true, or left out"),
    )

    server: str | None = Field(default=None, min_length=1, max_length=2048, pattern=r"^https?://[^\s@]+$")
    """Address of the store server."""
    local: bool | None = None
    """For trials: true runs it beside the operator. Needs the operator's `--local-stores`."""


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

    chroma: ChromaProvider | None = None
    """A Chroma server."""
    pgvector: PgvectorProvider | None = None
    """PostgreSQL with pgvector."""
    lance: LanceProvider | None = None
    """Lance tables on a volume."""
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
    max_batch_records: int | None = None
    """Largest number of records in one write."""
    max_batch_bytes: int | None = None
    """Largest size of one write in bytes."""
    aliases: bool | None = None
    """Whether an index can be reached by a second name."""
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
