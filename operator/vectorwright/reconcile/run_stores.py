"""The indexes that a run reads from and writes to, and the stores that they are in."""

from __future__ import annotations

from vectorwright.api.v1alpha1.ingestion_source import VectorIndexSource
from vectorwright.api.v1alpha1.vectorindex import VectorIndex
from vectorwright.api.v1alpha1.vectorstore import VectorStore
from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.copying.fit import Space, check_fit
from vectorwright.ingest.runspec import StoreOrigin, StorePlace
from vectorwright.kube.status import condition, is_true
from vectorwright.stores.registry import check_namespace

from .cache import Key
from .connections import Reference, store_connection
from .context import Context
from .handover import RunFile
from .run_files import authority_files, credential_files


def ready_index(context: Context, namespace: str, name: str) -> VectorIndex:
    """An index that can be read and written. Raises Retryable while it cannot: its status wakes the job."""
    body = context.cache.get("VectorIndex", namespace, name)
    if body is None:
        raise Retryable(
            f"VectorIndex {name} does not exist in namespace {namespace}: create it",
            reason="IndexNotFound",
        )
    if body["metadata"].get("deletionTimestamp"):
        raise Retryable(f"VectorIndex {name} is being deleted", reason="IndexNotReady")
    status = body.get("status") or {}
    if not is_true(status, "Ready") or not status.get("incarnation"):
        why = (condition(status, "Ready") or {}).get("message") or "it was not reconciled yet"
        raise Retryable(f"VectorIndex {name} is not ready: {why}", reason="IndexNotReady")
    return VectorIndex.model_validate(body)


def store_of(context: Context, index: VectorIndex) -> VectorStore:
    """The store of an index. Raises Retryable while it does not exist."""
    key = _store_key(index)
    body = context.cache.get(*key)
    if body is None:
        raise Retryable(f"VectorStore {key.name} does not exist", reason="StoreNotFound")
    return VectorStore.model_validate(body)


def _store_key(index: VectorIndex) -> Key:
    return Key("VectorStore", index.metadata.namespace, index.spec.store_ref.name)


def check_index_namespace(context: Context, store: VectorStore, namespace: str) -> None:
    """Raise Terminal (``UnsupportedNamespace``) where the store has no such namespaces within an index.

    A store that was not reached since this process started is asked by the worker.
    """
    session = context.sessions.get(Key("VectorStore", *store.key))
    if session is not None:
        check_namespace(namespace, session.info.capabilities, store.spec.provider)


async def store_files(context: Context, store: VectorStore, use: str, used: list[Reference]) -> list[RunFile]:
    """Credentials and certificates for a store: those for data, where the store has some of its own for that."""
    namespace, spec = store.metadata.namespace, store.spec
    chosen = spec.data_credentials or spec.control_credentials
    files = await credential_files(context, namespace, use, chosen, used)
    return files + await authority_files(context, namespace, use, spec.tls, used)


async def place_of(
    context: Context, index: VectorIndex, store: VectorStore, namespace: str, used: list[Reference]
) -> StorePlace:
    """Where an index is, for the worker. Raises Terminal when the store, a Secret or a certificate is wrong."""
    connection = await store_connection(context, _store_key(index), store.spec, used, data=True)
    limits = store.spec.limits
    return StorePlace(
        provider=connection.provider,
        settings=dict(connection.settings),
        server_name=connection.tls.server_name,
        insecure_skip_verify=connection.tls.insecure_skip_verify,
        timeout=connection.timeout,
        requests_per_second=limits.requests_per_second if limits else None,
        bytes_per_second=limits.bytes_per_second if limits else None,
        index=index.status.physical_name or index.metadata.name,
        namespace=namespace,
        incarnation=index.status.incarnation or "",
        dimension=index.status.dimension or 0,
        metric=index.status.metric or "cosine",
        backend_id=index.status.backend_id or "",
    )


async def copy_origin(
    context: Context, copied: VectorIndexSource, target: VectorIndex, place: StorePlace, used: list[Reference]
) -> tuple[StoreOrigin, list[RunFile]]:
    """The index that is copied to ``target`` at ``place``, and what its store is reached with.

    Raises Retryable while it is not ready; Terminal and Conflict where its vectors cannot be copied there.
    """
    source = ready_index(context, target.metadata.namespace, copied.name)
    check_fit(_space(source), _space(target))
    store = store_of(context, source)
    namespace = copied.index_namespace or ""
    check_index_namespace(context, store, namespace)
    found = await place_of(context, source, store, namespace, used)
    if place.backend_id and (found.backend_id, found.index, found.namespace) == (
        place.backend_id,
        place.index,
        place.namespace,
    ):
        raise Terminal(
            f"VectorIndex {copied.name} and VectorIndex {target.metadata.name} are one and the same index "
            f"({found.index!r}): there is nothing to copy",
            reason="CopyOntoItself",
        )
    return StoreOrigin(**found.model_dump()), await store_files(context, store, "source_store", used)


def _space(index: VectorIndex) -> Space:
    status = index.status
    return Space(f"VectorIndex {index.metadata.name}", status.dimension, status.metric, status.model_fingerprint)
