"""pgvector: how a database is reached, and the settings of a table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..common import ApiModel, rules


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


class PgvectorHnsw(ApiModel):
    """HNSW settings of a pgvector index."""

    m: int | None = Field(default=None, ge=2, le=100)
    """Edges a node. A change rebuilds the index (Costly)."""
    ef_construction: int | None = Field(default=None, ge=4, le=1000)
    """Candidates while building. A change rebuilds the index (Costly)."""


class PgvectorIvfFlat(ApiModel):
    """IVFFlat settings of a pgvector index."""

    lists: int = Field(ge=1, le=32768)
    """Number of lists. A change rebuilds the index (Costly)."""


class PgvectorTuning(ApiModel):
    """Settings of a table in PostgreSQL. HNSW with the server's own values when neither is set."""

    model_config = rules(
        ("!(has(self.hnsw) && has(self.ivfflat))", "spec.tuning.pgvector: set hnsw or ivfflat, not both")
    )

    hnsw: PgvectorHnsw | None = None
    """HNSW settings."""
    ivfflat: PgvectorIvfFlat | None = None
    """IVFFlat settings."""
