"""From an IngestionJob and what it refers to, to the run that a worker is handed: a specification and files."""

from __future__ import annotations

from vectorwright.api.v1alpha1.common import seconds
from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.api.v1alpha1.ingestion_source import ConfigMapSource
from vectorwright.api.v1alpha1.ingestionjob import (
    Batch,
    Budget,
    Chunk,
    IngestionJob,
    Parse,
    Sync,
)
from vectorwright.api.v1alpha1.vectorindex import VectorIndex
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.runspec import EmbedderTarget, NetworkPolicy, RunSpec, StoreTarget
from vectorwright.kube.status import is_true

from .connections import Reference, read_data
from .context import Context
from .handover import RunFile, RunInputs
from .run_files import embedder_files, remote_source_files
from .run_rivals import others_on_index, source_name
from .run_stores import check_index_namespace, copy_origin, place_of, ready_index, store_files, store_of

DEFAULT_DEADLINE = 6 * 3600.0


async def gather(context: Context, job: IngestionJob, run_id: str, used: list[Reference]) -> RunInputs:
    """Resolve everything. Raises Retryable for what can still come, Terminal for what contradicts the spec."""
    index = ready_index(context, job.metadata.namespace, job.spec.index_ref.name)
    others = others_on_index(context, job)
    namespace = job.metadata.namespace
    store = store_of(context, index)
    index_namespace = job.spec.index_namespace or ""
    check_index_namespace(context, store, index_namespace)
    files = await store_files(context, store, "store", used)
    embedder, embedder_files = await _embedder(context, job, index, used)
    files += embedder_files
    files += await _source_files(context, job, used)
    place = await place_of(context, index, store, index_namespace, used)
    origin = None
    if (copied := job.spec.source.vector_index) is not None:
        origin, origin_files = await copy_origin(context, copied, index, place, used)
        files += origin_files
    runner = job.spec.runner
    precomputed = job.spec.embedding.precomputed if job.spec.embedding else None
    spec = RunSpec(
        run_id=run_id,
        job=f"{namespace}/{job.metadata.name}",
        source_name=source_name(job),
        source=job.spec.source,
        parse=job.spec.parse or Parse(),
        chunk=job.spec.chunk or Chunk(),
        batch=job.spec.batch or Batch(),
        sync=job.spec.sync or Sync(),
        budget=job.spec.budget or Budget(),
        max_dead_letters=job.spec.max_dead_letters,
        store=StoreTarget(
            **place.model_dump(),
            fields={item.name: item.type.value for item in index.spec.metadata_fields or ()},
            sole_writer=not others and index.spec.manages,
            made_for_us=index.spec.manages and index.status.adopted is False,
            other_sources=others,
        ),
        source_store=origin,
        embedder=embedder,
        precomputed_field=precomputed.field if precomputed else None,
        network=NetworkPolicy(allow_networks=list(context.settings.allow_networks)),
        deadline_seconds=seconds(runner.deadline) if runner and runner.deadline else DEFAULT_DEADLINE,
    )
    return RunInputs(spec, tuple(files), index.status.backend_id or "", index.status.incarnation or "")


async def _embedder(
    context: Context, job: IngestionJob, index: VectorIndex, used: list[Reference]
) -> tuple[EmbedderTarget | None, list[RunFile]]:
    if job.spec.source.vector_index is not None:
        return None, []
    if job.spec.embedding is not None and job.spec.embedding.precomputed is not None:
        return None, []
    reference = index.spec.embedding_model_ref
    if reference is None:
        raise Terminal(
            f"VectorIndex {index.metadata.name} has no embedding model: set its spec.embeddingModelRef, or "
            "spec.embedding.precomputed of this job where vectors come with the records",
            reason="NoEmbeddingModel",
        )
    namespace = job.metadata.namespace
    body = context.cache.get("EmbeddingModel", namespace, reference.name)
    status = (body or {}).get("status") or {}
    if body is None or not is_true(status, "Ready"):
        raise Retryable(f"EmbeddingModel {reference.name} is not ready", reason="ModelNotReady")
    fingerprint = str(status.get("fingerprint"))
    if index.status.model_fingerprint not in (None, fingerprint):
        # The model changed, and the index has not been looked at since: it decides whether it can follow.
        raise Retryable(
            f"VectorIndex {index.metadata.name} has not taken up EmbeddingModel {reference.name} as it is now",
            reason="IndexNotReady",
        )
    spec = EmbeddingModelSpec.model_validate(body["spec"])
    return EmbedderTarget(spec=spec, fingerprint=fingerprint), await embedder_files(context, namespace, spec, used)


async def _source_files(context: Context, job: IngestionJob, used: list[Reference]) -> list[RunFile]:
    source, namespace = job.spec.source, job.metadata.namespace
    if source.config_map is not None:
        return await _config_map_files(context, namespace, source.config_map, used)
    return await remote_source_files(context, namespace, source, used)


async def _config_map_files(
    context: Context, namespace: str, source: ConfigMapSource, used: list[Reference]
) -> list[RunFile]:
    reference = Reference("ConfigMap", namespace, source.name)
    used.append(reference)
    data = await read_data(context, reference)
    missing = sorted(set(source.keys or ()) - set(data))
    if missing:
        raise Terminal(
            f"ConfigMap {namespace}/{source.name} has no key {', '.join(missing)}", reason="ConfigMapKeyMissing"
        )
    return [
        RunFile(f"configmap/{key}", "ConfigMap", source.name, key, data[key]) for key in source.keys or sorted(data)
    ]
