"""The end of a VectorIndex: retain or delete what is in the store, never hang, and say what was left behind."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from vectorwright.api.v1alpha1.common import (
    ANNOTATION_CONFIRM_DELETE,
    ANNOTATION_RELEASE,
    API_VERSION,
    FINALIZER,
)
from vectorwright.api.v1alpha1.vectorindex import DeletionPolicy, VectorIndex
from vectorwright.errors import NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube import resources
from vectorwright.kube.status import utc_now
from vectorwright.observability import metrics
from vectorwright.stores.base import IndexDescription, OwnershipMark

from .cache import Key
from .context import Context
from .finalizers import remove_finalizer
from .index_references import client_name, physical_name
from .outcome import Outcome, failed, waiting_conditions
from .sessions import StoreSession

log = logging.getLogger(__name__)

RETAIN_PATIENCE = 60.0
"""Seconds for which releasing a retained index waits for a store that does not answer. A mark left behind harms nobody:
the same resource made again finds its own index."""
RETRY_STALLED = 30.0
"""Seconds after which a deletion that the store refused is tried again."""


async def finalize(context: Context, key: Key, index: VectorIndex) -> Outcome:
    """Let the index go by its deletion policy, then remove the finalizer."""
    if FINALIZER not in index.metadata.finalizers:
        _forget(context, key)
        return Outcome()
    name = index.status.physical_name or client_name(index)
    if index.metadata.annotations.get(ANNOTATION_RELEASE) == "true":
        return await _let_go(
            context, key, index, "Released", f"index {name} was left as it is, because of {ANNOTATION_RELEASE}"
        )
    if not index.spec.manages:
        return await _done(context, key, index)  # what is only observed is left as it is, its mark too
    session = context.sessions.get(Key("VectorStore", key.namespace, index.spec.store_ref.name))
    if session is None:
        return await _without_store(context, key, index, name)
    name = physical_name(index, session)
    try:
        waiting = await _through_store(context, key, index, session, name)
    except NotFound:
        session.forget(name)  # somebody else deleted it meanwhile
        waiting = None
    except VectorwrightError as error:
        return await _hindered(context, key, index, name, error)
    return waiting or await _done(context, key, index)


async def _hindered(context: Context, key: Key, index: VectorIndex, name: str, error: VectorwrightError) -> Outcome:
    """The store did not do what was asked. A retained index waits for it in vain only for a while."""
    deletes, busy = index.spec.deletion_policy is DeletionPolicy.DELETE, isinstance(error, Retryable)
    if not deletes and (not busy or _waited(index) > RETAIN_PATIENCE):
        told = f"index {name} is retained; its mark could not be removed: {error.message}"
        return await _let_go(context, key, index, "MarkNotRemoved", told)
    if isinstance(error, Retryable):
        again = Retryable(
            f"index {name} is not let go yet: {error.message} (to let go without the store, set the annotation "
            f"{ANNOTATION_RELEASE}=true)",
            reason=error.reason,
            after=error.after,
        )
        return failed(again, index.status.dump())
    outcome = failed(error, index.status.dump())
    outcome.requeue_after = RETRY_STALLED
    return outcome


async def _through_store(
    context: Context, key: Key, index: VectorIndex, session: StoreSession, name: str
) -> Outcome | None:
    """Retain or delete what is ours. None when that is done; what is waited for otherwise."""
    found = await session.describe(name)
    if found is None or not _is_ours(context, index, found):
        _check_backend(index, session, name)
        return None
    if index.spec.deletion_policy is DeletionPolicy.DELETE and not context.settings.read_only:
        return await _delete(context, key, index, session, found)
    await _retain(context, key, session, found)
    return None


def _check_backend(index: VectorIndex, session: StoreSession, name: str) -> None:
    """An index that is not there may still be on the backend that it was made on. Raises Terminal."""
    info, known = session.info, index.status.backend_id
    if known not in (None, info.backend_id) and info.capabilities.durable:
        raise Terminal(
            f"another backend answers at {info.endpoint} (id {info.backend_id}, before {known}), where index {name} is "
            f"not: point VectorStore {index.spec.store_ref.name} back, or let go of the index as it is with the "
            f"annotation {ANNOTATION_RELEASE}=true",
            reason="BackendChanged",
        )


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
    store = await _store_body(context, key.namespace, index.spec.store_ref.name)
    unrecorded = index.status.incarnation is None
    if unrecorded and (store is None or not (store.get("status") or {}).get("backendId")):
        return await _done(context, key, index)  # there never was a store to make it in
    if store is None:
        told = f"index {name} was left behind: VectorStore {index.spec.store_ref.name} is gone"
        return await _let_go(context, key, index, "StoreGone", told)
    impatient = unrecorded or index.spec.deletion_policy is not DeletionPolicy.DELETE
    if impatient and _waited(index) > RETAIN_PATIENCE:
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


async def _store_body(context: Context, namespace: str, name: str) -> Mapping[str, Any] | None:
    """The VectorStore; asked for where the watch has not told of it: what is let go of cannot be called back."""
    known = context.cache.get("VectorStore", namespace, name)
    if known is not None:
        return known
    try:
        return await context.client.get(resources.VECTOR_STORES, name, namespace)
    except NotFound:
        return None


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
) -> Outcome | None:
    """Drop the index, once its loss was confirmed where it holds vectors."""
    held = await session.store.statistics(found.name)
    vectors, exact = held.count, held.exact
    if (vectors or not exact) and index.metadata.annotations.get(ANNOTATION_CONFIRM_DELETE) != found.name:
        message = (
            f"index {found.name} holds {'' if exact else 'about '}{vectors} vectors: to delete them for good, run "
            f"kubectl annotate vectorindex {key.name} -n {key.namespace} {ANNOTATION_CONFIRM_DELETE}={found.name}; "
            f"to keep them, {ANNOTATION_RELEASE}=true"
        )
        return Outcome(index.status.dump(), waiting_conditions("DeletionNeedsConfirmation", message))
    await _delete_alias(session, client_name(index), found.name)
    await session.store.delete_index(found.name)
    session.forget(found.name)
    log.info("deleted index %s with %d vectors", found.name, vectors)
    _tell(context, key, "Deleted", f"index {found.name} and its {vectors} vectors were deleted")
    return None


async def _delete_alias(session: StoreSession, alias: str, target: str) -> None:
    """Remove the alias, unless it leads elsewhere by now."""
    if session.info.capabilities.aliases and (await session.store.aliases()).get(alias) == target:
        with contextlib.suppress(NotFound):
            await session.store.delete_alias(alias)
        session.aliases.pop(alias, None)


async def _retain(context: Context, key: Key, session: StoreSession, found: IndexDescription) -> None:
    """Release the ownership mark and leave the rest."""
    vectors = (await session.store.statistics(found.name)).count
    if found.mark is not None and not context.settings.read_only:
        await session.store.set_mark(found.name, None, found.model_fingerprint)
        await session.describe(found.name)
    log.info("retained index %s with %d vectors", found.name, vectors)
    _tell(context, key, "Retained", f"index {found.name} and its {vectors} vectors were retained in the store")


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
