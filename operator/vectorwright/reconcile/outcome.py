"""What one pass over one object comes to: the status to write and when to look again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from vectorwright.errors import Retryable, VectorwrightError
from vectorwright.kube.status import ConditionState

Status = dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """The end of one pass."""

    status: Status = field(default_factory=dict)
    """The whole status but for conditions and observedGeneration."""
    conditions: list[ConditionState] = field(default_factory=list)
    requeue_after: float | None = None
    """Seconds until the object is looked at again by itself; None: on the next event only."""
    error: VectorwrightError | None = None
    """What went wrong; a Retryable is repeated with backoff."""
    handled: bool = True
    """Whether a request to reconcile was acted on."""
    once_written: Callable[[], Awaitable[None]] | None = None
    """Called after the status was written: for what may only be removed once its result is recorded."""


def ready_conditions(message: str, *, reason: str = "Ready", synced: bool = True) -> list[ConditionState]:
    """Conditions of an object that is usable and, unless told otherwise, equal to its spec."""
    conditions = [ConditionState("Ready", "True", reason, message)]
    if synced:
        conditions.append(ConditionState("Synced", "True", "ReconcileSuccess", "the store equals the spec"))
    return conditions


def waiting_conditions(reason: str, message: str, *, ready: str = "False") -> list[ConditionState]:
    """Conditions of an object that waits for something that can come by itself."""
    return [
        ConditionState("Ready", ready, reason, message),
        ConditionState("Reconciling", "True", reason, message),
        ConditionState("Synced", "Unknown", reason, message),
    ]


def error_conditions(error: VectorwrightError) -> list[ConditionState]:
    """Conditions for an error: in progress when it may pass by itself, stalled when somebody has to act."""
    if not is_stalling(error):
        return [
            ConditionState("Ready", "False", error.reason, error.message),
            ConditionState("Reconciling", "True", error.reason, error.message),
            ConditionState("Synced", "False", "ReconcileError", error.message),
        ]
    return [
        ConditionState("Ready", "False", error.reason, error.message),
        ConditionState("Stalled", "True", error.reason, error.message),
        ConditionState("Synced", "False", "ReconcileError", error.message),
    ]


def failed(error: VectorwrightError, status: Status) -> Outcome:
    """The outcome of a pass that ended in an error, keeping what is known."""
    return Outcome(status, error_conditions(error), error=error)


def is_stalling(error: VectorwrightError) -> bool:
    """Whether trying again cannot help until something changes."""
    return not isinstance(error, Retryable)
