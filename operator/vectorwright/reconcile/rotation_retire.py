"""The second half of a rotation: Restart, Wait, Grace, Revoke, VerifyRefused. Consumers move to the new key, and only
when none of them can hold the old one any more does that one end, and is seen to have ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vectorwright.api.v1alpha1.apikeyrotation import RevokePolicy
from vectorwright.api.v1alpha1.common import ANNOTATION_CONFIRM_REVOKE
from vectorwright.errors import Retryable, Terminal
from vectorwright.kube.rollout import progress
from vectorwright.kube.secret_users import holders
from vectorwright.kube.workloads import WorkloadName, find_workloads, name_of, refusal, restart
from vectorwright.observability import metrics
from vectorwright.rotation import schedule
from vectorwright.rotation.state import KeyRecord, RotationState, Step, Verification

from .rotation_audit import tell
from .rotation_issue import REMAKE_AFTER, Waiting, in_progress, pace, replace_dead
from .rotation_pass import RotationPass

ROLLOUT_TIMEOUT = timedelta(minutes=15)
"""As `spec.rolloutTimeout` says when it is left out: beyond the ten minutes of a Deployment's own deadline."""
REFUSAL_TIMEOUT = timedelta(minutes=5)
SETTLING = timedelta(seconds=2)
"""Between publication and restart: a node that watches the Secret for other pods hears of its new value a moment later,
and a pod that started meanwhile would start with the old one."""
WAIT_DELAYS = (0.2, 15.0)
"""Seconds between two looks at workloads and pods."""
REVERTED_DELAY = 10.0
"""Seconds before a restart that somebody took back is looked at again: two writers that undo each other's work at once
would replace pods without end."""
CONFIRMATION_DELAY = 300.0
"""Seconds between two looks while a person is waited for; the annotation itself wakes at once."""
MOST_NAMED = 3


async def restart_consumers(rotation: RotationPass) -> Waiting | None:
    """Restart the workloads that the spec names. The same key restarts none of them twice."""
    current, since = _current(rotation.state), rotation.state.step_since or rotation.now
    if rotation.targets and rotation.now - since < SETTLING:
        return Waiting("the new key to reach the nodes", (SETTLING - (rotation.now - since)).total_seconds())
    names, restarted = await _restart(rotation)
    await rotation.save(rotation.state.at(Step.WAIT, rotation.now, restarted=_texts(names)))
    _tell_restarted(rotation, current, _texts(restarted))
    return None


async def _restart(rotation: RotationPass) -> tuple[list[WorkloadName], list[WorkloadName]]:
    """Restart what was not restarted for this key. Returns all targets, and those to which something was sent.

    Raises Terminal (``RestartTargetRefused`` before any of them is touched), Retryable.
    """
    workloads = await find_workloads(rotation.context.client, rotation.targets)
    for workload in workloads:
        if told := refusal(workload):
            raise Terminal(told, reason="RestartTargetRefused")
    restarted = [
        name_of(workload) for workload in workloads if await restart(rotation.context.client, workload, rotation.label)
    ]
    return [name_of(workload) for workload in workloads], restarted


def _texts(names: list[WorkloadName]) -> tuple[str, ...]:
    return tuple(map(str, names))


def _tell_restarted(rotation: RotationPass, current: KeyRecord, names: tuple[str, ...]) -> None:
    if names:
        tell(rotation, "ConsumersRestarted", f"restarted for key {current.id}: {_some(list(names))}")


async def wait_for_consumers(rotation: RotationPass) -> Waiting | None:
    """Wait until no pod of the old template is left, and none that is older than the new key uses the Secret."""
    state, current = rotation.state, _current(rotation.state)
    previous = state.previous
    names, reverted = await _restart_again(rotation, current)
    state = rotation.state
    for name in names:
        if waiting := await _rollout(rotation, name):
            return replace(waiting, after=max(waiting.after, REVERTED_DELAY)) if reverted else waiting
    if previous is None:
        await _finish(rotation)
        return None
    if not rotation.traits.overlaps:
        await rotation.save(state.at(Step.VERIFY_REFUSED, rotation.now))
        return None
    if waiting := await _holders(rotation):
        return waiting
    if not rotation.traits.known_before_publication and rotation.traits.provable:
        material = current.material
        if material is None or not await rotation.issuer.accepts(material):
            return Waiting(f"key {current.id} is not accepted yet by what checks it", pace(rotation, WAIT_DELAYS))
        state = replace(state, verification=Verification(rotation.now, current.id, "Accepted"))
    await rotation.save(state.at(Step.GRACE, rotation.now))
    tell(rotation, "ConsumersMoved", f"no pod is left that could still hold key {previous.id}")
    return None


async def _restart_again(rotation: RotationPass, current: KeyRecord) -> tuple[list[WorkloadName], bool]:
    """Restart targets that are new, and those whose restart somebody took back. Returns all, and whether there were
    any of the latter. Raises Terminal, Retryable."""
    names, restarted = await _restart(rotation)
    known = set(rotation.state.restarted)
    new = tuple(name for name in _texts(restarted) if name not in known)
    if set(_texts(names)) - known:
        # The time that a rollout may take begins anew.
        await rotation.save(rotation.state.at(Step.WAIT, rotation.now, restarted=_texts(names)))
        _tell_restarted(rotation, current, new)
    reverted = [name for name in _texts(restarted) if name in known]
    for name in reverted:
        tell(
            rotation,
            "RestartReverted",
            f"{name} was restarted again: somebody took the annotation of its pod template away",
            warning=True,
        )
    return names, bool(reverted)


async def _rollout(rotation: RotationPass, name: WorkloadName) -> Waiting | None:
    """What a rollout still waits for. Raises Terminal (``RolloutFailed``, ``RolloutTimeout``): nothing is revoked."""
    seen = await progress(rotation.context.client, name, rotation.label)
    if seen.done:
        return None
    if seen.failed:
        raise Terminal(f"{seen.failed}; the key before stays valid until this is through", reason="RolloutFailed")
    since = rotation.state.step_since or rotation.now
    allowed = schedule.duration(rotation.resource.spec.rollout_timeout) or ROLLOUT_TIMEOUT
    if rotation.now - since > allowed:
        raise Terminal(
            f"{seen.message}; this takes longer than {_length(allowed)}: the key before stays valid meanwhile",
            reason="RolloutTimeout",
        )
    return Waiting(seen.message, pace(rotation, WAIT_DELAYS))


async def _holders(rotation: RotationPass) -> Waiting | None:
    """Pods that started before the key was published and use the Secret, by name."""
    record = rotation.state.record
    published = (record.published_at if record else None) or rotation.publication.published_at
    found = await holders(
        rotation.context.client,
        rotation.publication.namespace,
        rotation.publication.spec.name,
        published,
        rotation.label,
    )
    if not found:
        return None
    named = _some([str(holder) for holder in found])
    return Waiting(f"older than the new key and still using the Secret: {named}", pace(rotation, WAIT_DELAYS))


async def grace(rotation: RotationPass) -> Waiting | None:
    """Let the overlap pass."""
    until = schedule.revocable_from(rotation.resource.spec, rotation.traits, rotation.state)
    if until is not None and rotation.now < until:
        left = (until - rotation.now).total_seconds()
        return Waiting(f"the overlap, until {until:%Y-%m-%dT%H:%M:%SZ}", left)
    await rotation.save(rotation.state.at(Step.REVOKE, rotation.now))
    return None


async def revoke(rotation: RotationPass) -> Waiting | None:
    """End the key before: after a person's word where that is asked for, and a last look at what could still need
    it."""
    state, current = rotation.state, _current(rotation.state)
    previous = state.previous
    if previous is None:
        await _finish(rotation)
        return None
    if not rotation.traits.revocable:
        await rotation.save(state.at(Step.VERIFY_REFUSED, rotation.now))
        return None
    if await _is_dead(rotation, current):
        return None
    if _unconfirmed(rotation, previous):
        return Waiting(
            f"confirmation: annotate with {ANNOTATION_CONFIRM_REVOKE}={previous.id} to have that key revoked",
            CONFIRMATION_DELAY,
        )
    if waiting := await _holders(rotation):
        return waiting
    await rotation.memory.require_unchanged()
    try:
        await rotation.issuer.revoke(previous.live)
    except Retryable as error:
        return in_progress(error)
    await rotation.publication.publish(rotation.filled(replace(state, previous=None)))
    await rotation.save(
        state.at(Step.VERIFY_REFUSED, rotation.now, revocations=state.revocations + 1).noted(
            revoked_key_id=previous.id, revoked_at=rotation.now
        )
    )
    tell(rotation, "KeyRevoked", f"key {previous.id} was revoked")
    return None


def _unconfirmed(rotation: RotationPass, previous: KeyRecord) -> bool:
    """Whether a person's word is missing. A key that has expired needs none."""
    policy = rotation.resource.spec.revoke_policy or RevokePolicy.CONFIRM_FIRST
    if policy is RevokePolicy.AUTOMATIC or (policy is RevokePolicy.CONFIRM_FIRST and rotation.state.revocations > 0):
        return False
    if previous.not_after is not None and previous.not_after < rotation.now:
        return False
    return rotation.resource.metadata.annotations.get(ANNOTATION_CONFIRM_REVOKE) != previous.id


async def _is_dead(rotation: RotationPass, current: KeyRecord) -> bool:
    """Whether the published key is refused, and another one is to be made. The one before lives on.

    Raises Retryable (``CurrentKeyRefused``) until that is certain.
    """
    if not rotation.traits.provable or current.material is None or await rotation.issuer.accepts(current.material):
        return False
    if rotation.now - (rotation.state.step_since or rotation.now) > REMAKE_AFTER:
        await replace_dead(rotation, current)
        return True
    raise Retryable(
        f"the store refuses key {current.id}, which is published: nothing is revoked; unless it is accepted soon, "
        "another one is made",
        reason="CurrentKeyRefused",
        after=min(10.0, REMAKE_AFTER.total_seconds()),
    )


async def verify_refused(rotation: RotationPass) -> Waiting | None:
    """See that the key before is refused, by the very call that the new one makes; then sweep and be done."""
    state, current = rotation.state, _current(rotation.state)
    previous = state.previous
    if previous is None:
        await _finish(rotation)
        return None
    if not rotation.traits.provable or previous.material is None:
        # In place the one identity lives on, under another key.
        if rotation.traits.overlaps and previous.id in {key.id for key in await rotation.issuer.live()}:
            return await _still_accepted(rotation, previous, "is still known to the store")
        result = "NotProvable"
    else:
        if await _is_dead(rotation, current):
            return None
        if await rotation.issuer.accepts(previous.material):
            return await _still_accepted(rotation, previous, "is still accepted")
        result = "Refused"
    await _sweep(rotation, current)
    proved = replace(state, verification=Verification(rotation.now, previous.id, result)).noted(
        refused_at=rotation.now if result == "Refused" else None, revoked_key_id=previous.id
    )
    await _finish(rotation, proved)
    return None


async def _still_accepted(rotation: RotationPass, previous: KeyRecord, how: str) -> Waiting:
    """A key that was revoked takes a while to die. Raises Terminal (``OldKeyStillAccepted``) when it takes too long."""
    record = rotation.state.record
    since = (record.revoked_at if record else None) or rotation.state.step_since or rotation.now
    allowed = schedule.duration(rotation.resource.spec.refusal_timeout) or REFUSAL_TIMEOUT
    if rotation.now - since <= allowed:
        return Waiting(f"key {previous.id} {how}", pace(rotation))
    if rotation.traits.revocable and rotation.traits.overlaps:
        await rotation.issuer.revoke(previous.live)
    rotation.state = replace(rotation.state, verification=Verification(rotation.now, previous.id, "StillAccepted"))
    raise Terminal(
        f"key {previous.id} {how}, {_length(rotation.now - since)} after its revocation: it was revoked once more; "
        "look at the store, and at whether it checks keys at all",
        reason="OldKeyStillAccepted",
    )


async def _sweep(rotation: RotationPass, current: KeyRecord) -> None:
    """End what attempts left at the store that were lost. Only keys that carry this resource's name."""
    if not (rotation.traits.revocable and rotation.traits.overlaps):
        return
    for key in await rotation.issuer.live():
        # One of a later revision is of another process, which has gone on meanwhile.
        if key.id != current.id and (key.revision or 0) <= rotation.state.revision:
            await rotation.memory.require_unchanged()
            await rotation.issuer.revoke(key)
            tell(rotation, "OrphanRevoked", f"key {key.id}, made by an attempt that was lost, was revoked")


async def _finish(rotation: RotationPass, state: RotationState | None = None) -> None:
    """The rotation is through."""
    done = state or rotation.state
    await rotation.save(done.finished(rotation.now))
    metrics.KEY_ROTATIONS.inc(*rotation.resource.key, result="success")
    last = rotation.state.history[0] if rotation.state.history else None
    ended = f"; key {last.revoked_key_id} is refused" if last is not None and last.refused_at else ""
    tell(rotation, "KeyRotated", f"key {_current(done).id} is in use{ended}")


def _current(state: RotationState) -> KeyRecord:
    if state.current is None:
        raise Terminal("the key that is published was forgotten", reason="StateDamaged")
    return state.current


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _length(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
