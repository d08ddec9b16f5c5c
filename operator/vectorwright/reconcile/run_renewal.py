"""Credentials of a run that goes on: what its worker is to have now, whether or not anything is ready."""

from __future__ import annotations

from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.api.v1alpha1.ingestionjob import IngestionJob
from vectorwright.api.v1alpha1.vectorindex import VectorIndex
from vectorwright.errors import Retryable

from .connections import Reference
from .context import Context
from .handover import RunFile
from .run_files import embedder_files, remote_source_files
from .run_stores import store_files, store_of

MENDED_BY_CREDENTIALS = frozenset(
    {"AccessDenied", "MissingCredentials", "RepositoryNotFound", "SecretKeyMissing", "TLSVerificationFailed"}
)
"""Reasons of failed runs that other credentials or certificates may mend: a private repository is not found with wrong
ones. After any other failure a Secret that changed during the run is no reason for another run."""


async def credentials_now(context: Context, job: IngestionJob, used: list[Reference]) -> list[RunFile]:
    """Everything that a worker which runs takes up when it changes. What is read is added to ``used``.

    Raises Retryable where something that the job refers to is gone, and Terminal where a Secret or a key of it is.
    """
    namespace, source = job.metadata.namespace, job.spec.source
    index = _index(context, namespace, job.spec.index_ref.name)
    files = await store_files(context, store_of(context, index), "store", used)
    if source.vector_index is not None:
        origin = _index(context, namespace, source.vector_index.name)
        return files + await store_files(context, store_of(context, origin), "source_store", used)
    if index.spec.embedding_model_ref is not None and not (job.spec.embedding and job.spec.embedding.precomputed):
        body = context.cache.get("EmbeddingModel", namespace, index.spec.embedding_model_ref.name)
        if body is None:
            raise Retryable(f"EmbeddingModel {index.spec.embedding_model_ref.name} is gone", reason="ModelNotReady")
        files += await embedder_files(context, namespace, EmbeddingModelSpec.model_validate(body["spec"]), used)
    return files + await remote_source_files(context, namespace, source, used)


def _index(context: Context, namespace: str, name: str) -> VectorIndex:
    body = context.cache.get("VectorIndex", namespace, name)
    if body is None:
        raise Retryable(f"VectorIndex {name} is gone from namespace {namespace}", reason="IndexNotFound")
    return VectorIndex.model_validate(body)
