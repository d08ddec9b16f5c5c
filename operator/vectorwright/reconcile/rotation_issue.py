"""The first half of a rotation: Plan, Create, Verify, Publish. Until Publish nobody but us knows the new key."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import datetime, timedelta

from vectorwright.api.v1alpha1.common import ANNOTATION_ROTATE
from vectorwright.errors import Retryable, Terminal
from vectorwright.kube.status import utc_now
from vectorwright.rotation import schedule
from vectorwright.rotation.base import KeyMaterial, KeyRequest
from vectorwright.rotation.passwords import random_token
from vectorwright.rotation.state import KeyRecord, Record, RotationState, Step, Verification

from .rotation_audit import tell
from .rotation_consumers import fitting_workloads
from .rotation_pass import RotationPass
from .rotation_progress import Waiting, in_progress, pace, pending_key

VERIFY_PATIENCE = timedelta(minutes=5)
"""For which a store may refuse a key that it just made: Pinecone's keys take seconds to be known everywhere."""
REMAKE_AFTER = timedelta(seconds=30)
"""A key that is refused for so long after its making is made again, twice at most."""
MOST_REMADE = 2
CLAIM = timedelta(seconds=5)
"""For which a process that began to make a key is left to it, unless it is known to be gone."""


async def plan(rotation: RotationPass, reason: str) -> None:
    """Look at everything that the rotation needs before anything is made, then decide on the key's name and value.

    Raises Terminal (the Secret, a workload, the admin's rights), Retryable.
    """
    state, issuer = rotation.state, rotation.issuer
    rotation.publication.check()
    if state.current is not None and reason == "KeyRefused":
        # Another one may take its name.
        rotation.state = state = replace(state, current=replace(state.current, dead=True))
    # A key whose value was lost has to be replaced, whoever moves.
    await fitting_workloads(rotation, state.current if reason != "KeyLost" else None)
    await issuer.check()
    revision, previous = await _place(rotation)
    pending = drafted(rotation, revision)
    # What could not be published must not be made: in place, the key before would be gone.
    rehearsed = replace(pending, material=pending.material or _stand_in())
    await rotation.publication.publish(
        rotation.filled(replace(state, current=rehearsed, previous=None)), rehearsal=True
    )
    request = rotation.resource.metadata.annotations.get(ANNOTATION_ROTATE)
    begun = replace(
        _begun(rotation, revision, pending, reason),
        previous=previous,
        handled_request=request or state.handled_request,
    )
    if rotation.publication.body is not None and not rotation.publication.ours:
        tell(
            rotation,
            "PreviousKeyUnknown",
            f"{rotation.publication} is taken over: the key that it holds was not made here, so it is yours to revoke",
            warning=True,
        )
    await rotation.save(begun)
    tell(rotation, "RotationStarted", f"key {pending.name} is to be issued ({reason})")


def _begun(rotation: RotationPass, revision: int, pending: KeyRecord, reason: str) -> RotationState:
    """What is remembered from now on: this key is to be made. What the last rotation did is history."""
    state = rotation.state
    return state.at(
        Step.CREATE,
        rotation.now,
        revision=revision,
        pending=pending,
        drafted_for=rotation.identity,
        record=Record(revision, pending.id, reason, rotation.now),
        history=state.finished(rotation.now).history,
        remade=0,
    )


def _stand_in() -> KeyMaterial:
    """In place of a value that the store will make."""
    return KeyMaterial(token=random_token(), username="user", password=random_token())


async def _place(rotation: RotationPass) -> tuple[int, KeyRecord | None]:
    """The number of the next key, and what it replaces besides the current one. Its name must be free at the store.

    A key that lives at the store, carries this resource's name and is not the current one may still be in use: it is
    never overwritten, and goes the way of a replaced key. Raises Terminal (``NoFreeIdentity``), Retryable.
    """
    state, issuer = rotation.state, rotation.issuer
    current = state.current
    live = await issuer.live() if issuer.traits.overlaps else []
    # The store may have later ones than are remembered: a backup was restored.
    revision = max([state.revision, *(key.revision or 0 for key in live)]) + 1
    # The name of a key that is dead, or whose value nobody knows, is free unless the store has it.
    known = current is not None and current.material is not None and not current.dead
    taken = {key.name for key in live} | ({current.name} if current is not None and known else set())
    if issuer.traits.overlaps and issuer.name_of(revision) in taken:
        revision += 1
        if issuer.name_of(revision) in taken:
            raise Terminal(
                f"both identities that take turns are in use ({issuer.name_of(revision - 1)} and "
                f"{issuer.name_of(revision)}), and which one is, is not remembered: delete at the store the one that "
                "nobody uses",
                reason="NoFreeIdentity",
            )
    if current is not None and (known or current.id in {key.id for key in live}):
        return revision, None
    if current is None and (adopted := _adopted(rotation)) is not None:
        return revision, adopted
    if current is None and (handed_over := await issuer.predecessor()) is not None:
        first = KeyRecord(0, handed_over.id, handed_over.id, rotation.now, None, handed_over.material, made=True)
        return revision, first
    if live:
        last = max(live, key=lambda key: key.revision or 0)
        return revision, KeyRecord(last.revision or 0, last.id, last.name, rotation.now, made=True)
    return revision, None


def _adopted(rotation: RotationPass) -> KeyRecord | None:
    """The token in a Secret that is taken over, where what checks tokens reads it from there: it lives on meanwhile."""
    publication = rotation.publication
    if rotation.traits.known_before_publication or publication.ours:
        return None
    material = publication.found()
    return KeyRecord(0, "adopted", "adopted", rotation.now, None, material, made=True) if material is not None else None


def drafted(rotation: RotationPass, revision: int) -> KeyRecord:
    """The key of a revision as it is to be made."""
    now, issuer = utc_now(), rotation.issuer
    name = issuer.name_of(revision)
    not_after = _expiry(rotation, now)
    record = KeyRecord(revision, name, name, now, not_after)
    return replace(record, material=issuer.draft(_request(rotation, record))) if issuer.traits.generates else record


def _expiry(rotation: RotationPass, now: datetime) -> datetime | None:
    """When the new key is to expire. The rotation after this one waits until a key that cannot be revoked has expired:
    where that takes long, the new one lives longer, or nobody would have a valid one. Raises Terminal."""
    traits, current = rotation.traits, rotation.state.current
    not_after = schedule.expiry(rotation.resource.spec, traits, now)
    if not_after is None or traits.revocable or current is None or current.not_after is None:
        return not_after
    ended = current.not_after + timedelta(seconds=traits.leeway)
    return max(not_after, ended + (not_after - now) * schedule.RENEW_FRACTION)


def _request(rotation: RotationPass, pending: KeyRecord) -> KeyRequest:
    current = rotation.state.current
    return KeyRequest(
        revision=pending.revision,
        name=pending.name,
        issued_at=pending.issued_at,
        not_after=pending.not_after,
        draft=pending.material if rotation.traits.generates else None,
        current=current.material if current is not None and not current.dead else None,
    )


async def redraft(rotation: RotationPass, *, remade: int = 0) -> None:
    """Nobody has the key that is being made, so it is made once more: for what the spec says now, or because the store
    refuses it."""
    state = rotation.state
    await rotation.save(
        state.at(
            Step.CREATE,
            rotation.now,
            pending=drafted(rotation, state.revision),
            drafted_for=rotation.identity,
            remade=remade,
        )
    )


async def replace_dead(rotation: RotationPass, current: KeyRecord) -> None:
    """The store refuses the key that is published, for good: another one is made at once. What it replaced lives on.

    It never takes the name of a key that lives: only identities that take turns make the dead one's anew.
    """
    state = rotation.state
    revision = state.revision + 1
    if state.previous is not None and rotation.issuer.name_of(revision) == state.previous.name:
        revision += 1
    rotation.state = replace(state, current=replace(current, dead=True))
    pending = drafted(rotation, revision)
    await rotation.save(_begun(rotation, revision, pending, "KeyRefused"))
    tell(
        rotation,
        "KeyMadeAgain",
        f"the store refuses key {current.id}, which is published: key {pending.name} is made in its place",
        warning=True,
    )


async def create(rotation: RotationPass) -> Waiting | None:
    """Have the key made. Its value is remembered before anything else happens."""
    pending = pending_key(rotation.state)
    if not rotation.traits.generates:
        if waiting := await _claim(rotation):
            return waiting
    else:
        await rotation.memory.require_unchanged()
    try:
        issued = await rotation.issuer.create(_request(rotation, pending))
    except Retryable as error:
        return in_progress(error)
    made = replace(
        pending,
        id=issued.id,
        not_after=issued.not_after or pending.not_after,
        material=issued.material,
        made=True,
    )
    made_now = rotation.state.at(Step.VERIFY, rotation.now, pending=made, maker=None, claimed_at=None)
    await rotation.save(made_now.noted(key_id=made.id))
    tell(rotation, "KeyCreated", f"key {made.id} was made")
    return None


async def _claim(rotation: RotationPass) -> Waiting | None:
    """Say that this process makes the key: another one that did so too would end it, even after it was published.

    The lease of the operator sees to that as a rule; this does where there is none, or two operators. Raises Retryable.
    """
    state, me = rotation.state, f"{socket.gethostname()}/{os.getpid()}"
    if state.maker not in (None, me) and state.claimed_at is not None:
        left = CLAIM - abs(rotation.now - state.claimed_at)
        if left > timedelta():
            return Waiting("another process, which may be making the key at this moment", left.total_seconds())
    if state.maker == me and state.claimed_at is not None and abs(rotation.now - state.claimed_at) < CLAIM / 2:
        # Each write of what is remembered wakes this resource: a store that fails would be asked without a pause.
        await rotation.memory.require_unchanged()
        return None
    await rotation.save(replace(state, maker=me, claimed_at=rotation.now))
    return None


async def verify(rotation: RotationPass) -> Waiting | None:
    """Show the new key to the store, before anybody depends on it."""
    pending, traits, state = rotation.state.pending, rotation.traits, rotation.state
    if pending is None or pending.material is None:
        raise Terminal("the key that is to be proved was forgotten", reason="StateDamaged")
    if traits.provable and traits.known_before_publication:
        if not await rotation.issuer.accepts(pending.material):
            return await _refused(rotation, pending)
        state = replace(state, verification=Verification(rotation.now, pending.id, "Accepted"))
    await rotation.save(state.at(Step.PUBLISH, rotation.now))
    proved = traits.provable and traits.known_before_publication
    told = "is accepted by the store" if proved else "can be proved by nobody before it is published"
    tell(rotation, "KeyVerified", f"key {pending.id} {told}")
    return None


async def _refused(rotation: RotationPass, pending: KeyRecord) -> Waiting | None:
    state = rotation.state
    since = state.step_since or rotation.now
    if state.remade < MOST_REMADE and rotation.now - since > REMAKE_AFTER:
        # Another process may have made it anew after this one did: what is remembered is not what the store has.
        await redraft(rotation, remade=state.remade + 1)
        tell(
            rotation, "KeyMadeAgain", f"the store refuses key {pending.id}, which nobody has yet: it is made once more"
        )
        return None
    if rotation.now - since > VERIFY_PATIENCE:
        raise Terminal(
            f"the store refuses key {pending.id}, which it made at {since:%H:%M:%S} UTC: nothing was published; look "
            "at the roles in spec.identity, and at whether the VectorStore's address is that of the same store",
            reason="NewKeyRefused",
        )
    return Waiting(f"the store does not know key {pending.id} yet", pace(rotation))


async def publish(rotation: RotationPass) -> Waiting | None:
    """Put the new key into the Secret, by one write."""
    state, pending = rotation.state, pending_key(rotation.state)
    replaced = state.previous or state.current
    if replaced is not None and replaced.id == pending.id and rotation.traits.overlaps:
        replaced = None  # it was gone, and the new one took its name
    following = replace(
        state,
        current=pending,
        pending=None,
        previous=replaced,
        identity=state.drafted_for,
        endpoint=rotation.endpoint,
        republished=0,
    )
    await rotation.publication.publish(rotation.filled(following))
    published = rotation.publication.published_at
    await rotation.save(following.at(Step.RESTART, rotation.now, published=True).noted(published_at=published))
    tell(rotation, "KeyPublished", f"{rotation.publication} holds key {pending.id}, revision {pending.revision}")
    return None
