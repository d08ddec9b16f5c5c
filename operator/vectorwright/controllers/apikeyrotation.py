"""The APIKeyRotation controller."""

from __future__ import annotations

from collections.abc import Iterable

from vectorwright.api.v1alpha1 import APIKeyRotation
from vectorwright.kube import resources
from vectorwright.observability import metrics
from vectorwright.reconcile.apikeyrotation import reconcile
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.rotation_pass import close_issuer

from .driver import Controller


def _dependents(_context: Context, _key: Key) -> Iterable[Key]:
    """None: whoever uses a published key watches its Secret."""
    return ()


async def _gone(context: Context, key: Key) -> None:
    await close_issuer(context, key)
    context.uses.pop(key, None)
    context.keys_seen.pop(key, None)
    context.keys_refused.pop(key, None)
    metrics.forget(*key)


CONTROLLER = Controller(resources.API_KEY_ROTATIONS, APIKeyRotation, reconcile, _dependents, _gone)
