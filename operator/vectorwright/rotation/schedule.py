"""When a key is replaced: pure functions of the spec, of what is remembered, and of the clock.

A missed time, a long downtime and a clock that jumped all come to one rotation, because everything is counted from when
the present key was issued.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vectorwright.api.cron import next_slot
from vectorwright.api.v1alpha1.apikeyrotation import APIKeyRotationSpec
from vectorwright.api.v1alpha1.common import seconds
from vectorwright.errors import Terminal

from .base import IssuerTraits
from .state import KeyRecord, RotationState

DEFAULT_LIFETIME = timedelta(days=30)
"""Life of a key that expires, where neither the spec nor an interval says how long."""
RENEW_FRACTION = 1 / 3
"""A key that expires is replaced when a third of its life is left, as cert-manager does."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""A key that was issued further in the future than this tells of a clock that went back."""
LEAST_INTERVAL = timedelta(seconds=1)
"""A key that was replaced earlier would be replaced without end."""
PRECISION = timedelta(seconds=1)
"""The API server tells times in whole seconds, cut off: a Secret may have been written so much later than it says."""


def duration(text: str | None) -> timedelta | None:
    """A duration of the spec, if it is there."""
    return timedelta(seconds=seconds(text)) if text else None


def lifetime(spec: APIKeyRotationSpec, issued_at: datetime) -> timedelta:
    """How long a key that expires is to live: beyond its replacement and the overlap that follows. Raises Terminal."""
    if (wanted := duration(spec.key_lifetime)) is not None:
        return wanted
    interval = duration(spec.rotation_interval)
    if spec.schedule is not None:
        first = next_slot(spec.schedule, issued_at)
        second = next_slot(spec.schedule, first) if first else None
        interval = second - issued_at if second else None
    if interval is None:
        return DEFAULT_LIFETIME
    return interval * 1.5 + (duration(spec.overlap) or timedelta())


def expiry(spec: APIKeyRotationSpec, traits: IssuerTraits, issued_at: datetime) -> datetime | None:
    """``not_after`` of a key that is made now; None where such keys do not expire. Raises Terminal."""
    return issued_at + lifetime(spec, issued_at) if traits.expires else None


def check(spec: APIKeyRotationSpec, traits: IssuerTraits) -> None:
    """Raise Terminal for what could not work, before anything is made.

    ``InvalidSchedule`` for a schedule that is none, ``InvalidSpec`` for keys that expire before the next one can have
    taken their place.
    """
    now = datetime.now(UTC)
    if spec.schedule is not None:
        next_slot(spec.schedule, now)
    overlap = duration(spec.overlap) or timedelta()
    if traits.expires and lifetime(spec, now) * (1 - RENEW_FRACTION) <= overlap:
        raise Terminal(
            f"spec.keyLifetime: a key that lives {lifetime(spec, now)} would expire while the one before it still "
            f"lives on for the overlap of {overlap}: make it longer than {overlap * 1.5}, or the overlap shorter",
            reason="InvalidSpec",
        )


def renewal_time(spec: APIKeyRotationSpec, key: KeyRecord) -> tuple[datetime, str] | None:
    """When a key is to be replaced, and why; None: only when somebody asks for it. Raises Terminal."""
    times: list[tuple[datetime, str]] = []
    if (interval := duration(spec.rotation_interval)) is not None:
        times.append((key.issued_at + max(interval, LEAST_INTERVAL), "Interval"))
    if spec.schedule is not None and (slot := next_slot(spec.schedule, key.issued_at)) is not None:
        times.append((slot, "Schedule"))
    if key.not_after is not None:
        life = key.not_after - key.issued_at
        # Not longer than the key lives: it would be due when it is made.
        before = duration(spec.renew_before)
        before = before if before is not None and before < life else life * RENEW_FRACTION
        times.append((max(key.not_after - before, key.issued_at + LEAST_INTERVAL), "Expiry"))
    return min(times, default=None)


def due(
    spec: APIKeyRotationSpec, state: RotationState, identity: str, request: str | None, now: datetime
) -> str | None:
    """Why a key is to be issued now, if it is. Raises Terminal.

    ``identity`` is the digest of what keys are made for, ``request`` the value of the annotation that asks for one.
    """
    if state.current is None:
        return "Initial"
    if state.current.material is None:
        return "KeyLost"
    if state.identity != identity:
        return "SpecChanged"
    if request and request != state.handled_request:
        return "Requested"
    renewal = renewal_time(spec, state.current)
    return renewal[1] if renewal is not None and renewal[0] <= now else None


def revocable_from(spec: APIKeyRotationSpec, traits: IssuerTraits, state: RotationState) -> datetime | None:
    """When the replaced key may end at the earliest: after the overlap, or where it cannot be revoked, at its expiry.

    None while nothing was published yet, or nothing was replaced.
    """
    previous, published = state.previous, state.record.published_at if state.record else None
    if previous is None or published is None or previous.dead:
        return None
    moment, overlap = published, duration(spec.overlap)
    if overlap:
        moment += PRECISION + overlap
    if not traits.revocable and previous.not_after is not None:
        moment = max(moment, previous.not_after + timedelta(seconds=traits.leeway))
    return moment
