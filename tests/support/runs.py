"""Jobs and what their workers are handed, for tests of runners and manifests."""

from __future__ import annotations

from typing import Any

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.ingest.runspec import RunSpec, StoreTarget
from vectorwright.reconcile.handover import RunFile, RunInputs

SECRET_VALUE = "s3cr3t-value-of-a-token"
CERTIFICATE = "-----BEGIN CERTIFICATE-----"


def ingestion_job(name: str = "docs", namespace: str = "team-a", *, uid: str = "uid-1", **spec: Any) -> IngestionJob:
    """A job with an inline source, as the API server would hand it out."""
    return IngestionJob.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": uid,
                "generation": 1,
                "labels": {"app.kubernetes.io/instance": "argo-app", "team": "a"},
                "annotations": {"argocd.argoproj.io/tracking-id": "x"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "indexRef": {"name": "docs"},
                "source": {"inline": {"documents": [{"id": "a.md", "text": "words"}]}},
                **spec,
            },
        }
    )


def run_spec(job: IngestionJob | None = None, **changes: Any) -> RunSpec:
    """A specification of a run over a Chroma store."""
    job = job or ingestion_job()
    settings: dict[str, Any] = {
        "run_id": "docs-0123456789",
        "job": f"{job.metadata.namespace}/{job.metadata.name}",
        "source_name": "team-a/docs",
        "source": job.spec.source,
        "store": StoreTarget(
            provider="chroma",
            settings={"url": "http://chroma:8000"},
            index="docs",
            incarnation="i1",
            dimension=4,
            metric="cosine",
        ),
        "deadline_seconds": 600.0,
    }
    return RunSpec(**(settings | changes))


FILES = (
    RunFile("credentials/store/token", "Secret", "store-key", "api-key", SECRET_VALUE.encode()),
    RunFile("credentials/source/username", "Secret", "git-key", "user", b"ada"),
    RunFile("credentials/source/password", "Secret", "git-key", "pass", SECRET_VALUE.encode()),
    RunFile("tls/store/ca.crt", "ConfigMap", "authorities", "bundle.pem", CERTIFICATE.encode()),
)


def run_inputs(spec: RunSpec | None = None, files: tuple[RunFile, ...] = FILES) -> RunInputs:
    """What a worker is handed."""
    return RunInputs(spec or run_spec(), files, backend_id="b1", incarnation="i1")
