"""The end of a VectorIndex: retain or delete what is in the store, never hang, and say what was left behind."""

from __future__ import annotations

import logging

from vectorwright.api.v1alpha1.common import (
    ANNOTATION_CONFIRM_DELETE,
    ANNOTATION_RELEASE,
    API_VERSION,
    FINALIZER,
)
from vectorwright.api.v1alpha1.vectorindex import DeletionPolicy, VectorIndex
from vectorwright.errors import NotFound, Retryable, VectorwrightError
from vectorwright.kube import resources
from vectorwright.kube.status import utc_now
from vectorwright.observability import metrics
from vectorwright.stores.base import IndexDescription, OwnershipMark

from .cache import Key
from .context import Context
from .finalizers import remove_finalizer
from .index_references import client_name
from .outcome import Outcome, failed, waiting_conditions
from .sessions import StoreSession

log = logging.getLogger(__name__)

RETAIN_PATIENCE = 60.0
"""Seconds for which releasing a retained index waits for a store that does not answer. A mark left behind harms nobody:
the same resource made again finds its own index."""


async def finalize(context: Context, key: Key, index: VectorIndex) -> Outcome:
    """Let the index go by its deletion policy, then remove the finalizer."""
    if FINALIZER not in index.metadata.finalizers:
        _forget(context, key)
        return Outcome()
    status = index.status.dump()
    name = index.status.physical_name or client_name(index)
    if index.metadata.annotations.get(ANNOTATION_RELEASE) == "true":
        return await _let_go(
            context, key, index, "Released", f"index {name} was left as it is, because of {ANNOTATION_RELEASE}"
        )
    session = context.sessions.get(Key("VectorStore", key.namespace, index.spec.store_ref.name))
    if session is None:
        return await _without_store(context, key, index, name)
    try:
        return await _through_store(context, key, index, session, name)
    except Retryable as error:
        if index.spec.deletion_policy is not DeletionPolicy.DELETE and _waited(index) > RETAIN_PATIENCE:
            return await _let_go(
                context,
                key,
                index,
                "MarkNotRemoved",
                f"index {name} is retained; its mark could not be removed: {error.message}",
            )
        told = Retryable(
            f"index {name} is not let go yet: {error.message} (to let go without the store, set the annotation "
            f"{ANNOTATION_RELEASE}=true)",
            reason=error.reason,
            after=error.after,
        )
        return failed(told, status)
    except VectorwrightError as error:
        if index.spec.deletion_policy is DeletionPolicy.DELETE:
            outcome = failed(error, status)
            outcome.requeue_after = 30.0
            return outcome
        return await _let_go(
            context,
            key,
            index,
            "MarkNotRemoved",
            f"index {name} is retained; its mark could not be removed: {error.message}",
        )


async def _through_store(context: Context, key: Key, index: VectorIndex, session: StoreSession, name: str) -> Outcome:
    found = await session.describe(name)
    if found is None or not _is_ours(context, index, found):
        return await _done(context, key, index)
    if index.spec.deletion_policy is DeletionPolicy.DELETE and not context.settings.read_only:
        return await _delete(context, key, index, session, found)
    return await _retain(context, key, index, session, found)


def _waited(index: VectorIndex) -> float:
    """Seconds since the deletion was asked for."""
    asked = index.metadata.deletion_timestamp
    return (utc_now() - asked).total_seconds() if asked else 0.0


def _is_ours(context: Context, index: VectorIndex, found: IndexDescription) -> bool:
    """Whether this resource made or adopted the very index that is there: else it is not touched."""
    mine = OwnershipMark(context.installation, index.metadata.namespace, index.metadata.name)
    return found.mark == mine or (
        found.mark is None and index.status.adopted is not None and found.incarnation == index.status.incarnation
    )


async def _without_store(context: Context, key: Key, index: VectorIndex, name: str) -> Outcome:
    """The store was never reached by this process: it may come, or be gone for good."""
    store = context.cache.get("VectorStore", key.namespace, index.spec.store_ref.name)
    never_made = index.status.incarnation is None
    if never_made or store is None:
        told = "" if never_made else f"index {name} was left behind: VectorStore {index.spec.store_ref.name} is gone"
        return await _let_go(context, key, index, "StoreGone", told) if told else await _done(context, key, index)
    if index.spec.deletion_policy is not DeletionPolicy.DELETE and _waited(index) > RETAIN_PATIENCE:
        return await _let_go(
            context, key, index, "StoreNotReached", f"index {name} is retained; its store was not reached"
        )
    if await _namespace_terminating(context, key.namespace) and _waited(index) > RETAIN_PATIENCE:
        return await _let_go(
            context,
            key,
            index,
            "NamespaceGoing",
            f"index {name} was left behind: its namespace is going and its store is not reachable",
        )
    message = (
        f"VectorStore {index.spec.store_ref.name} was not reached yet, so index {name} is not let go yet (to let go "
        f"without the store, set the annotation {ANNOTATION_RELEASE}=true)"
    )
    return Outcome(index.status.dump(), waiting_conditions("StoreNotReady", message), requeue_after=5.0)


async def _namespace_terminating(context: Context, namespace: str) -> bool:
    try:
        body = await context.client.get(resources.NAMESPACES, namespace)
    except NotFound:
        return True
    except VectorwrightError:
        return False  # not ours to read in a namespaced installation: then the release annotation is the way
    return bool(body["metadata"].get("deletionTimestamp"))


async def _delete(
    context: Context, key: Key, index: VectorIndex, session: StoreSession, found: IndexDescription
) -> Outcome:
    """Drop the index, once its loss was confirmed where it holds vectors."""
    vectors = await session.store.count(found.name)
    if vectors and index.metadata.annotations.get(ANNOTATION_CONFIRM_DELETE) != found.name:
        message = (
            f"index {found.name} holds {vectors} vectors: to delete them for good, run kubectl annotate vectorindex "
            f"{key.name} -n {key.namespace} {ANNOTATION_CONFIRM_DELETE}={found.name}; to keep them, "
            f"{ANNOTATION_RELEASE}=true"
        )
        return Outcome(index.status.dump(), waiting_conditions("DeletionNeedsConfirmation", message))
    if session.aliases.get(client_name(index)) == found.name:
        await session.store.delete_alias(client_name(index))
        session.aliases.pop(client_name(index), None)
    await session.store.delete_index(found.name)
    session.forget(found.name)
    log.info("deleted index %s with %d vectors", found.name, vectors)
    _tell(context, key, "Deleted", f"index {found.name} and its {vectors} vectors were deleted")
    return await _done(context, key, index)


async def _retain(
    context: Context, key: Key, index: VectorIndex, session: StoreSession, found: IndexDescription
) -> Outcome:
    """Release the ownership mark and leave the rest."""
    vectors = await session.store.count(found.name)
    if found.mark is not None and not context.settings.read_only:
        await session.store.set_mark(found.name, None, found.model_fingerprint)
        await session.describe(found.name)
    log.info("retained index %s with %d vectors", found.name, vectors)
    _tell(context, key, "Retained", f"index {found.name} and its {vectors} vectors were retained in the store")
    return await _done(context, key, index)


def _tell(context: Context, key: Key, reason: str, message: str) -> None:
    if (body := context.cache.get(*key)) is not None:
        context.events.normal({**body, "kind": key.kind, "apiVersion": API_VERSION}, reason, message)


async def _let_go(context: Context, key: Key, index: VectorIndex, reason: str, told: str) -> Outcome:
    """End without the store and say what was left behind, in a log and a metric: a going namespace refuses events."""
    log.warning("%s", told)
    metrics.LEFT_BEHIND.labels(key.kind, reason).inc()
    _tell(context, key, "LeftBehind", told)
    return await _done(context, key, index)


async def _done(context: Context, key: Key, index: VectorIndex) -> Outcome:
    await remove_finalizer(context, key, index.metadata)
    _forget(context, key)
    context.enqueue(Key("VectorStore", key.namespace, index.spec.store_ref.name))
    return Outcome()


def _forget(context: Context, key: Key) -> None:
    context.last_seen.pop(key, None)
    metrics.forget(*key)
