"""Qdrant: how a server is reached, and the settings of a collection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..addresses import HttpUrl
from ..common import ApiModel, rules


class QdrantProvider(ApiModel):
    """A Qdrant server (1.13 or newer) or Qdrant Cloud. Its API key or JWT is the `token` of the credentials."""

    url: str = HttpUrl
    """Address of the server, such as `http://qdrant.search.svc:6333`. All is said to the gRPC API of that host, with
    `https` over TLS."""
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the gRPC API on the same host. 6334 when left out."""


class QdrantHnsw(ApiModel):
    """HNSW settings of a collection. A change rebuilds the graph (Costly), but for `maxIndexingThreads` (Safe)."""

    m: int | None = Field(default=None, ge=0, le=1024)
    """Edges a node. 0 builds no graph."""
    ef_construct: int | None = Field(default=None, ge=4, le=10000)
    """Candidates while building."""
    full_scan_threshold: int | None = Field(default=None, ge=10, le=1000000000)
    """Kilobytes of vectors below which a search compares with all of them."""
    max_indexing_threads: int | None = Field(default=None, ge=0, le=1024)
    """Threads that build a graph. 0 leaves it to the server."""
    on_disk: bool | None = None
    """Keep the graph on disk."""
    payload_m: int | None = Field(default=None, ge=0, le=1024)
    """Edges a node of the graphs for payload indexes."""


class QdrantQuantization(ApiModel):
    """Compression of the vectors that are searched; the vectors themselves are kept. A change rebuilds (Costly)."""

    model_config = rules(
        (
            "!has(self.quantile) || self.type == 'scalar'",
            "quantization: quantile belongs to type scalar",
        ),
        (
            "!has(self.compression) || self.type == 'product'",
            "quantization: compression belongs to type product",
        ),
        (
            "!has(self.alwaysRam) || self.type != 'none'",
            "quantization: alwaysRam has no meaning for type none",
        ),
    )

    type: Literal["scalar", "product", "binary", "none"]
    """Kind of compression: eight bits a number, codes of a few numbers together, or one bit a number."""
    quantile: float | None = Field(default=None, ge=0.5, le=1)
    """Share of the values that scalar quantization spans; the others are cut off."""
    compression: Literal["x4", "x8", "x16", "x32", "x64"] | None = None
    """How much product quantization compresses. `x16` when left out."""
    always_ram: bool | None = None
    """Keep compressed vectors in memory, also where the vectors are on disk."""


class QdrantOptimizers(ApiModel):
    """When segments are rewritten. A change may rewrite some (Costly), unless it says otherwise."""

    deleted_threshold: float | None = Field(default=None, ge=0, le=1)
    """Share of deleted points from which on a segment is cleaned. Changed in place (Safe)."""
    vacuum_min_vector_number: int | None = Field(default=None, ge=100, le=1000000000)
    """Fewest vectors of a segment that is cleaned. Changed in place (Safe)."""
    default_segment_number: int | None = Field(default=None, ge=0, le=10000)
    """Segments to aim at. 0 leaves it to the server."""
    max_segment_size: int | None = Field(default=None, ge=1, le=1000000000000)
    """Kilobytes of vectors that no segment exceeds."""
    memmap_threshold: int | None = Field(default=None, ge=0, le=1000000000000)
    """Kilobytes of vectors from which on a segment is mapped from disk. 0 maps none."""
    indexing_threshold: int | None = Field(default=None, ge=0, le=1000000000000)
    """Kilobytes of vectors from which on a segment gets a graph. 0 builds none."""
    flush_interval_sec: int | None = Field(default=None, ge=1, le=86400)
    """Seconds between flushes of segments; writes are in the log before. Changed in place (Safe)."""


class QdrantTuning(ApiModel):
    """Settings of a Qdrant collection."""

    shard_number: int | None = Field(default=None, ge=1, le=10000)
    """Shards. Fixed at creation."""
    replication_factor: int | None = Field(default=None, ge=1, le=100)
    """Replicas of a shard. A cluster makes or drops some (Costly)."""
    write_consistency_factor: int | None = Field(default=None, ge=1, le=100)
    """Replicas that a write waits for. Changed in place (Safe)."""
    on_disk: bool | None = None
    """Keep vectors on disk. A change rewrites segments (Costly)."""
    on_disk_payload: bool | None = None
    """Keep metadata on disk. A change rewrites segments (Costly)."""
    hnsw: QdrantHnsw | None = None
    """HNSW settings."""
    quantization: QdrantQuantization | None = None
    """Compression of the vectors that are searched."""
    optimizers: QdrantOptimizers | None = None
    """When segments are rewritten."""
