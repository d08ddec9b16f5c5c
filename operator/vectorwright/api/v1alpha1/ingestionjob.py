"""IngestionJob: source → documents → chunks → embeddings → batched upserts."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field

from .common import (
    ApiModel,
    Calendar,
    Duration,
    Resource,
    ResourceName,
    ResourceStatus,
    Timestamp,
    VectorIndexReference,
    rules,
    unchangeable,
    unchangeable_reference,
)
from .ingestion_source import IndexNamespace, Source


class ParserType(StrEnum):
    """How bytes become text."""

    AUTO = "auto"
    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    CODE = "code"
    JSON_LINES = "jsonLines"
    CSV = "csv"
    PARQUET = "parquet"


class Parse(ApiModel):
    """How bytes become documents."""

    type: ParserType | None = None
    """Parser. `auto` (the default) picks by extension and content type."""
    id_field: str | None = Field(default=None, min_length=1, max_length=128)
    """For JSON lines, CSV and parquet: field that holds the id of a record. It is kept as the id in the index."""
    text_fields: list[str] | None = Field(default=None, max_length=32)
    """For JSON lines, CSV and parquet: fields that make up the text. `text` when left out."""
    metadata_fields: list[str] | None = Field(default=None, max_length=64)
    """For JSON lines, CSV and parquet: fields to keep as metadata. None when left out; of a parquet file that
    `vectorwright export` wrote, all."""
    max_document_bytes: int | None = Field(default=None, ge=1, le=1073741824)
    """A larger document goes to the dead letters. 8 MiB (8388608) when left out."""
    timeout: Duration | None = None
    """Time that parsing and chunking one document may take. `60s` when left out."""


class Chunk(ApiModel):
    """How documents become chunks."""

    model_config = rules(
        (
            (
                "!has(self.overlap) || self.overlap < (has(self.size) ? self.size : "
                "(has(self.unit) && self.unit == 'tokens' ? 400 : 1500))"
            ),
            "spec.chunk: overlap must be less than size",
        )
    )

    strategy: Literal["auto", "markdown", "code", "text", "none"] | None = None
    """`auto` (the default) follows the kind of document; `none` keeps a document whole."""
    size: int | None = Field(default=None, ge=16, le=100000)
    """Largest chunk. 1500 characters or 400 tokens when left out."""
    overlap: int | None = Field(default=None, ge=0, le=50000)
    """What a chunk repeats of the one before it. 0 when left out; less than the size."""
    unit: Literal["characters", "tokens"] | None = None
    """What size and overlap count. `characters` when left out."""


class Precomputed(ApiModel):
    """Vectors that come with the records (JSON lines, CSV, parquet)."""

    field: str = Field(min_length=1, max_length=128)
    """Field that holds the vector: a list of numbers."""


class Embedding(ApiModel):
    """Where vectors come from. The index's embedding model when this block is left out."""

    precomputed: Precomputed | None = None
    """Vectors that come with the records."""


class Batch(ApiModel):
    """How records are written."""

    max_records: int | None = Field(default=None, ge=1, le=10000)
    """Records in one write. 100 when left out, 500 for copies of an index; never more than the store takes."""
    max_bytes: int | None = Field(default=None, ge=1024, le=67108864)
    """Bytes in one write. What the store takes when left out, 4 MiB where it sets no limit; for copies of an index
    8 MiB at most."""
    workers: int | None = Field(default=None, ge=1, le=64)
    """Writes in flight. 4 when left out."""
    attempts: int | None = Field(default=None, ge=1, le=20)
    """Attempts a write, with exponential backoff and jitter. 3 when left out."""


class SyncMode(StrEnum):
    """What a run does about documents that are gone from the source."""

    UPSERT = "Upsert"
    SYNC = "Sync"


class Sync(ApiModel):
    """What a run does about documents that are gone from the source."""

    mode: SyncMode | None = None
    """`Upsert` (the default) leaves them; `Sync` deletes those that this source brought."""
    max_delete_percent: int | None = Field(default=None, ge=0, le=100)
    """A run that would delete a larger share of this source's documents stops before deleting. 20 when left out."""


class Budget(ApiModel):
    """What a run may use. It stops before it goes over."""

    max_documents: int | None = Field(default=None, ge=1)
    """Documents in the source."""
    max_vectors: int | None = Field(default=None, ge=1)
    """Vectors written by one run."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens embedded by one run."""


class State(ApiModel):
    """Where the run keeps what it has done."""

    index: dict[str, str] | None = Field(default=None, max_length=0)
    """In the index itself: up to a million chunks, nothing else to run. The default."""


class Resources(ApiModel):
    """Compute resources of a worker."""

    requests: dict[str, str] | None = Field(default=None, max_length=8)
    """Such as `cpu: 250m`, `memory: 512Mi`."""
    limits: dict[str, str] | None = Field(default=None, max_length=8)
    """Such as `memory: 2Gi`."""


class RunnerType(StrEnum):
    """Where the worker runs."""

    JOB = "Job"
    IN_PROCESS = "InProcess"


class Runner(ApiModel):
    """Where and how the worker runs."""

    type: RunnerType | None = None
    """`Job` (the default) runs a Kubernetes Job; `InProcess` a child of the operator, where `--allow-in-process`."""
    resources: Resources | None = None
    """Compute resources of the pod. Of what is left out: requests of 250m and 512Mi, a limit of 2Gi of memory, as far
    as they do not contradict what is written."""
    service_account_name: ResourceName | None = None
    """ServiceAccount of the pod. Its token is never mounted. The namespace's `default` when left out."""
    node_selector: dict[str, str] | None = Field(default=None, max_length=32)
    """Labels of nodes to run on."""
    deadline: Duration | None = None
    """Time that a run may take. `6h` when left out."""


class Schedule(Calendar):
    """When runs start by themselves."""

    starting_deadline: Duration | None = None
    """How late a missed slot may still start; of several only the last does. `1h` when left out."""


class IngestionJobSpec(ApiModel):
    """One source into one index."""

    model_config = rules(
        unchangeable_reference("indexRef", "VectorIndex", advice="make a new IngestionJob"),
        unchangeable("sourceName", advice="its documents would be left behind; make a new IngestionJob"),
        unchangeable("indexNamespace", advice="its records would be left behind; make a new IngestionJob"),
        (
            "!has(self.source.vectorIndex) || !(has(self.parse) || has(self.chunk) || has(self.embedding))",
            (
                "spec: records of another index are copied as they are; leave out parse, chunk and embedding, or "
                "choose another source"
            ),
        ),
        (
            (
                "!has(self.source.vectorIndex) || self.source.vectorIndex.name != self.indexRef.name || "
                "(has(self.source.vectorIndex.indexNamespace) ? self.source.vectorIndex.indexNamespace : '') != "
                "(has(self.indexNamespace) ? self.indexNamespace : '')"
            ),
            "spec.source.vectorIndex: an index cannot be copied onto itself",
        ),
    )

    index_ref: VectorIndexReference
    """The index to fill."""
    index_namespace: IndexNamespace | None = None
    """Namespace (tenant, partition) of the index that records are written to, in stores that have them. The default
    one when left out. Immutable."""
    source: Source
    """Where the documents come from: exactly one key."""
    source_name: str | None = Field(
        default=None, min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$"
    )
    """Stable name of the source, kept on each record as `vw_source`. `<namespace>/<name>` when left out. Immutable.
    Two jobs with one source name would delete each other's documents, and are refused."""
    parse: Parse | None = None
    """How bytes become documents."""
    chunk: Chunk | None = None
    """How documents become chunks."""
    embedding: Embedding | None = None
    """Where vectors come from. The index's embedding model when left out."""
    batch: Batch | None = None
    """How records are written."""
    sync: Sync | None = None
    """What a run does about documents that are gone from the source."""
    budget: Budget | None = None
    """What a run may use."""
    max_dead_letters: int | None = Field(default=None, ge=0)
    """More documents or records than this in the dead letters fail the run. No limit when left out."""
    state: State | None = None
    """Where the run keeps what it has done."""
    runner: Runner | None = None
    """Where and how the worker runs."""
    schedule: Schedule | None = None
    """When runs start by themselves, besides a change of the spec and the annotation
    `vectorwright.dev/run-requested-at`. A run is never started while one is going on."""
    suspend: bool | None = None
    """Start no run; stop the one that is running."""


class Phase(StrEnum):
    """Where the last run stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    SUCCEEDED_WITH_ERRORS = "SucceededWithErrors"
    UNVERIFIED = "Unverified"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class Counts(ApiModel):
    """What a run did. Documents are what the source lists (records, for JSON lines and CSV); vectors are chunks."""

    documents_listed: int = 0
    """Documents in the source."""
    documents_unchanged: int = 0
    """Documents skipped, because the index has this version whole."""
    documents_new: int = 0
    """Documents written for the first time."""
    documents_replaced: int = 0
    """Documents whose new version was written and old one deleted."""
    documents_deleted: int = 0
    """Documents deleted, because they are gone from the source."""
    documents_failed: int = 0
    """Documents in the dead letters."""
    documents_empty: int = 0
    """Documents without text."""
    chunks: int = 0
    """Chunks made."""
    tokens: int = 0
    """Tokens embedded: as the endpoint counts them, or as the local tokenizer does."""
    vectors_embedded: int = 0
    """Vectors computed."""
    vectors_written: int = 0
    """Vectors acknowledged by the store."""
    vectors_deleted: int = 0
    """Vectors deleted: old versions and vanished documents."""
    vectors_failed: int = 0
    """Vectors in the dead letters."""
    bytes_read: int = 0
    """Bytes read from the source."""
    batches: int = 0
    """Writes acknowledged by the store."""
    retries: int = 0
    """Attempts that were repeated: writes, embeddings and fetches."""


class DeadLetter(ApiModel):
    """A document or record that could not be ingested."""

    document: str
    """Its name in the source."""
    reason: str
    """CamelCase reason."""
    message: str
    """What is wrong with it."""


class RunRecord(ApiModel):
    """One finished run."""

    id: str
    """Name of the run."""
    phase: Phase
    """How it ended."""
    started_at: Timestamp
    """When it started."""
    finished_at: Timestamp
    """When it ended."""
    revision: str | None = None
    """Revision of the source: the commit, for git."""
    written: int = 0
    """Vectors written."""
    failed: int = 0
    """Documents in the dead letters."""


class ActiveRun(ApiModel):
    """The run that is going on."""

    id: str
    """Name of the run, and of its Job."""
    trigger: str
    """What it was started for: generation, request token or incarnation."""
    runner: RunnerType
    """Where it runs."""
    started_at: Timestamp
    """When it started."""
    attempt: int = 1
    """Start of this run's worker: more than 1 after the operator or the worker was killed."""


class IngestionJobStatus(ResourceStatus):
    """What is known of the runs."""

    phase: Phase | None = None
    """Where the last run stands."""
    index: str | None = None
    """Name of the VectorIndex."""
    run: ActiveRun | None = None
    """The run that is going on."""
    counts: Counts | None = None
    """What the last run did so far."""
    done: str | None = None
    """Documents done of those listed, such as `1200/5000`."""
    rate: str | None = None
    """Vectors written a second."""
    eta: str | None = None
    """Time left, estimated."""
    cost: str | None = None
    """What the last run's embedding cost so far, by the model's price, such as `0.0034 USD`."""
    revision: str | None = None
    """Revision of the source that the last run pinned."""
    verification: str | None = None
    """How the last run was verified: Exact, Namespace or Sampled."""
    dead_letters: list[DeadLetter] | None = Field(default=None, max_length=20)
    """The first dead letters of the last run. All of them are in the worker's log."""
    next_run_at: Timestamp | None = None
    """When the schedule starts the next run."""
    handled_slot: Timestamp | None = None
    """The last slot of the schedule that was handled."""
    last_success_at: Timestamp | None = None
    """When a run last succeeded."""
    last_runs: list[RunRecord] | None = Field(default=None, max_length=20)
    """Finished runs, the newest first."""
    handled_generation: int | None = None
    """The last generation that a run was started for."""
    handled_request: str | None = None
    """The last `vectorwright.dev/run-requested-at` that a run was started for."""
    handled_incarnation: str | None = None
    """The incarnation of the index that the last run wrote to."""


class IngestionJob(Resource):
    """An IngestionJob object."""

    kind: ClassVar[str] = "IngestionJob"
    plural: ClassVar[str] = "ingestionjobs"

    spec: IngestionJobSpec
    status: IngestionJobStatus = Field(default_factory=IngestionJobStatus)
