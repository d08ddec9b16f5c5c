"""Every metric of the operator's working process. Names begin with ``vectorwright_``, units are base units.

The parent process adds ``vectorwright_leader``, ``vectorwright_build_info`` and its own few
(:mod:`vectorwright.observability.health`).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import generate_latest

from .series import ObjectCounter, ObjectGauge

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)

_INDEX, _STORE, _JOB = "VectorIndex", "VectorStore", "IngestionJob"
_ROTATION = "APIKeyRotation"

# -- the control loop --
RECONCILE_TOTAL = Counter(
    "vectorwright_reconcile", "Reconciliations by kind and result.", ("kind", "result"), registry=REGISTRY
)
"""``result``: success, retry, stalled, error."""
RECONCILE_SECONDS = Histogram(
    "vectorwright_reconcile_duration_seconds",
    "Time of one reconciliation, calls to stores and the API server included.",
    ("kind",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
RECONCILE_IN_FLIGHT = Gauge(
    "vectorwright_reconcile_in_flight", "Reconciliations that run now.", ("kind",), registry=REGISTRY
)
QUEUE_DEPTH = Gauge(
    "vectorwright_reconcile_queue_depth", "Objects that wait to be reconciled.", ("kind",), registry=REGISTRY
)

# -- stores --
STORE_REQUESTS = Counter(
    "vectorwright_store_requests",
    "Calls to stores by provider, operation and result.",
    ("provider", "operation", "result"),
    registry=REGISTRY,
)
"""``result``: ok, not_found, conflict, terminal, retryable."""
STORE_REQUEST_SECONDS = Histogram(
    "vectorwright_store_request_duration_seconds",
    "Time of one call to a store.",
    ("provider", "operation"),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
STORE_PROBES = Counter(
    "vectorwright_store_probes", "Probes of stores by provider and result.", ("provider", "result"), registry=REGISTRY
)
STORE_UP = ObjectGauge("vectorwright_store_up", "1 when the last probe of the VectorStore succeeded.", _STORE)
STORE_INDEXES = ObjectGauge("vectorwright_store_indexes", "Indexes that the store holds, ours and others.", _STORE)

# -- indexes --
INDEX_READY = ObjectGauge("vectorwright_index_ready", "1 when the VectorIndex is Ready.", _INDEX, ("store",))
INDEX_VECTORS = ObjectGauge(
    "vectorwright_index_vectors", "Vectors in the index, as the store counts.", _INDEX, ("store",)
)
DRIFT_FIELDS = ObjectGauge(
    "vectorwright_index_drift_fields", "Fields in which the store differs from the spec.", _INDEX, ("store",)
)
LEFT_BEHIND = Counter(
    "vectorwright_left_behind",
    "Resources deleted while something of theirs stayed in a store, by kind and reason.",
    ("kind", "reason"),
    registry=REGISTRY,
)

# -- ingestion --
INGEST_DOCUMENTS = ObjectCounter(
    "vectorwright_ingest_documents", "Documents handled by runs of the job, by outcome.", _JOB, ("outcome",)
)
"""``outcome``: done, unchanged, failed, deleted."""
INGEST_VECTORS = ObjectCounter("vectorwright_ingest_vectors", "Vectors that the store accepted.", _JOB)
INGEST_TOKENS = ObjectCounter("vectorwright_ingest_tokens", "Tokens sent to the embedder.", _JOB)
INGEST_BATCHES = ObjectCounter("vectorwright_ingest_batches", "Batches that were upserted.", _JOB)
INGEST_RETRIES = ObjectCounter("vectorwright_ingest_retries", "Calls that were tried again.", _JOB)
DEAD_LETTERS = ObjectCounter("vectorwright_ingest_dead_letters", "Records set aside with a reason.", _JOB)
JOB_RUNNING = ObjectGauge("vectorwright_ingest_job_running", "1 while a run of the job is in progress.", _JOB)
JOB_LAST_SUCCESS = ObjectGauge(
    "vectorwright_ingest_job_last_success_timestamp_seconds", "When the last run succeeded.", _JOB
)

# -- rotation of keys --
KEY_EXPIRATION = ObjectGauge(
    "vectorwright_key_expiration_timestamp_seconds", "When the published key expires, where it does.", _ROTATION
)
KEY_RENEWAL = ObjectGauge(
    "vectorwright_key_renewal_timestamp_seconds", "When the published key is to be replaced.", _ROTATION
)
KEY_BLOCKED = ObjectGauge(
    "vectorwright_key_rotation_blocked", "1 while the rotation waits for somebody or something.", _ROTATION
)
KEY_ROTATIONS = ObjectCounter(
    "vectorwright_key_rotations", "Rotations that were begun, by how it went.", _ROTATION, ("result",)
)
"""``result``: success when the key before is proved dead (or there was none), failure for each attempt at a step that
failed."""

_OBJECT_METRICS = (
    KEY_EXPIRATION,
    KEY_RENEWAL,
    KEY_BLOCKED,
    KEY_ROTATIONS,
    STORE_UP,
    STORE_INDEXES,
    INDEX_READY,
    INDEX_VECTORS,
    DRIFT_FIELDS,
    INGEST_DOCUMENTS,
    INGEST_VECTORS,
    INGEST_TOKENS,
    INGEST_BATCHES,
    INGEST_RETRIES,
    DEAD_LETTERS,
    JOB_RUNNING,
    JOB_LAST_SUCCESS,
)
for _metric in _OBJECT_METRICS:
    REGISTRY.register(_metric)


def forget(kind: str, namespace: str, name: str) -> None:
    """Drop every series of one object: it is gone, and so its series must go."""
    for metric in _OBJECT_METRICS:
        if metric.kind == kind:
            metric.forget(namespace, name)


def exposition() -> bytes:
    """All metrics in Prometheus' text format. Safe to call from any thread."""
    return generate_latest(REGISTRY)
