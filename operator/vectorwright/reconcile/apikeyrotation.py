"""APIKeyRotation: one step of a rotation a pass, and between two rotations an eye on what is published.

What is done follows from what is remembered, in a private Secret, and from nothing else: the status may be wiped, the
operator killed after any call. Each step does one thing, remembers that it is done, and can be done again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from vectorwright.api.v1alpha1.apikeyrotation import APIKeyRotation, SecretRepairPolicy
from vectorwright.api.v1alpha1.common import ANNOTATION_RECONCILE, ANNOTATION_ROTATE, ConditionStatus
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.kube.status import ConditionState, utc_now
from vectorwright.rotation import schedule
from vectorwright.rotation.state import Step

from . import rotation_consumers, rotation_issue, rotation_retire
from .cache import Key
from .connections import Reference, remember_uses
from .context import Context
from .finalizers import Overtaken, add_finalizer
from .outcome import Outcome, failed
from .rotation_audit import tell
from .rotation_deletion import finalize
from .rotation_pass import RotationPass, begin
from .rotation_progress import Waiting
from .rotation_proof import is_dead
from .rotation_recovery import recover
from .rotation_report import conditions_of, count_attempts, measure, renewal_of, status_of

LONGEST_SLEEP = 600.0
"""Seconds after which the clock and the published key are looked at again: a clock may jump, a key be deleted by
hand."""
RETRY_STALLED = 60.0
"""Seconds after which what could not even begin is looked at again."""
_KEPT = (
    "strategy",
    "step",
    "secret",
    "revision",
    "current",
    "previous",
    "issuedAt",
    "notAfter",
    "renewalTime",
    "history",
    "pending",
    "revokeNotBefore",
    "lastVerification",
    "handledRequest",
)

_STEPS: Mapping[Step, Callable[[RotationPass], Awaitable[Waiting | None]]] = {
    Step.CREATE: rotation_issue.create,
    Step.VERIFY: rotation_issue.verify,
    Step.PUBLISH: rotation_issue.publish,
    Step.RESTART: rotation_consumers.restart_consumers,
    Step.WAIT: rotation_consumers.wait_for_consumers,
    Step.GRACE: rotation_retire.grace,
    Step.REVOKE: rotation_retire.revoke,
    Step.VERIFY_REFUSED: rotation_retire.verify_refused,
}
_UNPUBLISHED = (Step.CREATE, Step.VERIFY)
_PUBLISHED = (Step.RESTART, Step.WAIT, Step.GRACE, Step.REVOKE)


async def reconcile(context: Context, resource: APIKeyRotation) -> Outcome:
    """One pass."""
    key = Key("APIKeyRotation", *resource.key)
    if resource.deleting:
        return await finalize(context, key, resource)
    used: list[Reference] = []
    try:
        rotation = await begin(context, key, resource, used)
    except VectorwrightError as error:
        return _not_begun(resource, error)
    finally:
        remember_uses(context, key, used)
    before = rotation.state
    waiting: Waiting | None = None
    caught: VectorwrightError | None = None
    edited: list[str] = []
    try:
        edited = await _keep_published(rotation)
        waiting = await _advance(rotation, edited)
    except Overtaken:
        raise
    except VectorwrightError as error:
        caught = error
        # An effect of this pass may not be remembered: the next one reads what is.
    return _outcome(rotation, before.step, waiting, caught, edited)


def _not_begun(resource: APIKeyRotation, error: VectorwrightError) -> Outcome:
    """Something that every pass needs is missing: what was published stays as it is."""
    kept = {name: value for name, value in resource.status.dump().items() if name in _KEPT}
    outcome = failed(error, kept)
    ready = next((item for item in resource.status.conditions or () if item.type == "Ready"), None)
    valid = ready is not None and ready.status is ConditionStatus.TRUE
    outcome.conditions = [state for state in outcome.conditions if state.type in ("Stalled", "Reconciling")]
    expired = resource.status.not_after is not None and resource.status.not_after <= utc_now()
    if ready is not None and valid and not expired:
        outcome.conditions = [state for state in outcome.conditions if state.type != "Reconciling"]
        outcome.conditions.append(ConditionState("Ready", "True", ready.reason, ready.message))
    else:
        outcome.conditions.append(ConditionState("Ready", "False", error.reason, error.message))
    outcome.requeue_after = RETRY_STALLED
    return outcome


def _outcome(
    rotation: RotationPass, began: Step, waiting: Waiting | None, error: VectorwrightError | None, edited: list[str]
) -> Outcome:
    measure(rotation, waiting, error)
    status = status_of(rotation, waiting)
    again = count_attempts(rotation, status, error)
    if again is None:
        moved = rotation.state.step is not began
        again = waiting.after if waiting is not None else (0.0 if moved else _sleep(rotation))
    return Outcome(
        status, conditions_of(rotation, waiting, error, edited), requeue_after=min(again, LONGEST_SLEEP), error=error
    )


def _sleep(rotation: RotationPass) -> float:
    """Seconds until something is due."""
    due = renewal_of(rotation)
    return max(0.0, (due - rotation.now).total_seconds()) if due is not None else LONGEST_SLEEP


async def _advance(rotation: RotationPass, edited: list[str]) -> Waiting | None:
    """Do the next step. None when it was done, or when nothing is due."""
    state = rotation.state
    if rotation.context.settings.read_only:
        return _read_only(rotation)
    schedule.check(rotation.resource.spec, rotation.traits)
    await add_finalizer(rotation.context, rotation.key, rotation.resource.metadata)
    if rotation.memory.version is None or rotation.memory.damaged:
        await recover(rotation)
        return None
    await _look_at_clock(rotation)
    state = rotation.state
    if state.step is Step.IDLE:
        reason = await _due(rotation)
        if reason is not None:
            await rotation_issue.plan(rotation, reason)
        return None
    if state.step in _UNPUBLISHED and state.drafted_for != rotation.identity:
        await rotation_issue.redraft(rotation)
        return None
    if edited and state.step in _PUBLISHED:
        return Waiting(f"{rotation.publication}, which was edited, to hold the new key again", 60.0)
    if state.step in _PUBLISHED and _expires_meanwhile(rotation):
        await rotation_issue.plan(rotation, "Expiry")
        return None
    return await _STEPS[state.step](rotation)


def _expires_meanwhile(rotation: RotationPass) -> bool:
    """Whether the published key has to be replaced although the rotation that published it is not through: consumers
    that are waited for must not cost the others their key. Only where there is none before it that could be revoked."""
    state, due = rotation.state, renewal_of(rotation)
    if state.current is None or state.current.not_after is None or due is None or due > rotation.now:
        return False
    previous = state.previous
    if previous is None or not rotation.traits.revocable:
        return True
    return not previous.usable(rotation.now)


def _read_only(rotation: RotationPass) -> Waiting | None:
    if rotation.state.step is Step.IDLE and rotation.state.current is not None:
        return None
    return Waiting("an operator that may change something: this one runs with --read-only", LONGEST_SLEEP)


async def _due(rotation: RotationPass) -> str | None:
    """Why a key is to be issued now, if it is. Raises Terminal, Retryable."""
    request = rotation.resource.metadata.annotations.get(ANNOTATION_ROTATE)
    requested = request is not None and request != rotation.state.handled_request
    if await _is_refused(rotation):
        if rotation.state.endpoint not in ("", rotation.endpoint) and not requested:
            raise Terminal(
                f"VectorStore {rotation.resource.spec.store_ref.name} has another address than when the key was made, "
                f"and it is refused there: point it back, or have a new key made there with {ANNOTATION_ROTATE} (the "
                "one at the old address is then yours to revoke)",
                reason="StoreChanged",
            )
        return "KeyRefused"
    return schedule.due(rotation.resource.spec, rotation.state, rotation.identity, request, rotation.now)


async def _is_refused(rotation: RotationPass) -> bool:
    """Whether the store refuses the published key: somebody deleted it there. Asked now and then, and on request."""
    current, seen = rotation.state.current, rotation.context.keys_seen.get(rotation.key)
    if current is None or current.material is None or not rotation.traits.provable:
        return False
    request = rotation.resource.metadata.annotations.get(ANNOTATION_RECONCILE)
    requested = request is not None and request != rotation.resource.status.last_handled_reconcile_at
    recent = seen is not None and seen[0] == current.label and rotation.now - seen[1] < timedelta(seconds=LONGEST_SLEEP)
    if recent and not requested and rotation.key not in rotation.context.keys_refused:
        return False
    try:
        return await is_dead(rotation, current)
    except Retryable as error:
        if error.reason == "CurrentKeyRefused":
            raise
        return False  # a store that does not answer says nothing of the key


async def _look_at_clock(rotation: RotationPass) -> None:
    """A key from the future tells of a clock that went back: its age is counted from now, or it would grow too old, and
    a step that began in the future would wait for it."""
    state, now, most = rotation.state, rotation.now, rotation.now + schedule.CLOCK_TOLERANCE
    changed = state
    if state.current is not None and state.current.issued_at > most:
        changed = replace(changed, current=replace(state.current, issued_at=now.replace(microsecond=0)))
    if state.step_since is not None and state.step_since > most:
        changed = replace(changed, step_since=now)
    published = state.record.published_at if state.record is not None else None
    if published is not None and published > most:
        changed = changed.noted(published_at=now)
    if changed is not state:
        await rotation.save(changed)


async def _keep_published(rotation: RotationPass) -> list[str]:
    """Make a deleted Secret again, and repair an edited one. Returns what stays edited. Raises Terminal, Retryable."""
    filling = rotation.filling
    if filling is None or rotation.state.step is Step.PUBLISH or not rotation.state.published:
        return []
    if rotation.context.settings.read_only:
        return rotation.publication.differences(filling)
    gone = rotation.publication.body is None
    differences = rotation.publication.differences(filling)
    if differences:  # unless another process published meanwhile, for what it remembers
        await rotation.memory.require_unchanged()
    repair = rotation.resource.spec.secret.repair_policy is not SecretRepairPolicy.LEAVE
    if rotation.state.step in _PUBLISHED and rotation.publication.data_differs(filling):
        await _begin_anew(rotation)
    if not gone and not repair:
        return differences
    if await rotation.publication.publish(filling):
        if gone:
            tell(rotation, "SecretRecreated", f"{rotation.publication} was deleted and was made again", warning=True)
        else:
            tell(rotation, "SecretRepaired", f"{rotation.publication} was put right: {', '.join(differences[:5])}")
    return []


async def _begin_anew(rotation: RotationPass) -> None:
    """The Secret held something else while the key before lives: what started meanwhile may have started with that, so
    consumers are restarted, and waited for, as after a publication."""
    state = rotation.state
    if state.record is not None and state.record.published_at is not None:
        begun = state.at(Step.RESTART, rotation.now, republished=state.republished + 1)
        await rotation.save(begun.noted(published_at=None))
