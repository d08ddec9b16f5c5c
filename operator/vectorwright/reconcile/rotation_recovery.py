"""Where things stand when nothing is remembered: a restored cluster, or a private Secret that somebody deleted."""

from __future__ import annotations

from dataclasses import replace

from vectorwright.api.v1alpha1.common import ANNOTATION_ROTATE
from vectorwright.kube.status import utc_now
from vectorwright.rotation.base import LiveKey
from vectorwright.rotation.state import KeyRecord, Record, RotationState, Step

from .rotation_audit import tell
from .rotation_pass import RotationPass


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
    now = utc_now()
    state = RotationState(
        revision=max([held.revision, *(key.revision or 0 for key in live)]),
        current=held,
        identity=rotation.identity,
        handled_request=rotation.resource.status.handled_request or request,
        published=True,
        step_since=now,
        endpoint=rotation.endpoint,
    )
    previous = await _outlived(rotation, held, live) if held.material is not None else None
    if previous is not None or (held.material is not None and rotation.targets):
        # From Restart on: whether it was done is told by the pod templates. The API server's time of the publication,
        # not now: pods that started since have the published key.
        record = Record(held.revision, held.id, "Recovered", now, published_at=rotation.publication.published_at)
        state = replace(state, previous=previous, record=record, step=Step.RESTART)
    await rotation.save(state)
    tell(rotation, "RotationRecovered", f"nothing was remembered; key {held.id} is published in {rotation.publication}")


async def _outlived(rotation: RotationPass, held: KeyRecord, live: list[LiveKey]) -> KeyRecord | None:
    """A key that is not the published one and may still be in use. Raises Terminal, Retryable."""
    if not rotation.traits.overlaps:
        return None
    others = sorted((key for key in live if key.id != held.id), key=lambda key: key.revision or 0)
    if others:
        last = others[-1]
        return KeyRecord(last.revision or 0, last.id, last.name, held.issued_at, made=True)
    handed_over = await rotation.issuer.predecessor()
    if handed_over is not None and handed_over.id != held.id:
        name = handed_over.id
        return KeyRecord(0, handed_over.id, name, held.issued_at, None, handed_over.material, made=True)
    # Where there is no list, the Secret itself may tell. What is on no list there is gone.
    before = rotation.publication.held_before() if not live and rotation.traits.revocable else None
    if before is not None:
        name = rotation.issuer.name_of(held.revision - 1)
        return KeyRecord(held.revision - 1, name, name, held.issued_at, None, before, made=True)
    return None
