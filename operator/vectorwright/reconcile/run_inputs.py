"""From an IngestionJob and what it refers to, to the run that a worker is handed: a specification and files."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from vectorwright.api.v1alpha1.common import Credentials, Tls, seconds
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
from vectorwright.api.v1alpha1.vectorstore import VectorStore
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.runspec import EmbedderTarget, NetworkPolicy, RunSpec, StoreTarget
from vectorwright.kube.status import condition, is_true

from .cache import Key
from .connections import CA_KEY, Reference, read_credentials, read_data, store_connection
from .context import Context
from .handover import RunFile, RunInputs

DEFAULT_DEADLINE = 6 * 3600.0


def source_name(job: IngestionJob) -> str:
    """The value of ``vw_source``: stable for the life of the job."""
    return job.spec.source_name or f"{job.metadata.namespace}/{job.metadata.name}"


def ready_index(context: Context, job: IngestionJob) -> VectorIndex:
    """The index of a job, ready to be filled. Raises Retryable while it is not: its status wakes the job."""
    name = job.spec.index_ref.name
    body = context.cache.get("VectorIndex", job.metadata.namespace, name)
    if body is None:
        raise Retryable(
            f"VectorIndex {name} does not exist in namespace {job.metadata.namespace}: create it",
            reason="IndexNotFound",
        )
    if body["metadata"].get("deletionTimestamp"):
        raise Retryable(f"VectorIndex {name} is being deleted", reason="IndexNotReady")
    status = body.get("status") or {}
    if not is_true(status, "Ready") or not status.get("incarnation"):
        why = (condition(status, "Ready") or {}).get("message") or "it was not reconciled yet"
        raise Retryable(f"VectorIndex {name} is not ready: {why}", reason="IndexNotReady")
    return VectorIndex.model_validate(body)


def check_source_name(context: Context, job: IngestionJob) -> bool:
    """Whether this is the only job on its index. Raises Terminal when another one has the same source name."""
    alone = True
    mine = (job.metadata.creation_timestamp, job.metadata.name)
    # Read as they are, not as models: a thousand jobs look at each other, and one that is broken is no trouble here.
    for body in context.cache.all("IngestionJob", job.metadata.namespace):
        metadata, spec = body["metadata"], body.get("spec") or {}
        if metadata.get("uid") == job.metadata.uid:
            continue
        if (spec.get("indexRef") or {}).get("name") != job.spec.index_ref.name:
            continue
        alone = False
        name = metadata["name"]
        theirs = spec.get("sourceName") or f"{metadata['namespace']}/{name}"
        older = mine[0] is None or (datetime.fromisoformat(metadata["creationTimestamp"]), name) < mine
        if theirs == source_name(job) and older:
            raise Terminal(
                f"IngestionJob {name} already fills VectorIndex {job.spec.index_ref.name} under the source name "
                f"{source_name(job)!r}: give this job its own spec.sourceName",
                reason="SourceNameTaken",
            )
    return alone


async def gather(context: Context, job: IngestionJob, run_id: str, used: list[Reference]) -> RunInputs:
    """Resolve everything. Raises Retryable for what can still come, Terminal for what contradicts the spec."""
    index = ready_index(context, job)
    alone = check_source_name(context, job)
    namespace = job.metadata.namespace
    store_key = Key("VectorStore", namespace, index.spec.store_ref.name)
    store_body = context.cache.get(*store_key)
    if store_body is None:
        raise Retryable(f"VectorStore {store_key.name} does not exist", reason="StoreNotFound")
    store = VectorStore.model_validate(store_body)
    connection = await store_connection(context, store_key, store.spec, used, data=True)
    files: list[RunFile] = []
    chosen = store.spec.data_credentials or store.spec.control_credentials
    files += await _credential_files(context, namespace, "store", chosen, used)
    files += await _authority_files(context, namespace, "store", store.spec.tls, used)
    embedder, embedder_files = await _embedder(context, job, index, used)
    files += embedder_files
    files += await _source_files(context, job, used)
    limits = store.spec.limits
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
            provider=connection.provider,
            settings=dict(connection.settings),
            server_name=connection.tls.server_name,
            insecure_skip_verify=connection.tls.insecure_skip_verify,
            timeout=connection.timeout,
            requests_per_second=limits.requests_per_second if limits else None,
            bytes_per_second=limits.bytes_per_second if limits else None,
            index=index.status.physical_name or index.metadata.name,
            incarnation=index.status.incarnation or "",
            dimension=index.status.dimension or 0,
            metric=index.status.metric or "cosine",
            fields={item.name: item.type.value for item in index.spec.metadata_fields or ()},
            sole_writer=alone and index.spec.manages,
        ),
        embedder=embedder,
        precomputed_field=precomputed.field if precomputed else None,
        network=NetworkPolicy(allow_networks=list(context.settings.allow_networks)),
        deadline_seconds=seconds(runner.deadline) if runner and runner.deadline else DEFAULT_DEADLINE,
    )
    return RunInputs(spec, tuple(files), index.status.backend_id or "", index.status.incarnation or "")


async def _embedder(
    context: Context, job: IngestionJob, index: VectorIndex, used: list[Reference]
) -> tuple[EmbedderTarget | None, list[RunFile]]:
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
    files = await _credential_files(context, namespace, "embedder", spec.credentials, used)
    files += await _authority_files(context, namespace, "embedder", spec.tls, used)
    return EmbedderTarget(spec=spec, fingerprint=fingerprint), files


async def _source_files(context: Context, job: IngestionJob, used: list[Reference]) -> list[RunFile]:
    source, namespace = job.spec.source, job.metadata.namespace
    remote = source.git or source.http
    if remote is not None:
        files = await _credential_files(context, namespace, "source", remote.credentials, used)
        return files + await _authority_files(context, namespace, "source", remote.tls, used)
    if source.config_map is not None:
        return await _config_map_files(context, namespace, source.config_map, used)
    return []


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


async def _credential_files(
    context: Context, namespace: str, use: str, credentials: Credentials | None, used: list[Reference]
) -> list[RunFile]:
    if credentials is None:
        return []
    values = await read_credentials(context, namespace, credentials, used)
    named = {
        "token": (credentials.token_key or "token", values.token),
        "username": (credentials.username_key or "username", values.username),
        "password": (credentials.password_key or "password", values.password),
    }
    return [
        RunFile(f"credentials/{use}/{part}", "Secret", credentials.name, key, value.encode())
        for part, (key, value) in named.items()
        if value is not None
    ]


async def _authority_files(
    context: Context, namespace: str, use: str, tls: Tls | None, used: list[Reference]
) -> list[RunFile]:
    if tls is None:
        return []
    for kind, named in (("Secret", tls.ca_secret), ("ConfigMap", tls.ca_config_map)):
        if named is not None:
            reference = Reference(kind, namespace, named.name)
            used.append(reference)
            data: Mapping[str, bytes] = await read_data(context, reference)
            key = named.key or CA_KEY
            if key not in data:
                raise Terminal(f"{kind} {namespace}/{named.name} has no key {key!r}", reason=f"{kind}KeyMissing")
            return [RunFile(f"tls/{use}/ca.crt", kind, named.name, key, data[key])]
    return []
