"""The end of an APIKeyRotation: keys and Secret stay, or go, by its deletion policy."""

from __future__ import annotations

from vectorwright.api.v1alpha1.apikeyrotation import APIKeyRotation, KeyDeletionPolicy
from vectorwright.api.v1alpha1.common import ANNOTATION_RELEASE, FINALIZER
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.observability import metrics

from .cache import Key
from .connections import Reference, remember_uses
from .context import Context
from .finalizers import remove_finalizer
from .outcome import Outcome, failed
from .rotation_audit import tell
from .rotation_memory import Memory
from .rotation_pass import RotationPass, begin, close_issuer, owner_mark

RETRY_STALLED = 30.0
"""Seconds after which a deletion that was refused is tried again."""


async def finalize(context: Context, key: Key, resource: APIKeyRotation) -> Outcome:
    """Let go of the keys, forget what was remembered, then remove the finalizer."""
    if FINALIZER not in resource.metadata.finalizers:
        return await _gone(context, key)
    released = resource.metadata.annotations.get(ANNOTATION_RELEASE) == "true"
    used: list[Reference] = []
    try:
        if not released and not context.settings.read_only:
            await _end_keys(await begin(context, key, resource, used))
        await Memory(context.client, key, owner_mark(context, key)).delete()
    except VectorwrightError as error:
        if resource.spec.deletion_policy is not KeyDeletionPolicy.REVOKE and not isinstance(error, Retryable):
            # What stays in use needs nothing of the store; only a key that nobody ever saw may be left there.
            await Memory(context.client, key, owner_mark(context, key)).delete()
        else:
            return _hindered(resource, error)
    finally:
        remember_uses(context, key, used)
    if released:
        metrics.LEFT_BEHIND.labels(key.kind, "Released").inc()
    await remove_finalizer(context, key, resource.metadata)
    return await _gone(context, key)


async def _gone(context: Context, key: Key) -> Outcome:
    remember_uses(context, key, [])
    await close_issuer(context, key)
    return Outcome()


def _hindered(resource: APIKeyRotation, error: VectorwrightError) -> Outcome:
    told = f"{error.message} (to let go without the store, set the annotation {ANNOTATION_RELEASE}=true)"
    again: VectorwrightError
    if isinstance(error, Retryable):
        again = Retryable(told, reason=error.reason, after=error.after)
    else:
        again = Terminal(told, reason=error.reason)
    outcome = failed(again, resource.status.dump())
    outcome.requeue_after = RETRY_STALLED
    return outcome


async def _end_keys(rotation: RotationPass) -> None:
    """Retain: only what was never published ends. Revoke: the Secret goes first, then every key of ours."""
    state = rotation.state
    if rotation.resource.spec.deletion_policy is not KeyDeletionPolicy.REVOKE:
        if state.pending is not None and rotation.traits.overlaps and rotation.traits.revocable:
            await rotation.issuer.revoke(state.pending.live)
        return
    issuer = rotation.issuer
    await rotation.publication.remove()
    if not issuer.traits.revocable or not issuer.traits.overlaps:
        return
    for key in [record.live for record in (state.pending, state.previous, state.current) if record is not None]:
        await issuer.revoke(key)
    for key in await issuer.live():
        await issuer.revoke(key)
    tell(rotation, "KeysRevoked", "the keys went with their resource, as its deletionPolicy says")
