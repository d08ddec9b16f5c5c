"""Conditions and status: pure functions from what was to what is to be written.

How tools read a status (kstatus): ``observedGeneration`` behind the generation, or ``Reconciling=True``, is in
progress; ``Stalled=True`` has failed; otherwise the object is current. So a wait is told as ``Reconciling=True`` and an
end that only a person can change as ``Stalled=True``; both are present only while true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MAX_MESSAGE = 1024
"""Characters of a condition's message; more is cut, so that a status stays small."""


@dataclass(frozen=True, slots=True)
class ConditionState:
    """A condition as it is now, without its history."""

    type: str
    status: str
    """``True``, ``False`` or ``Unknown``."""
    reason: str
    message: str


def utc_now() -> datetime:
    """The time, UTC, in whole seconds, as Kubernetes writes it."""
    return datetime.now(UTC).replace(microsecond=0)


def rfc3339(moment: datetime) -> str:
    """A point in time as Kubernetes writes it: ``2026-01-31T12:00:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shortened(message: str, limit: int = MAX_MESSAGE) -> str:
    """The message, cut to ``limit`` characters."""
    return message if len(message) <= limit else message[: limit - 1] + "…"


def merge_conditions(
    previous: Iterable[Mapping[str, Any]], current: Iterable[ConditionState], generation: int
) -> list[dict[str, Any]]:
    """The list of conditions to write: ``current`` only, each keeping its transition time while its status stays."""
    known = {str(condition.get("type")): condition for condition in previous}
    now = rfc3339(utc_now())
    merged = []
    for state in current:
        old = known.get(state.type)
        unchanged = old is not None and old.get("status") == state.status
        merged.append(
            {
                "type": state.type,
                "status": state.status,
                "reason": state.reason,
                "message": shortened(state.message),
                "lastTransitionTime": old["lastTransitionTime"] if old is not None and unchanged else now,
                "observedGeneration": generation,
            }
        )
    return merged


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of a type in a status, if it is there."""
    return next((item for item in status.get("conditions") or () if item.get("type") == kind), None)


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether a condition is there and True."""
    found = condition(status, kind)
    return found is not None and found.get("status") == "True"


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch that turns ``old`` into ``new``: null for what is gone, lists whole. Empty when equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch
