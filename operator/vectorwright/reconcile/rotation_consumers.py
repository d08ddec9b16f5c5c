"""Restart and Wait: consumers move to the new key, and are seen to have moved."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from vectorwright.errors import Terminal
from vectorwright.kube.client import Object
from vectorwright.kube.rollout import progress
from vectorwright.kube.secret_users import SETTLING, holders, refers_to
from vectorwright.kube.workloads import (
    RESTART_ANNOTATION,
    WorkloadName,
    carries,
    find_workloads,
    name_of,
    refusal,
    restart,
    template_revision,
)
from vectorwright.rotation import schedule
from vectorwright.rotation.state import KeyRecord, Step, Verification

from .rotation_audit import tell
from .rotation_pass import RotationPass
from .rotation_progress import WAIT_DELAYS, Waiting, current_key, finish, length_text, pace, some_of

ROLLOUT_TIMEOUT = timedelta(minutes=15)
"""As `spec.rolloutTimeout` says when it is left out: beyond the ten minutes of a Deployment's own deadline."""
REVERTED_DELAY = timedelta(seconds=10)
"""Before a restart that somebody took back is looked at again: two writers that undo each other's work at once
would replace pods without end."""
MOST_REVERTS = 3
REVERTS_REST = timedelta(minutes=10)
"""After so many restarts that were taken back, one is tried again in this time."""


async def restart_consumers(rotation: RotationPass) -> Waiting | None:
    """Restart the workloads that the spec names. The same key restarts none of them twice."""
    state, current = rotation.state, current_key(rotation.state)
    since = state.step_since or rotation.now
    if rotation.targets and timedelta() <= rotation.now - since < SETTLING:
        return Waiting("the new key to reach the nodes", (SETTLING - (rotation.now - since)).total_seconds())
    names, restarted = await _restart(rotation)
    if state.record is not None and state.record.published_at is None:
        # The Secret held something else for a while: what started until now may have started with that.
        state = state.noted(published_at=max(rotation.publication.published_at, rotation.now))
    await rotation.save(state.at(Step.WAIT, rotation.now, restarted=_texts(names), reverts=0, reverted_at=None))
    _tell_restarted(rotation, current, _texts(restarted))
    return None


async def _restart(rotation: RotationPass) -> tuple[list[WorkloadName], list[WorkloadName]]:
    """Restart what was not restarted for this key. Returns all targets, and those to which something was sent.

    Raises as :func:`fitting_workloads`, before any of them is touched; Terminal (``RestartReverted``).
    """
    lives_on = rotation.state.previous if rotation.traits.overlaps else None
    workloads = await fitting_workloads(rotation, lives_on)
    _require_peace(rotation, workloads)
    restarted = [
        name_of(workload) for workload in workloads if await restart(rotation.context.client, workload, rotation.label)
    ]
    return [name_of(workload) for workload in workloads], restarted


async def fitting_workloads(rotation: RotationPass, replaced: KeyRecord | None) -> list[Object]:
    """The workloads that the spec names. ``replaced`` is the key that ends when they have moved, if any does.

    Raises Terminal (``RestartTargetRefused`` where one of them cannot be restarted, ``RestartTargetNotFound`` …),
    Retryable.
    """
    workloads = await find_workloads(rotation.context.client, rotation.targets)
    if not workloads and replaced is not None and replaced.usable(rotation.now) and _nobody_else_moves(rotation):
        raise Terminal(
            f"the labels in rolloutRestartTargets match no workload in namespace {rotation.publication.namespace}, and "
            f"without spec.overlap nobody has time to read a new key by himself: key {replaced.id} is not replaced; "
            "label the workloads, or set spec.overlap",
            reason="RestartTargetNotFound",
        )
    for workload in workloads:
        if told := _unfit(rotation, workload):
            raise Terminal(told, reason="RestartTargetRefused")
    return workloads


def _nobody_else_moves(rotation: RotationPass) -> bool:
    """Whether the spec gives consumers nothing but a restart, before a key that they use is revoked."""
    return rotation.resource.spec.overlap is None and rotation.traits.revocable


def _unfit(rotation: RotationPass, workload: Object) -> str | None:
    """Why a workload is not restarted. In another namespace only users of the Secret are: its consent is for no
    more."""
    publication = rotation.publication
    if publication.namespace != rotation.key.namespace and not refers_to(
        workload["spec"]["template"], publication.spec.name
    ):
        return f"{name_of(workload)} does not use {publication}, which is all that its namespace consented to"
    return refusal(workload)


def _require_peace(rotation: RotationPass, workloads: list[Object]) -> None:
    """Raise Terminal (``RestartReverted``) where somebody took restarts back again and again, not long ago."""
    state = rotation.state
    if state.reverts < MOST_REVERTS or state.reverted_at is None or rotation.now - state.reverted_at > REVERTS_REST:
        return
    for workload in workloads:
        if str(name_of(workload)) in state.restarted and not carries(template_revision(workload), rotation.label):
            raise Terminal(
                f"{name_of(workload)}: somebody took the annotation {RESTART_ANNOTATION} of its pod template away "
                f"{state.reverts} times, and with it the restart: have that tool leave it alone, or take the workload "
                "out of rolloutRestartTargets",
                reason="RestartReverted",
            )


def _texts(names: list[WorkloadName]) -> tuple[str, ...]:
    return tuple(map(str, names))


def _tell_restarted(rotation: RotationPass, current: KeyRecord, names: tuple[str, ...]) -> None:
    if names:
        tell(rotation, "ConsumersRestarted", f"restarted for key {current.id}: {some_of(list(names))}")


async def wait_for_consumers(rotation: RotationPass) -> Waiting | None:
    """Wait until no pod of the old template is left, and none that is older than the new key uses the Secret."""
    state, current = rotation.state, current_key(rotation.state)
    previous = state.previous
    rested = rotation.now - state.reverted_at if state.reverted_at is not None else REVERTED_DELAY
    if timedelta() <= rested < REVERTED_DELAY:
        return Waiting("a restart that somebody took back to stay", (REVERTED_DELAY - rested).total_seconds())
    names = await _restart_again(rotation, current)
    state = rotation.state
    for name in names:
        if waiting := await _rollout(rotation, name):
            return waiting
    if previous is None:
        await finish(rotation)
        return None
    if not rotation.traits.overlaps:
        await rotation.save(state.at(Step.VERIFY_REFUSED, rotation.now))
        return None
    if waiting := await wait_for_holders(rotation):
        return waiting
    if not rotation.traits.known_before_publication and rotation.traits.provable:
        material = current.material
        if material is None or not await rotation.issuer.accepts(material):
            return Waiting(f"key {current.id} is not accepted yet by what checks it", pace(rotation, WAIT_DELAYS))
        state = replace(state, verification=Verification(rotation.now, current.id, "Accepted"))
    await rotation.save(state.at(Step.GRACE, rotation.now))
    tell(rotation, "ConsumersMoved", f"no pod is left that could still hold key {previous.id}")
    return None


async def _restart_again(rotation: RotationPass, current: KeyRecord) -> list[WorkloadName]:
    """Restart targets that are new, and those whose restart somebody took back. Returns all. Raises Terminal,
    Retryable."""
    names, restarted = await _restart(rotation)
    known = set(rotation.state.restarted)
    new = tuple(name for name in _texts(restarted) if name not in known)
    if set(_texts(names)) - known:
        # The time that a rollout may take begins anew.
        await rotation.save(rotation.state.at(Step.WAIT, rotation.now, restarted=_texts(names)))
        _tell_restarted(rotation, current, new)
    reverted = [name for name in _texts(restarted) if name in known]
    if reverted:
        await rotation.save(replace(rotation.state, reverts=rotation.state.reverts + 1, reverted_at=rotation.now))
    for name in reverted:
        tell(
            rotation,
            "RestartReverted",
            f"{name} was restarted again: somebody took the annotation of its pod template away",
            warning=True,
        )
    return names


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
            f"{seen.message}; this takes longer than {length_text(allowed)}: the key before stays valid meanwhile",
            reason="RolloutTimeout",
        )
    return Waiting(seen.message, pace(rotation, WAIT_DELAYS))


async def wait_for_holders(rotation: RotationPass) -> Waiting | None:
    """Pods that started before the key was published and use the Secret, by name."""
    record, previous = rotation.state.record, rotation.state.previous
    if previous is not None and previous.dead:
        return None
    if previous is not None and previous.not_after is not None:
        ended = previous.not_after + timedelta(seconds=rotation.traits.leeway)
        if ended < rotation.now:
            return None  # whoever holds it holds nothing
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
    named = some_of([str(holder) for holder in found])
    return Waiting(f"older than the new key and still using the Secret: {named}", pace(rotation, WAIT_DELAYS))
