"""Milvus: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel


class MilvusProvider(ApiModel):
    """A Milvus server (2.4 or newer) or Zilliz Cloud. `username` and `password`, or `token`, are the credentials."""

    url: str = HttpUrl
    """Address, such as `http://milvus.search.svc:19530`, without a path. With `https` the port is 443 when left out."""
    database: str | None = Field(default=None, min_length=1, max_length=255)
    """Database; it must exist. `default` when left out."""


class MilvusAutoindex(ApiModel):
    """Settings of an index of type `AUTOINDEX`."""

    level: int | None = Field(default=None, ge=1, le=10)
    """Effort of a search on Zilliz Cloud: higher finds more of the nearest, in more time. Changed in place (Safe)."""


class MilvusHnsw(ApiModel):
    """Settings of an index of type `HNSW`."""

    m: int | None = Field(default=None, ge=2, le=2048)
    """Edges a node. Changed by a rebuild while nobody can search (Disruptive)."""
    ef_construction: int | None = Field(default=None, ge=1, le=2147483647)
    """Candidates while building. Changed by a rebuild while nobody can search (Disruptive)."""
    ef: int | None = Field(default=None, ge=1, le=2147483647)
    """Candidates while searching, never fewer than are asked for. Changed in place (Safe)."""


class MilvusIvf(ApiModel):
    """Settings of an index of type `IVF_FLAT`, `IVF_SQ8` or `IVF_PQ`."""

    nlist: int | None = Field(default=None, ge=1, le=65536)
    """Clusters. Changed by a rebuild while nobody can search (Disruptive)."""
    m: int | None = Field(default=None, ge=1, le=65536)
    """Parts of a vector, of which the dimension is a multiple, for `IVF_PQ`. Changed by a rebuild (Disruptive)."""
    nbits: int | None = Field(default=None, ge=1, le=64)
    """Bits a part, for `IVF_PQ`. Changed by a rebuild while nobody can search (Disruptive)."""
    nprobe: int | None = Field(default=None, ge=1, le=65536)
    """Clusters that a search looks at. Changed in place (Safe)."""


class MilvusScann(ApiModel):
    """Settings of an index of type `SCANN`."""

    nlist: int | None = Field(default=None, ge=1, le=65536)
    """Clusters. Changed by a rebuild while nobody can search (Disruptive)."""
    with_raw_data: bool | None = None
    """Whether the vectors themselves are kept in the index. Changed by a rebuild (Disruptive)."""
    nprobe: int | None = Field(default=None, ge=1, le=65536)
    """Clusters that a search looks at. Changed in place (Safe)."""
    reorder_k: int | None = Field(default=None, ge=1, le=2147483647)
    """Candidates that are compared exactly, never fewer than are asked for. Changed in place (Safe)."""


class MilvusDiskann(ApiModel):
    """Settings of an index of type `DISKANN`."""

    search_list: int | None = Field(default=None, ge=1, le=65535)
    """Candidates while searching, never fewer than are asked for. Changed in place (Safe)."""


class MilvusTuning(ApiModel):
    """Settings of a Milvus collection. At most one of the blocks below, the one of the index's type."""

    index_type: Literal["AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN", "DISKANN"] | None = None
    """Vector index. When left out, the one that the block below is for (`IVF_FLAT` for `ivf`), else `AUTOINDEX`.
    Changed by a rebuild while nobody can search (Disruptive)."""
    autoindex: MilvusAutoindex | None = None
    """For `AUTOINDEX`."""
    hnsw: MilvusHnsw | None = None
    """For `HNSW`."""
    ivf: MilvusIvf | None = None
    """For `IVF_FLAT`, `IVF_SQ8` and `IVF_PQ`."""
    scann: MilvusScann | None = None
    """For `SCANN`."""
    diskann: MilvusDiskann | None = None
    """For `DISKANN`."""
    consistency_level: Literal["Strong", "Session", "Bounded", "Eventually"] | None = None
    """What readers get that ask for no level of their own; `Bounded` when left out. Vectorwright's own reads are
    `Strong`. Fixed at creation."""
    shards: int | None = Field(default=None, ge=1, le=64)
    """Shards that writes are spread over. Fixed at creation."""
    replicas: int | None = Field(default=None, ge=1, le=1024)
    """Copies in memory. Changed by loading the collection again (Disruptive)."""
    mmap: bool | None = None
    """Whether data is mapped from disk instead of being held in memory. Changed by loading the collection again
    (Disruptive)."""
