"""VectorIndex: observe what the store has, plan, apply, report."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from vectorwright.api.v1alpha1.common import ANNOTATION_ACCEPT_BACKEND, API_VERSION
from vectorwright.api.v1alpha1.vectorindex import VectorIndex
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube.status import ConditionState, condition
from vectorwright.observability import metrics
from vectorwright.stores.base import IndexDescription

from .cache import Key
from .context import Context
from .finalizers import add_finalizer
from .index_deletion import finalize
from .index_plan import (
    Action,
    AdoptIndex,
    BuildIndex,
    CreateIndex,
    DesiredIndex,
    Drift,
    ObservedIndex,
    Plan,
    PointAlias,
    RestoreMark,
    UpdateSettings,
    Verdict,
    plan,
)
from .index_references import StoreNotOpened, claimant, client_name, desired_index, physical_name, resolve
from .index_report import RESOLVED, last_ingested, report
from .outcome import Outcome, Status, failed, waiting_conditions
from .sessions import StoreSession

log = logging.getLogger(__name__)

LISTING_MAX_AGE = 5.0
"""Seconds for which the store's listing is good enough to observe an index that is known already."""


async def reconcile(context: Context, index: VectorIndex) -> Outcome:
    """One pass over one index."""
    key = Key("VectorIndex", *index.key)
    if index.deleting:
        return await finalize(context, key, index)
    outcome = await _look(context, key, index)
    ready = any(state.type == "Ready" and state.status == "True" for state in outcome.conditions)
    metrics.INDEX_READY.set(*index.key, ready, store=index.spec.store_ref.name)
    return outcome


async def _look(context: Context, key: Key, index: VectorIndex) -> Outcome:
    status = _kept_status(index)
    try:
        references = resolve(context, index)
    except VectorwrightError as error:
        context.last_seen.pop(key, None)
        if isinstance(error, StoreNotOpened) and (unchanged := _as_it_was(index)) is not None:
            return unchanged
        if isinstance(error, Retryable):
            # What it waits for wakes it when it comes: no timer.
            conditions = [*waiting_conditions(error.reason, error.message), _unresolved(error)]
            return Outcome(status, conditions)
        return failed(error, status)
    if index.spec.manages:
        await add_finalizer(context, key, index.metadata)
    session = references.session
    name = physical_name(index, session)
    try:
        desired = desired_index(context, index, references, name)
        observed = await _observed(context, index, session, desired)
        todo = plan(desired, observed)
        if todo.refusal is not None:
            raise _as_error(todo)
        description = await _apply(context, index, session, todo, observed.description)
        outcome = await report(
            context, index, references=references, desired=desired, todo=todo, description=description, status=status
        )
    except NotFound:
        session.forget(name)
        context.last_seen[key] = None
        gone = Retryable(f"index {name} vanished while it was looked at: looking again", reason="IndexVanished")
        return _refused(context, key, index, status, gone)
    except VectorwrightError as error:
        context.last_seen[key] = session.listing.get(name)
        return _refused(context, key, index, status, error)
    context.last_seen[key] = description
    return outcome


def _as_it_was(index: VectorIndex) -> Outcome | None:
    """What the process before this one found; None where the spec has changed since."""
    if index.status.observed_generation != index.metadata.generation:
        return None
    conditions = [
        ConditionState(item.type, item.status.value, item.reason, item.message)
        for item in index.status.conditions or ()
    ]
    return Outcome(index.status.dump(), conditions)


async def _observed(
    context: Context, index: VectorIndex, session: StoreSession, desired: DesiredIndex
) -> ObservedIndex:
    description = await _observe(context, index, session, desired.definition.name)
    wanted = desired.definition.model_fingerprint
    if description is not None and wanted is not None and description.model_fingerprint not in (None, wanted):
        # Only an index that is empty at this moment may change its model, and a listing may be seconds old.
        held = await session.store.statistics(description.name)
        description = replace(description, count=held.count, count_exact=held.exact)
    return ObservedIndex(
        capabilities=session.info.capabilities,
        backend_id=session.info.backend_id,
        description=description,
        known_incarnation=index.status.incarnation,
        known_backend_id=None if _accepted(context, index, session) else index.status.backend_id,
        known_owned=index.status.adopted is not None,
        claimant=claimant(context, index, session) if index.spec.manages else None,
        alias_target=session.aliases.get(client_name(index)),
        filling=_is_filled_now(context, index),
    )


def _accepted(context: Context, index: VectorIndex, session: StoreSession) -> bool:
    """Whether a person accepted the store's new backend: then an index that is not there is lost, by its own policy."""
    store = context.cache.get("VectorStore", index.metadata.namespace, index.spec.store_ref.name) or {}
    annotations = store.get("metadata", {}).get("annotations") or {}
    return bool(annotations.get(ANNOTATION_ACCEPT_BACKEND) == session.info.backend_id)


def _as_error(todo: Plan) -> VectorwrightError:
    refusal = todo.refusal
    if refusal is None:
        raise ValueError("the plan refuses nothing")
    kind = Conflict if refusal.verdict is Verdict.CONFLICT else Terminal
    return kind(refusal.message, reason=refusal.reason)


async def _observe(context: Context, index: VectorIndex, session: StoreSession, name: str) -> IndexDescription | None:
    """The index as the store has it: from the shared listing where it is known and fresh, else asked for."""
    if index.status.incarnation and session.age <= LISTING_MAX_AGE and not _filled_since(context, index):
        found = session.listing.get(name)
        if found is not None:
            return found
    return await session.describe(name)


def _filled_since(context: Context, index: VectorIndex) -> bool:
    """Whether a run ended since the last pass: a listing from before it tells the number of vectors wrong."""
    ended, known = last_ingested(context, Key("VectorIndex", *index.key)), index.status.last_ingested_at
    return ended is not None and (known is None or datetime.fromisoformat(ended) > known)


def _is_filled_now(context: Context, index: VectorIndex) -> bool:
    """Whether a run of an IngestionJob writes to it."""
    return any(
        (body.get("status") or {}).get("run")
        for body in context.cache.all("IngestionJob", index.metadata.namespace)
        if body.get("spec", {}).get("indexRef", {}).get("name") == index.metadata.name
    )


def _kept_status(index: VectorIndex) -> Status:
    """What stays true of an index whatever this pass finds."""
    return {name: value for name, value in index.status.dump().items() if name not in ("conditions", "drift")}


def _unresolved(error: VectorwrightError) -> ConditionState:
    return ConditionState("ReferencesResolved", "False", error.reason, error.message)


def _refused(context: Context, key: Key, index: VectorIndex, status: Status, error: VectorwrightError) -> Outcome:
    body = context.cache.get(*key)
    before = condition((body or {}).get("status") or {}, "Ready") or {}
    if body is not None and not isinstance(error, Retryable) and before.get("reason") != error.reason:
        context.events.warning({**body, "kind": key.kind, "apiVersion": API_VERSION}, error.reason, error.message)
    status["store"] = index.spec.store_ref.name
    outcome = failed(error, status)
    outcome.conditions.append(RESOLVED)
    return outcome


async def _apply(
    context: Context,
    index: VectorIndex,
    session: StoreSession,
    todo: Plan,
    description: IndexDescription | None,
) -> IndexDescription | None:
    """Do what the plan says, in order. The only place that changes a store for a VectorIndex, but for its deletion."""
    key = Key("VectorIndex", *index.key)
    store = session.store
    for action in todo.actions:
        _announce(context, key, action, todo.drift)
        match action:
            case CreateIndex(definition):
                try:
                    description = await store.create_index(definition)
                except Conflict:
                    # It came into being since we looked: look again and decide anew.
                    session.forget(definition.name)
                    raise Retryable(
                        f"index {definition.name} appeared while it was being made: looking again",
                        reason="AlreadyExists",
                        after=0.1,
                    ) from None
                session.note(description)
            case AdoptIndex(mark, fingerprint) | RestoreMark(mark, fingerprint):
                name = description.name if description else client_name(index)
                await store.set_mark(name, mark, fingerprint)
                description = await session.describe(name)
            case UpdateSettings(settings, new_fields):
                name = description.name if description else client_name(index)
                await store.update_index(name, settings, new_fields)
                description = await session.describe(name)
            case BuildIndex():
                name = description.name if description else client_name(index)
                await store.update_index(name, {})
                description = await session.describe(name)
            case PointAlias(alias, target):
                await store.set_alias(alias, target)
                session.aliases[alias] = target
    return description


def _announce(context: Context, key: Key, action: Action, drift: tuple[Drift, ...]) -> None:
    """Tell of an action before it is done: a log line, and an event where a person would want to know."""
    body = context.cache.get(*key)
    log.info("applying %s", type(action).__name__, extra={"action": type(action).__name__})
    if body is None:
        return
    subject = {**body, "kind": key.kind, "apiVersion": API_VERSION}
    match action:
        case CreateIndex(definition, recreate):
            if recreate:
                context.events.warning(
                    subject, "Recreating", f"index {definition.name} vanished from the store: making an empty one"
                )
            else:
                context.events.normal(
                    subject,
                    "Creating",
                    f"making index {definition.name} (dimension {definition.dimension}, {definition.metric})",
                )
        case AdoptIndex():
            context.events.normal(subject, "Adopted", "the index existed and fits the spec: taking it over")
        case RestoreMark():
            context.events.normal(
                subject, "MarkRestored", "writing the ownership mark and the model's fingerprint again"
            )
        case UpdateSettings():
            mended = ", ".join(f"{item.field} {item.observed} → {item.desired}" for item in drift if item.mended)
            context.events.normal(subject, "DriftCorrected", f"set in the store: {mended}")
        case BuildIndex():
            context.events.normal(
                subject, "Building", "there are enough vectors: building the vector index beside the traffic"
            )
        case PointAlias(alias, target):
            context.events.normal(subject, "AliasSet", f"alias {alias} points at {target}")
