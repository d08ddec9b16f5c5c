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
from .rotation_consent import find_secret
from .rotation_memory import Memory
from .rotation_pass import RotationPass, begin, close_issuer, owner_mark
from .rotation_secret import owner_of

RETRY_STALLED = 30.0
"""Seconds after which a deletion that was refused is tried again."""


async def finalize(context: Context, key: Key, resource: APIKeyRotation) -> Outcome:
    """Let go of the keys, forget what was remembered, then remove the finalizer."""
    if FINALIZER not in resource.metadata.finalizers:
        return await _gone(context, key)
    released = resource.metadata.annotations.get(ANNOTATION_RELEASE) == "true"
    memory = Memory(context.client, key, owner_mark(context, key))
    try:
        if not released and not context.settings.read_only:
            await _let_go(context, key, resource)
        if not context.settings.read_only:
            await memory.delete()
    except VectorwrightError as error:
        if not released:
            return _hindered(resource, error)
    if released:
        metrics.LEFT_BEHIND.labels(key.kind, "Released").inc()
    await remove_finalizer(context, key, resource.metadata)
    # The store may stand, being deleted, for this resource alone.
    context.enqueue(Key("VectorStore", key.namespace, resource.spec.store_ref.name))
    return await _gone(context, key)


async def _let_go(context: Context, key: Key, resource: APIKeyRotation) -> None:
    """Let go of the keys. Raises Terminal, Retryable where one that is to end could not be ended."""
    used: list[Reference] = []
    try:
        await _end_keys(await begin(context, key, resource, used))
    except Terminal:
        # What stays in use needs nothing of the store; only a key that nobody ever saw may be left there.
        if resource.spec.deletion_policy is KeyDeletionPolicy.REVOKE and await _issued(context, key, resource):
            raise
    except VectorwrightError:
        if await _issued(context, key, resource):
            raise
    finally:
        remember_uses(context, key, used)


async def _issued(context: Context, key: Key, resource: APIKeyRotation) -> bool:
    """Whether anything tells of a key that was made, or of one that was about to be."""
    if resource.status.current is not None or resource.status.pending is not None:
        return True
    memory = Memory(context.client, key, owner_mark(context, key))
    state = await memory.load()
    if memory.damaged or (state is not None and (state.pending or state.current or state.previous)):
        return True
    secret = resource.spec.secret
    published = await find_secret(context.client, secret.namespace or key.namespace, secret.name)
    return published is not None and owner_of(published) == str(memory.owner)


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
        await _end_unpublished(rotation)
        return
    issuer = rotation.issuer
    await rotation.publication.remove()
    if not issuer.traits.revocable:
        return
    if not issuer.traits.overlaps:
        # One identity, which a person made: shut out only if its key is one that was made here.
        pending = state.pending if state.pending is not None and state.pending.made else None
        if (last := pending or state.current) is not None:
            await issuer.revoke(last.live)
            tell(rotation, "KeysRevoked", "the key went with its resource, as its deletionPolicy says")
        return
    for record in (state.pending, state.previous, state.current):
        if record is not None and record.made:  # the id of another is not known yet
            await issuer.revoke(record.live)
    for key in await issuer.live():
        await issuer.revoke(key)
    tell(rotation, "KeysRevoked", "the keys went with their resource, as its deletionPolicy says")


async def _end_unpublished(rotation: RotationPass) -> None:
    """End the key that is being made, and what a lost attempt left under its name: nobody ever got it.

    A key that was replaced and not revoked yet stays, and is told of: nothing remembers it from now on.
    """
    before = rotation.state.previous
    if before is not None and not before.dead and rotation.traits.overlaps:
        metrics.LEFT_BEHIND.labels(rotation.key.kind, "KeyLeftBehind").inc()
        tell(
            rotation,
            "KeyLeftBehind",
            f"key {before.id}, which was replaced, is still valid: revoke it at the store when nobody uses it any more",
            warning=True,
        )
    state, pending, held = rotation.state, rotation.state.pending, rotation.publication.held()
    if pending is None or not (rotation.traits.overlaps and rotation.traits.revocable):
        return
    if held is not None and (held.id, held.revision) == (pending.id, pending.revision):
        return  # it was published, and that was not remembered
    kept = {record.id for record in (state.current, state.previous) if record is not None}
    if pending.made and pending.id not in kept:
        await rotation.issuer.revoke(pending.live)
    for key in await rotation.issuer.live():
        if key.name == pending.name and key.id not in kept:
            await rotation.issuer.revoke(key)
