"""Weaviate: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel, rules


class WeaviateProvider(ApiModel):
    """A Weaviate server (1.33 or newer) or a Weaviate Cloud cluster. Its API key is the `token` of the credentials."""

    url: str = HttpUrl
    """Address of the REST API, such as `http://weaviate.search.svc:8080`. With `https` the gRPC API is spoken to over
    TLS, too."""
    grpc_host: str | None = Field(default=None, min_length=1, max_length=253, pattern=r"^[^\s/@]+$")
    """Host of the gRPC API. That of `url` when left out; Weaviate Cloud has another one."""
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the gRPC API. 50051 when left out; 443 for Weaviate Cloud."""
    consistency_level: Literal["ONE", "QUORUM", "ALL"] | None = None
    """How many replicas take part in reads and writes of records. The server's own default when left out."""


class WeaviateHnsw(ApiModel):
    """The graph of an index of type `hnsw`, and of one of type `dynamic` once it has one."""

    ef: int | None = Field(default=None, ge=-1, le=4096)
    """Candidates while searching; -1 leaves it to the server. Changed in place (Safe)."""
    ef_construction: int | None = Field(default=None, ge=4, le=4096)
    """Candidates while building. Fixed at creation."""
    max_connections: int | None = Field(default=None, ge=4, le=2047)
    """Edges a node. Fixed at creation."""
    dynamic_ef_min: int | None = Field(default=None, ge=1, le=4096)
    """Fewest candidates where `ef` is -1. Changed in place (Safe)."""
    dynamic_ef_max: int | None = Field(default=None, ge=1, le=4096)
    """Most candidates where `ef` is -1. Changed in place (Safe)."""
    dynamic_ef_factor: int | None = Field(default=None, ge=1, le=1000)
    """Candidates for each match that is asked for, where `ef` is -1. Changed in place (Safe)."""
    flat_search_cutoff: int | None = Field(default=None, ge=0, le=1000000000)
    """Filters that match fewer records are answered by comparing with all of those. Changed in place (Safe)."""
    filter_strategy: Literal["sweeping", "acorn"] | None = None
    """How the graph is searched with a filter. Changed in place (Safe)."""


class WeaviateDynamic(ApiModel):
    """Settings of an index of type `dynamic`."""

    threshold: int = Field(ge=1, le=1000000000)
    """Records from which on it has a graph. Fixed at creation."""


class WeaviateQuantizer(ApiModel):
    """Compression of the vectors that are searched; the vectors themselves are kept."""

    type: Literal["pq", "bq", "sq", "rq", "none"]
    """Kind of compression. What is there is compressed while the collection serves (Costly), for good."""
    rescore_limit: int | None = Field(default=None, ge=-1, le=100000)
    """Candidates that are ranked again by the whole vectors. Changed in place (Safe)."""
    training_limit: int | None = Field(default=None, ge=1, le=10000000)
    """Records that `pq` and `sq` are trained on. Fixed at creation."""
    segments: int | None = Field(default=None, ge=0, le=65535)
    """Parts of a vector, for `pq`; 0 leaves it to the server. Fixed at creation."""
    bits: Literal[1, 8] | None = None
    """Bits a dimension, for `rq`. Fixed at creation."""


class WeaviateTuning(ApiModel):
    """Settings of a Weaviate collection."""

    model_config = rules(
        (
            "!(has(self.shards) && has(self.multiTenancy) && self.multiTenancy)",
            "spec.tuning.weaviate: set shards or multiTenancy, not both: every tenant is one shard",
        ),
        (
            "!has(self.dynamic) || (has(self.indexType) && self.indexType == 'dynamic')",
            "spec.tuning.weaviate.dynamic: only with indexType dynamic",
        ),
        (
            "!has(self.hnsw) || !has(self.indexType) || self.indexType != 'flat'",
            "spec.tuning.weaviate.hnsw: an index of type flat has no graph",
        ),
    )

    index_type: Literal["hnsw", "flat", "dynamic"] | None = None
    """Vector index: a graph, comparison with all vectors, or the one until the other pays (the server then needs
    asynchronous indexing). `hnsw` when left out. Fixed at creation."""
    hnsw: WeaviateHnsw | None = None
    """The graph."""
    dynamic: WeaviateDynamic | None = None
    """For `indexType: dynamic`."""
    quantizer: WeaviateQuantizer | None = None
    """Compression. The server's own default when left out."""
    multi_tenancy: bool | None = None
    """Whether the collection is divided into tenants: a namespace is one. Fixed at creation."""
    replication_factor: int | None = Field(default=None, ge=1, le=64)
    """Copies of every shard. Fixed at creation."""
    shards: int | None = Field(default=None, ge=1, le=1024)
    """Shards that records are spread over. Fixed at creation."""
