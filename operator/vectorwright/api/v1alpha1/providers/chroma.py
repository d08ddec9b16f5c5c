"""Chroma: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel


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


class ChromaHnsw(ApiModel):
    """HNSW settings of a Chroma collection."""

    ef_construction: int | None = Field(default=None, ge=1, le=10000)
    """Candidates while building. Fixed at creation."""
    max_neighbors: int | None = Field(default=None, ge=2, le=1024)
    """Edges a node. Fixed at creation."""
    ef_search: int | None = Field(default=None, ge=1, le=10000)
    """Candidates while searching. Changed in place (Safe)."""
    num_threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of the index. Changed in place (Safe)."""


class ChromaTuning(ApiModel):
    """Settings of a Chroma collection."""

    hnsw: ChromaHnsw | None = None
    """HNSW settings."""
