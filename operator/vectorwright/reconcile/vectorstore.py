"""VectorStore: reach the store, list what it holds, wake the indexes that differ."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

from vectorwright.api.v1alpha1.apikeyrotation import KeyDeletionPolicy
from vectorwright.api.v1alpha1.common import (
    ANNOTATION_ACCEPT_BACKEND,
    ANNOTATION_RELEASE,
    FINALIZER,
    seconds,
)
from vectorwright.api.v1alpha1.vectorindex import DeletionPolicy, VectorIndex
from vectorwright.api.v1alpha1.vectorstore import StoreCapabilities, VectorStore
from vectorwright.errors import NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube.status import ConditionState, condition
from vectorwright.observability import metrics
from vectorwright.stores.base import Capabilities, IndexDescription
from vectorwright.stores.registry import Connection

from .cache import Key
from .connections import Reference, connection_digest, provider_of, remember_uses, store_connection
from .context import Context
from .finalizers import add_finalizer, remove_finalizer
from .outcome import Outcome, Status, failed, ready_conditions, waiting_conditions
from .sessions import StoreSession

DEFAULT_PROBE_INTERVAL = 60.0
MIN_PROBE_INTERVAL = 1.0
JITTER = 0.1
"""Share of the interval by which a timer varies, so that a thousand stores are not listed at one moment."""


def probe_interval(store: VectorStore) -> float:
    """Seconds between two listings, before jitter."""
    chosen = store.spec.probe_interval
    return max(MIN_PROBE_INTERVAL, seconds(chosen)) if chosen else DEFAULT_PROBE_INTERVAL


def jittered(interval: float) -> float:
    """The interval in seconds, varied by :data:`JITTER` to both sides."""
    return interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret


def dependents(context: Context, store: Key, kind: str = "VectorIndex") -> Iterable[Mapping[str, Any]]:
    """The objects of a kind that refer to a store: the indexes in it, the rotations of its keys."""
    for body in context.cache.all(kind, store.namespace):
        if body.get("spec", {}).get("storeRef", {}).get("name") == store.name:
            yield body


def _index_key(body: Mapping[str, Any]) -> Key:
    return Key("VectorIndex", body["metadata"]["namespace"], body["metadata"]["name"])


def _capabilities(can: Capabilities) -> dict[str, Any]:
    return StoreCapabilities(
        metrics=sorted(can.metrics),
        max_dimension=can.max_dimension,
        field_types=sorted(can.field_types),
        list_metadata=can.list_metadata,
        max_metadata_bytes=can.max_metadata_bytes,
        max_batch_records=can.max_batch_records,
        max_batch_bytes=can.max_batch_bytes,
        aliases=can.aliases,
        namespaces=can.namespaces,
        exact_search=can.exact_search,
        read_after_write=can.read_after_write,
        counts_in_listing=can.counts_in_listing,
    ).dump()


async def reconcile(context: Context, store: VectorStore) -> Outcome:
    """One pass: credentials → probe where something changed → listing → the indexes that differ are woken."""
    key = Key("VectorStore", *store.key)
    if store.deleting:
        return await _finalize(context, key, store)
    await add_finalizer(context, key, store.metadata)
    status: Status = {
        name: value
        for name, value in store.status.dump().items()
        if name in ("version", "backendId", "capabilities", "indexes", "endpoint", "credentialsVersion")
    }
    interval = jittered(probe_interval(store))
    told = condition(context_status(context, key), "Ready") or {}
    was_ready = told.get("status") == "True"
    references: list[Reference] = []
    try:
        status["provider"] = provider_of(store.spec)
        connection = await store_connection(context, key, store.spec, references)
        before = context.sessions.get(key)
        session = await _open(context, key, connection)
        fresh = session is not before or session.never_listed
        listing = await session.refresh()
        _check_backend(context, key, store, session, listing)
    except VectorwrightError as error:
        metrics.STORE_PROBES.labels(str(status.get("provider", "unknown")), "failure").inc()
        metrics.STORE_UP.set(*store.key, 0)
        if (known := context.sessions.get(key)) is not None:
            known.healthy = False
        outcome = failed(error, status)
        outcome.status["throttled"] = isinstance(error, Retryable) and error.reason == "Throttled"
        outcome.requeue_after = interval
        if was_ready or told.get("message") != error.message:
            # The indexes repeat why they have to wait.
            outcome.once_written = functools.partial(
                _wake, context, [_index_key(body) for body in dependents(context, key)]
            )
        return outcome
    finally:
        remember_uses(context, key, references)
    metrics.STORE_PROBES.labels(connection.provider, "success").inc()
    metrics.STORE_UP.set(*store.key, 1)
    metrics.STORE_INDEXES.set(*store.key, len(listing))
    changed = fresh or not was_ready
    everything = changed or _counting_is_due(context, key, store, session)
    differing = _differing(context, key, session, listing, everything=everything)
    info = session.info
    status.update(
        endpoint=info.endpoint,
        version=info.version,
        backendId=info.backend_id,
        capabilities=_capabilities(info.capabilities),
        indexes=len(listing),
        throttled=False,
        credentialsVersion=_credentials_version(context, references),
    )
    message = f"{connection.provider} {info.version} at {info.endpoint} answers"
    # The indexes look at this status: they are woken once it is written.
    return Outcome(
        status,
        ready_conditions(message, synced=False),
        requeue_after=interval,
        once_written=functools.partial(_wake, context, differing),
    )


async def _open(context: Context, key: Key, connection: Connection) -> StoreSession:
    """The session of a store. A key that dies between two passes is replaced by that of the Secret as it is then."""

    async def anew() -> tuple[str, Connection]:
        body = context.cache.get(*key)
        if body is None:
            raise NotFound(f"VectorStore {key.name} is gone")
        found = await store_connection(context, key, VectorStore.model_validate(body).spec, [])
        return connection_digest(found), found

    return await context.sessions.open(key, connection_digest(connection), connection, anew)


def _counting_is_due(context: Context, key: Key, store: VectorStore, session: StoreSession) -> bool:
    """Whether each index is to count its vectors now, where the listing does not tell their number."""
    interval = store.spec.count_interval
    if interval is None or session.info.capabilities.counts_in_listing:
        return False
    now = time.monotonic()
    if now - context.counted_at.setdefault(key, now) < seconds(interval):
        return False
    context.counted_at[key] = now
    return True


def context_status(context: Context, key: Key) -> Mapping[str, Any]:
    """The status of an object as it was last written; empty when there is none."""
    body = context.cache.get(*key)
    return (body or {}).get("status") or {}


async def _wake(context: Context, keys: Iterable[Key]) -> None:
    for key in keys:
        context.enqueue(key)


def _credentials_version(context: Context, references: Iterable[Reference]) -> str | None:
    versions = [
        context.secrets.resource_version(item.namespace, item.name) for item in references if item.kind == "Secret"
    ]
    return "-".join(version for version in versions if version) or None


def _differing(
    context: Context,
    key: Key,
    session: StoreSession,
    listing: Mapping[str, IndexDescription],
    *,
    everything: bool,
) -> list[Key]:
    """The indexes whose description is not what they last saw; all of them where the store itself changed."""
    found = []
    for body in dependents(context, key):
        index = _index_key(body)
        if everything or index not in context.last_seen:
            found.append(index)
            continue
        seen = context.last_seen[index]
        if seen is None:
            name = body.get("status", {}).get("physicalName")
            if name in listing or session.aliases.get(body["spec"].get("indexName") or body["metadata"]["name"]):
                found.append(index)
        elif seen.unbuilt or listing.get(seen.name) != seen or _alias_moved(context, session, body):
            found.append(index)  # an unbuilt one waits for the end of a run
    return found


def _alias_moved(context: Context, session: StoreSession, body: Mapping[str, Any]) -> bool:
    """Whether the name that clients use no longer leads to the index, and we are to put that right."""
    status, spec = body.get("status") or {}, body.get("spec") or {}
    if context.settings.read_only or spec.get("managementPolicy") == "Observe":
        return False
    name, physical = status.get("indexName"), status.get("physicalName")
    return name != physical and session.aliases.get(str(name)) != physical


def _check_backend(
    context: Context,
    key: Key,
    store: VectorStore,
    session: StoreSession,
    listing: Mapping[str, IndexDescription],
) -> None:
    """A store that points at another backend is not taken for an empty new world.

    The new one is accepted when no index was recorded on the old, when every recorded index is found there (the same
    backend behind another address), or when a person names it in the annotation. Raises Terminal (``BackendChanged``).
    """
    known, found = store.status.backend_id, session.info.backend_id
    if not session.info.capabilities.durable:
        return  # a store in memory is another one after each restart: its indexes are lost, each by its own policy
    if known is None or known == found or store.metadata.annotations.get(ANNOTATION_ACCEPT_BACKEND) == found:
        return
    missing = [
        body["metadata"]["name"]
        for body in dependents(context, key)
        if (recorded := body.get("status", {}).get("incarnation")) is not None
        and recorded not in {item.incarnation for item in listing.values()}
    ]
    if missing:
        raise Terminal(
            f"another backend answers at {session.info.endpoint} (id {found}, before {known}), without the indexes of "
            f"{', '.join(sorted(missing)[:5])}: point the store back, or accept the new one with the annotation "
            f"{ANNOTATION_ACCEPT_BACKEND}={found}",
            reason="BackendChanged",
        )


async def _finalize(context: Context, key: Key, store: VectorStore) -> Outcome:
    """Let go of the store once nothing needs it any more: indexes to be deleted or released, keys to be revoked."""
    if FINALIZER not in store.metadata.finalizers:
        await context.sessions.close(key)
        return Outcome()
    needing: list[Key] = []
    for body in dependents(context, key):
        index = VectorIndex.model_validate(body)
        owns = FINALIZER in index.metadata.finalizers
        if owns and (index.deleting or index.spec.deletion_policy is DeletionPolicy.DELETE):
            needing.append(_index_key(body))
    revoking = [
        body["metadata"]["name"]
        for body in dependents(context, key, "APIKeyRotation")
        if FINALIZER in body["metadata"].get("finalizers", ())
        and body["spec"].get("deletionPolicy") == KeyDeletionPolicy.REVOKE
    ]
    released = store.metadata.annotations.get(ANNOTATION_RELEASE) == "true"
    if (needing or revoking) and not released:
        return await _kept_for(context, key, store, needing, revoking)
    await remove_finalizer(context, key, store.metadata)
    await context.sessions.close(key)
    remember_uses(context, key, [])
    metrics.forget(*key)
    return Outcome()


async def _kept_for(context: Context, key: Key, store: VectorStore, needing: list[Key], revoking: list[str]) -> Outcome:
    """Stay reachable for the indexes that are finalized through this store, also after a restart.

    Rotations, by their names, need its address alone.
    """
    kinds = {"VectorIndex": [index.name for index in needing], "APIKeyRotation": revoking}
    who = " and ".join(f"{kind} {', '.join(sorted(names)[:5])}" for kind, names in kinds.items() if names)
    way_out = f"let go at once with the annotation {ANNOTATION_RELEASE}=true"
    references: list[Reference] = []
    woken: list[Key] = []
    try:
        if needing:
            before = context.sessions.get(key)
            connection = await store_connection(context, key, store.spec, references)
            session = await _open(context, key, connection)
            if session is not before or session.never_listed:
                await session.refresh()
                woken = needing
    except VectorwrightError as error:
        told = type(error)(f"{error.message} ({who} needs this store; {way_out})", reason=error.reason)
        outcome = failed(told, store.status.dump())
        outcome.requeue_after = jittered(probe_interval(store))
        return outcome
    finally:
        remember_uses(context, key, references)
    message = f"kept until {who} is deleted, which needs this store; {way_out}"
    conditions = waiting_conditions("InUse", message)
    # To the indexes it is as ready as it was.
    conditions[0] = ConditionState("Ready", "True", "InUse", message)
    return Outcome(
        store.status.dump(),
        conditions,
        requeue_after=jittered(probe_interval(store)),
        once_written=functools.partial(_wake, context, woken),
    )
