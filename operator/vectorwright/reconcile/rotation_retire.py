"""Grace, Revoke, VerifyRefused: when no consumer can hold the old key any more it ends, and is seen to have ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vectorwright.api.v1alpha1.apikeyrotation import RevokePolicy, confirmation
from vectorwright.api.v1alpha1.common import ANNOTATION_CONFIRM_REVOKE
from vectorwright.errors import Retryable, Terminal
from vectorwright.rotation import schedule
from vectorwright.rotation.state import KeyRecord, Step, Verification

from .rotation_audit import tell
from .rotation_consumers import wait_for_holders
from .rotation_issue import replace_dead
from .rotation_pass import RotationPass
from .rotation_progress import Waiting, current_key, finish, in_progress, length_text, pace
from .rotation_proof import is_dead

REFUSAL_TIMEOUT = timedelta(minutes=5)
"""As `spec.refusalTimeout` says when it is left out."""
CONFIRMATION_DELAY = 300.0
"""Seconds between two looks while a person is waited for; the annotation itself wakes at once."""


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
    state, current = rotation.state, current_key(rotation.state)
    previous = state.previous
    if previous is None:
        await finish(rotation)
        return None
    if not rotation.traits.revocable:
        await rotation.save(state.at(Step.VERIFY_REFUSED, rotation.now))
        return None
    if await is_dead(rotation, current):
        await replace_dead(rotation, current)
        return None
    if _unconfirmed(rotation, previous):
        said = f"{ANNOTATION_CONFIRM_REVOKE}={_word(rotation, previous)}"
        return Waiting(f"confirmation: annotate with {said} to have that key revoked", CONFIRMATION_DELAY)
    if waiting := await wait_for_holders(rotation):
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
    """Whether a person's word is missing. A key that has expired, or that the store refuses, needs none."""
    if previous.dead:
        return False
    policy = rotation.resource.spec.revoke_policy or RevokePolicy.CONFIRM_FIRST
    if policy is RevokePolicy.AUTOMATIC or (policy is RevokePolicy.CONFIRM_FIRST and rotation.state.revocations > 0):
        return False
    if previous.expired(rotation.now):
        return False
    said = rotation.resource.metadata.annotations.get(ANNOTATION_CONFIRM_REVOKE)
    return said not in (_word(rotation, previous), confirmation(previous.id, previous.revision))


def _word(rotation: RotationPass, previous: KeyRecord) -> str:
    """What a person says about a key: its id, and its revision where identities take turns and ids come again."""
    name_of = rotation.issuer.name_of
    recurs = name_of(1) in (name_of(2), name_of(3))
    return confirmation(previous.id, previous.revision) if recurs else previous.id


async def verify_refused(rotation: RotationPass) -> Waiting | None:
    """See that the key before is refused, by the very call that the new one makes; then sweep and be done."""
    state, current = rotation.state, current_key(rotation.state)
    previous = state.previous
    if previous is None:
        await finish(rotation)
        return None
    if not rotation.traits.provable or previous.material is None:
        # In place the one identity lives on, under another key.
        if rotation.traits.overlaps and previous.id in {key.id for key in await rotation.issuer.live()}:
            return await _still_accepted(rotation, previous, "is still known to the store")
        result = "NotProvable"
    else:
        if await is_dead(rotation, current):
            await replace_dead(rotation, current)
            return None
        if await rotation.issuer.accepts(previous.material):
            return await _still_accepted(rotation, previous, "is still accepted")
        result = "Refused"
    await _sweep(rotation, current)
    proved = replace(state, verification=Verification(rotation.now, previous.id, result)).noted(
        refused_at=rotation.now if result == "Refused" else None, revoked_key_id=previous.id
    )
    await finish(rotation, proved)
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
        f"key {previous.id} {how}, {length_text(rotation.now - since)} after its revocation: it was revoked once more; "
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
