"""Qdrant: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel


class QdrantProvider(ApiModel):
    """A Qdrant server (1.13 or newer) or Qdrant Cloud. Its API key or JWT is the `token` of the credentials."""

    url: str = HttpUrl
    """Address of the REST API, such as `http://qdrant.search.svc:6333`."""
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the gRPC API on the same host. 6334 when left out."""


class QdrantHnsw(ApiModel):
    """HNSW settings of a collection."""

    m: int | None = Field(default=None, ge=0, le=1024)
    """Edges a node. 0 builds no graph."""
    ef_construct: int | None = Field(default=None, ge=4, le=10000)
    """Candidates while building."""


class QdrantTuning(ApiModel):
    """Settings of a Qdrant collection."""

    hnsw: QdrantHnsw | None = None
    """HNSW settings."""
