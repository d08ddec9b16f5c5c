"""What the operator hands to a worker: the whole of a run, resolved, without a credential in it.

The operator writes it as JSON (``run.json``); credentials and certificates come beside it as files, mounted from
Secrets in a pod or written with mode 0600 for a child process::

    <directory>/run.json
    <directory>/credentials/<use>/<file>          use: store, source_store, embedder, source
                                                  file: token, username, password
    <directory>/tls/<use>/ca.crt
    <directory>/configmap/<key>                   for a ConfigMap source
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from vectorwright.api.v1alpha1.common import ApiModel
from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.api.v1alpha1.ingestion_source import Source
from vectorwright.api.v1alpha1.ingestionjob import Batch, Budget, Chunk, Counts, DeadLetter, Parse, Phase, Sync


class StorePlace(ApiModel):
    """An index in its store, and one namespace of it."""

    provider: str
    settings: dict[str, Any]
    """The provider's block with local paths resolved, as :class:`vectorwright.stores.registry.Connection` wants it."""
    server_name: str | None = None
    insecure_skip_verify: bool = False
    timeout: float = 30.0
    requests_per_second: float | None = None
    bytes_per_second: int | None = None
    index: str
    """The physical index."""
    namespace: str = ""
    """Namespace (tenant, partition) of the index; "" is the default one."""
    incarnation: str
    """The index must still be this one."""
    dimension: int
    metric: str
    backend_id: str = ""
    """Identity of the store behind it: two places with one identity share its limits."""


class StoreTarget(StorePlace):
    """Where a run writes."""

    fields: dict[str, str] = Field(default_factory=dict)
    """Declared metadata fields and their types."""
    sole_writer: bool = False
    """Whether this run's source is the only one that writes to the index (and the namespace of it)."""
    made_for_us: bool = False
    """Whether the index was made by its resource, and so held nothing before."""
    other_sources: list[str] = Field(default_factory=list)
    """``vw_source`` of the other jobs that write there."""


class StoreOrigin(StorePlace):
    """Where a copy reads."""


class EmbedderTarget(ApiModel):
    """The embedding model, where vectors do not come with the records."""

    spec: EmbeddingModelSpec
    fingerprint: str


class NetworkPolicy(ApiModel):
    """Which addresses sources may reach."""

    allow_networks: list[str] = Field(default_factory=list)
    """CIDRs of private, loopback and link-local addresses that the installer allows."""


class RunSpec(ApiModel):
    """One run."""

    run_id: str
    """Name of the run, in logs and in status."""
    job: str
    """``<namespace>/<name>`` of the IngestionJob, for logs."""
    source_name: str
    """Value of ``vw_source``."""
    source: Source
    parse: Parse = Field(default_factory=Parse)
    chunk: Chunk = Field(default_factory=Chunk)
    batch: Batch = Field(default_factory=Batch)
    sync: Sync = Field(default_factory=Sync)
    budget: Budget = Field(default_factory=Budget)
    max_dead_letters: int | None = None
    store: StoreTarget
    source_store: StoreOrigin | None = None
    """Where the records come from, for a copy of another index; then there are neither documents nor embeddings."""
    embedder: EmbedderTarget | None = None
    precomputed_field: str | None = None
    network: NetworkPolicy = Field(default_factory=NetworkPolicy)
    deadline_seconds: float = 6 * 3600


class RunState(ApiModel):
    """What a worker tells: while it runs at ``GET /progress``, at its end as the termination message (≤ 4096 bytes)."""

    run_id: str
    phase: Phase
    counts: Counts = Field(default_factory=Counts)
    revision: str | None = None
    verification: str | None = None
    """Exact, Namespace or Sampled."""
    reason: str | None = None
    """Reason where it failed or could not be verified."""
    message: str | None = None
    retryable: bool = False
    """Whether a failed run may be started again by itself."""
    rate: float = 0.0
    """Vectors written a second, over the last seconds."""
    dead_letters: list[DeadLetter] = Field(default_factory=list, max_length=20)


EXIT_SUCCESS = 0
EXIT_TERMINAL = 3
"""Exit code of a worker whose run can only succeed after somebody changed something."""
EXIT_RETRYABLE = 4
"""Exit code of a worker whose run may succeed when it is started again."""
