"""What the steps of a rotation have in common: how they wait, and how a rotation ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from vectorwright.errors import Retryable, Terminal
from vectorwright.observability import metrics
from vectorwright.rotation.state import KeyRecord, RotationState

from .rotation_audit import tell
from .rotation_pass import RotationPass

VERIFY_DELAYS = (0.1, 10.0)
"""Seconds between two trials of a key: the first ones follow each other closely."""
WAIT_DELAYS = (0.2, 15.0)
"""Seconds between two looks at workloads and pods."""
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Waiting:
    """The step is not through: what for, and when to look again."""

    blocked_by: str
    after: float


def pace(rotation: RotationPass, delays: tuple[float, float] = VERIFY_DELAYS) -> float:
    """Seconds until the next look: a fifth of the time that the step has taken so far, within bounds."""
    since = rotation.state.step_since or rotation.now
    return min(delays[1], max(delays[0], (rotation.now - since).total_seconds() / 5))


def in_progress(error: Retryable) -> Waiting:
    """What an issuer does that takes several calls is no failure. Raises everything else that it is told."""
    if error.reason != "InProgress":
        raise error
    return Waiting(error.message, error.after or VERIFY_DELAYS[0])


def current_key(state: RotationState) -> KeyRecord:
    """The key that is published. Raises Terminal (``StateDamaged``) when there is none."""
    if state.current is None:
        raise Terminal("the key that is published was forgotten", reason="StateDamaged")
    return state.current


def pending_key(state: RotationState) -> KeyRecord:
    """The key that is being issued. Raises Terminal (``StateDamaged``) when there is none."""
    if state.pending is None:
        raise Terminal("the key that is being issued was forgotten", reason="StateDamaged")
    return state.pending


async def finish(rotation: RotationPass, state: RotationState | None = None) -> None:
    """The rotation is through."""
    done = state or rotation.state
    await rotation.save(done.finished(rotation.now))
    metrics.KEY_ROTATIONS.inc(*rotation.resource.key, result="success")
    last = rotation.state.history[0] if rotation.state.history else None
    ended = f"; key {last.revoked_key_id} is refused" if last is not None and last.refused_at else ""
    tell(rotation, "KeyRotated", f"key {current_key(done).id} is in use{ended}")


def some_of(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def length_text(span: timedelta) -> str:
    """A length of time for people."""
    seconds = int(span.total_seconds())
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
