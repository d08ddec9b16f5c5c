"""The status of a VectorIndex that was observed."""

from __future__ import annotations

from vectorwright.api.v1alpha1.vectorindex import VectorIndex
from vectorwright.errors import NotFound, Retryable
from vectorwright.kube.status import ConditionState
from vectorwright.observability import metrics
from vectorwright.stores.base import ChangeClass, IndexDescription

from .cache import Key
from .context import Context
from .index_plan import AdoptIndex, CreateIndex, DesiredIndex, Drift, Plan
from .index_references import References
from .outcome import Outcome, Status, waiting_conditions
from .sessions import StoreSession

RESOLVED = ConditionState("ReferencesResolved", "True", "Resolved", "all references are ready")
MOST_DRIFT = 20
"""Differences listed in a status; their number is told whole."""


async def report(
    context: Context,
    index: VectorIndex,
    *,
    references: References,
    desired: DesiredIndex,
    todo: Plan,
    description: IndexDescription | None,
    status: Status,
) -> Outcome:
    """The status of an index that was observed and, where the plan said so, changed. Raises what counting raises."""
    status.update(
        store=index.spec.store_ref.name,
        provider=references.provider,
        indexName=desired.name,
        physicalName=desired.definition.name,
    )
    if references.model is not None:
        status["model"] = references.model
    if description is None:
        message = (
            f"index {desired.definition.name} does not exist in VectorStore {index.spec.store_ref.name}, and this "
            f"{'installation is read-only' if context.settings.read_only else 'resource only observes'}"
        )
        return Outcome(status, [*waiting_conditions("IndexNotFound", message), RESOLVED])
    created = any(isinstance(action, CreateIndex) for action in todo.actions)
    vectors, exact = await _vectors(references.session, description, created=created)
    pending = [item for item in todo.drift if not item.mended]
    status.update(
        dimension=description.dimension or desired.definition.dimension,
        metric=description.metric or desired.definition.metric,
        modelFingerprint=description.model_fingerprint,
        incarnation=description.incarnation,
        backendId=references.session.info.backend_id,
        vectors=vectors,
        vectorsExact=exact,
        adopted=_adopted(index, desired, todo),
        driftedFields=len(pending),
    )
    if pending:
        status["drift"] = [
            {
                "field": item.field,
                "desired": item.desired,
                "observed": item.observed,
                "class": item.change_class.value,
            }
            for item in pending[:MOST_DRIFT]
        ]
    if (fresh := last_ingested(context, Key("VectorIndex", *index.key))) is not None:
        status["lastIngestedAt"] = max(fresh, str(status.get("lastIngestedAt") or ""))
    metrics.INDEX_VECTORS.set(*index.key, vectors, store=index.spec.store_ref.name)
    metrics.DRIFT_FIELDS.set(*index.key, len(pending), store=index.spec.store_ref.name)
    return Outcome(status, [*_conditions(vectors, exact, pending, managed=desired.may_change), RESOLVED])


def _adopted(index: VectorIndex, desired: DesiredIndex, todo: Plan) -> bool | None:
    """Whether our index was there before; None for one that was never ours, but only observed."""
    if not desired.may_change:
        return index.status.adopted
    return bool(index.status.adopted) or any(isinstance(action, AdoptIndex) for action in todo.actions)


async def _vectors(session: StoreSession, description: IndexDescription, *, created: bool) -> tuple[int, bool]:
    """Number of vectors, and whether it is exact."""
    if description.count is not None:
        return description.count, description.count_exact
    if created:
        return 0, True
    try:
        held = await session.store.statistics(description.name)
    except NotFound:
        raise Retryable(f"index {description.name} vanished while it was counted", reason="IndexVanished") from None
    return held.count, held.exact


def _conditions(vectors: int, exact: bool, pending: list[Drift], *, managed: bool) -> list[ConditionState]:
    message = f"{vectors} vectors" if exact else f"about {vectors} vectors"
    conditions = [ConditionState("Ready", "True", "Ready", message)]
    if not pending:
        conditions.append(ConditionState("Synced", "True", "ReconcileSuccess", "the store equals the spec"))
        return conditions
    told = "; ".join(
        f"{item.field} is {item.observed}, the spec says {item.desired} ({_remedy(item, managed=managed)})"
        for item in pending
    )
    conditions.append(ConditionState("Synced", "False", "Drifted", told))
    conditions.append(ConditionState("Drifted", "True", "Drifted", told))
    return conditions


def _remedy(item: Drift, *, managed: bool) -> str:
    if item.change_class is ChangeClass.IMMUTABLE:
        return "fixed at creation: make a new VectorIndex"
    if not managed:
        return "not managed here"
    return f"{item.change_class.value}: set spec.updatePolicy: {item.change_class.value} to have it done"


def last_ingested(context: Context, index: Key) -> str | None:
    """When an ingestion into an index last succeeded, by the IngestionJobs that there are; RFC 3339."""
    moments = [
        body.get("status", {}).get("lastSuccessAt")
        for body in context.cache.all("IngestionJob", index.namespace)
        if body.get("spec", {}).get("indexRef", {}).get("name") == index.name
    ]
    return max((moment for moment in moments if moment), default=None)
