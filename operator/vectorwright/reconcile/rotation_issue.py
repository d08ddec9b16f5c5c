"""The first half of a rotation: Plan, Create, Verify, Publish. Until Publish nobody but us knows the new key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from vectorwright.api.v1alpha1.common import ANNOTATION_ROTATE
from vectorwright.errors import Terminal
from vectorwright.kube.status import utc_now
from vectorwright.kube.workloads import find_workloads, refusal
from vectorwright.rotation import schedule
from vectorwright.rotation.base import KeyRequest
from vectorwright.rotation.state import KeyRecord, Record, RotationState, Step, Verification

from .rotation_audit import tell
from .rotation_pass import RotationPass

VERIFY_PATIENCE = timedelta(minutes=5)
"""For which a store may refuse a key that it just made: Pinecone's keys take seconds to be known everywhere."""
VERIFY_DELAYS = (0.1, 10.0)
"""Seconds between two trials: the first ones follow each other closely."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The step is not through: what for, and when to look again."""

    blocked_by: str
    after: float


def pace(rotation: RotationPass, delays: tuple[float, float] = VERIFY_DELAYS) -> float:
    """Seconds until the next look: a fifth of the time that the step has taken so far, within bounds."""
    since = rotation.state.step_since or rotation.now
    return min(delays[1], max(delays[0], (rotation.now - since).total_seconds() / 5))


async def recover(rotation: RotationPass) -> None:
    """Nothing is remembered: find out where things stand, from the Secret's annotations and the store's list.

    What lives at the store and is not published may still be in use by pods that started earlier, so it goes the way of
    a replaced key. Nothing is issued anew, and no request of the past is acted on again. Raises Terminal, Retryable.
    """
    request = rotation.resource.metadata.annotations.get(ANNOTATION_ROTATE)
    held = rotation.publication.held()
    live = await rotation.issuer.live() if rotation.traits.overlaps else []
    if held is None:
        revision = max((key.revision or 0 for key in live), default=0)
        await rotation.save(RotationState(revision=revision, handled_request=request, step_since=rotation.now))
        return
    if held.material is not None and rotation.traits.provable and not await rotation.issuer.accepts(held.material):
        held = replace(held, material=None)
    others = sorted((key for key in live if key.id != held.id), key=lambda key: key.revision or 0)
    now = utc_now()
    state = RotationState(
        revision=max([held.revision, *(key.revision or 0 for key in live)]),
        current=held,
        identity=rotation.identity,
        handled_request=rotation.resource.status.handled_request or request,
        published=True,
        step_since=now,
    )
    if others:
        last = others[-1]
        previous = KeyRecord(last.revision or 0, last.id, last.name, held.issued_at, made=True)
        record = Record(held.revision, held.id, "Recovered", now, published_at=now)
        state = replace(state, previous=previous, record=record, step=Step.WAIT)
    await rotation.save(state)
    tell(rotation, "RotationRecovered", f"nothing was remembered; key {held.id} is published in {rotation.publication}")


async def plan(rotation: RotationPass, reason: str) -> None:
    """Look at everything that the rotation needs before anything is made, then decide on the key's name and value.

    Raises Terminal (the Secret, a workload, the admin's rights), Retryable.
    """
    state, issuer = rotation.state, rotation.issuer
    rotation.publication.check()
    for workload in await find_workloads(rotation.context.client, rotation.targets):
        if told := refusal(workload):
            raise Terminal(told, reason="RestartTargetRefused")
    await issuer.check()
    revision, previous = await _place(rotation)
    pending = drafted(rotation, revision)
    request = rotation.resource.metadata.annotations.get(ANNOTATION_ROTATE)
    begun = state.at(
        Step.CREATE,
        rotation.now,
        revision=revision,
        pending=pending,
        previous=previous,
        drafted_for=rotation.identity,
        handled_request=request or state.handled_request,
        record=Record(revision, pending.id, reason, rotation.now),
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


async def _place(rotation: RotationPass) -> tuple[int, KeyRecord | None]:
    """The number of the next key, and what it replaces besides the current one. Its name must be free at the store.

    A key that lives at the store, carries this resource's name and is not the current one may still be in use: it is
    never overwritten, and goes the way of a replaced key. Raises Terminal (``NoFreeIdentity``), Retryable.
    """
    state, issuer = rotation.state, rotation.issuer
    revision, current = state.revision + 1, state.current
    live = await issuer.live() if issuer.traits.overlaps else []
    taken = {key.name for key in live} | ({current.name} if current is not None else set())
    if issuer.traits.overlaps and issuer.name_of(revision) in taken:
        revision += 1
        if issuer.name_of(revision) in taken:
            raise Terminal(
                f"both identities that take turns are in use ({issuer.name_of(revision - 1)} and "
                f"{issuer.name_of(revision)}), and which one is, is not remembered: delete at the store the one that "
                "nobody uses",
                reason="NoFreeIdentity",
            )
    if current is not None:
        return revision, None
    if (handed_over := await issuer.predecessor()) is not None:
        first = KeyRecord(0, handed_over.id, handed_over.id, rotation.now, None, handed_over.material, made=True)
        return revision, first
    if live:
        last = max(live, key=lambda key: key.revision or 0)
        return revision, KeyRecord(last.revision or 0, last.id, last.name, rotation.now, made=True)
    return revision, None


def drafted(rotation: RotationPass, revision: int) -> KeyRecord:
    """The key of a revision as it is to be made."""
    now, issuer = utc_now(), rotation.issuer
    name = issuer.name_of(revision)
    not_after = schedule.expiry(rotation.resource.spec, issuer.traits, now)
    record = KeyRecord(revision, name, name, now, not_after)
    return replace(record, material=issuer.draft(_request(rotation, record))) if issuer.traits.generates else record


def _request(rotation: RotationPass, pending: KeyRecord) -> KeyRequest:
    current = rotation.state.current
    return KeyRequest(
        revision=pending.revision,
        name=pending.name,
        issued_at=pending.issued_at,
        not_after=pending.not_after,
        draft=pending.material if rotation.traits.generates else None,
        current=current.material if current is not None else None,
    )


async def redraft(rotation: RotationPass) -> None:
    """What keys are made for was changed while one was being made: nobody has it yet, so it is made once more."""
    state = rotation.state
    await rotation.save(
        state.at(
            Step.CREATE,
            rotation.now,
            pending=drafted(rotation, state.revision),
            drafted_for=rotation.identity,
        )
    )


async def create(rotation: RotationPass) -> Waiting | None:
    """Have the key made. Its value is remembered before anything else happens."""
    pending = rotation.state.pending
    if pending is None:
        raise Terminal("the key that is to be made was forgotten", reason="StateDamaged")
    issued = await rotation.issuer.create(_request(rotation, pending))
    made = replace(
        pending,
        id=issued.id,
        not_after=issued.not_after or pending.not_after,
        material=issued.material,
        made=True,
    )
    await rotation.save(rotation.state.at(Step.VERIFY, rotation.now, pending=made).noted(key_id=made.id))
    tell(rotation, "KeyCreated", f"key {made.id} was made")
    return None


async def verify(rotation: RotationPass) -> Waiting | None:
    """Show the new key to the store, before anybody depends on it."""
    pending, traits, state = rotation.state.pending, rotation.traits, rotation.state
    if pending is None or pending.material is None:
        raise Terminal("the key that is to be proved was forgotten", reason="StateDamaged")
    if traits.provable and traits.known_before_publication:
        if not await rotation.issuer.accepts(pending.material):
            return _refused(rotation, pending)
        state = replace(state, verification=Verification(rotation.now, pending.id, "Accepted"))
    await rotation.save(state.at(Step.PUBLISH, rotation.now))
    proved = traits.provable and traits.known_before_publication
    told = "is accepted by the store" if proved else "can be proved by nobody before it is published"
    tell(rotation, "KeyVerified", f"key {pending.id} {told}")
    return None


def _refused(rotation: RotationPass, pending: KeyRecord) -> Waiting:
    since = rotation.state.step_since or rotation.now
    if rotation.now - since > VERIFY_PATIENCE:
        raise Terminal(
            f"the store refuses key {pending.id}, which it made at {since:%H:%M:%S} UTC: nothing was published; look "
            "at the roles in spec.identity, and at whether the VectorStore's address is that of the same store",
            reason="NewKeyRefused",
        )
    return Waiting(f"the store does not know key {pending.id} yet", pace(rotation))


async def publish(rotation: RotationPass) -> Waiting | None:
    """Put the new key into the Secret, by one write."""
    state, pending = rotation.state, rotation.state.pending
    if pending is None:
        raise Terminal("the key that is to be published was forgotten", reason="StateDamaged")
    following = replace(
        state, current=pending, pending=None, previous=state.current or state.previous, identity=state.drafted_for
    )
    await rotation.publication.publish(rotation.filled(following))
    published = rotation.publication.published_at
    await rotation.save(following.at(Step.RESTART, rotation.now, published=True).noted(published_at=published))
    tell(rotation, "KeyPublished", f"{rotation.publication} holds key {pending.id}, revision {pending.revision}")
    return None
