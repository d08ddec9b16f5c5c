"""The other jobs that write to the same index."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from vectorwright.api.v1alpha1.ingestionjob import IngestionJob, SyncMode
from vectorwright.errors import Terminal

from .context import Context


def source_name(job: IngestionJob) -> str:
    """The value of ``vw_source``: stable for the life of the job."""
    return job.spec.source_name or f"{job.metadata.namespace}/{job.metadata.name}"


def others_on_index(context: Context, job: IngestionJob) -> list[str]:
    """The source names of the other jobs that write to the index, in the same namespace of it.

    Raises Terminal when an older one of them has the same source name, or when both copy and one of them deletes.
    """
    others = []
    mine = (job.metadata.creation_timestamp, job.metadata.name)
    # Read as they are, not as models: a thousand jobs look at each other, and one that is broken is no trouble here.
    for body in context.cache.all("IngestionJob", job.metadata.namespace):
        metadata, spec = body["metadata"], body.get("spec") or {}
        if metadata.get("uid") == job.metadata.uid:
            continue
        if (spec.get("indexRef") or {}).get("name") != job.spec.index_ref.name:
            continue
        if spec.get("indexNamespace") != job.spec.index_namespace:
            continue
        name = metadata["name"]
        theirs = spec.get("sourceName") or f"{metadata['namespace']}/{name}"
        others.append(theirs)
        older = mine[0] is None or (datetime.fromisoformat(metadata["creationTimestamp"]), name) < mine
        if theirs == source_name(job) and older:
            raise Terminal(
                f"IngestionJob {name} already fills VectorIndex {job.spec.index_ref.name} under the source name "
                f"{source_name(job)!r}: give this job its own spec.sourceName",
                reason="SourceNameTaken",
            )
        if older and _clash(job, spec):
            raise Terminal(
                f"IngestionJob {name} copies another index into VectorIndex {job.spec.index_ref.name} already, and "
                "with sync.mode Sync one copy would delete what the other brings: use Upsert for both, or an index "
                "for each",
                reason="SeveralCopies",
            )
    return others


def _clash(job: IngestionJob, other: dict[str, Any]) -> bool:
    """Whether both jobs copy an index, and one of them deletes what is gone from it."""
    if job.spec.source.vector_index is None or "vectorIndex" not in (other.get("source") or {}):
        return False
    mode = job.spec.sync.mode if job.spec.sync else None
    return SyncMode.SYNC in (mode, (other.get("sync") or {}).get("mode"))
