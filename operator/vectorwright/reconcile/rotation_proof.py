"""Whether the published key is dead: never by a single answer, because what is done then cannot be taken back."""

from __future__ import annotations

from datetime import timedelta

from vectorwright.errors import Retryable
from vectorwright.rotation.state import KeyRecord

from .rotation_pass import RotationPass

REFUSED_FOR = timedelta(seconds=30)
"""A key is dead when it was refused for so long, each time that it was shown: replicas lag and gateways err."""
LEAST_REFUSALS = 3
RETRY_SECONDS = 5.0


async def is_dead(rotation: RotationPass, current: KeyRecord) -> bool:
    """Whether the store refuses the published key for good.

    Raises Retryable (``CurrentKeyRefused``) while it is refused and that is not certain yet.
    """
    if not rotation.traits.provable or current.material is None:
        return False
    refused = rotation.context.keys_refused
    if await rotation.issuer.accepts(current.material):
        refused.pop(rotation.key, None)
        rotation.context.keys_seen[rotation.key] = (current.label, rotation.now)
        return False
    label, since, times = refused.get(rotation.key, ("", rotation.now, 0))
    if label != current.label or since > rotation.now:
        since, times = rotation.now, 0
    refused[rotation.key] = (current.label, since, times + 1)
    if times + 1 >= LEAST_REFUSALS and rotation.now - since >= REFUSED_FOR:
        return True
    raise Retryable(
        f"the store refuses key {current.id}, which is published: nothing is revoked; unless it is accepted soon, "
        "another one is made",
        reason="CurrentKeyRefused",
        after=RETRY_SECONDS,
    )
