"""What a resource's status, conditions and metrics say of its keys. Everything in it can be told anew at any time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.kube.status import ConditionState, rfc3339, shortened
from vectorwright.observability import metrics
from vectorwright.rotation import schedule
from vectorwright.rotation.state import KeyRecord, Record, RotationState, Step, Verification

from .outcome import Status, is_stalling
from .rotation_pass import RotationPass
from .rotation_progress import Waiting

DEFAULT_HISTORY = 5
_LONGEST_BLOCK = 256
"""Characters of ``blockedBy``, which is a column."""


def status_of(rotation: RotationPass, waiting: Waiting | None) -> Status:
    """The status but for conditions and attempts."""
    state, spec = rotation.state, rotation.resource.spec
    current = state.current
    until = None
    if not isinstance(rotation.opened, VectorwrightError):
        until = schedule.revocable_from(spec, rotation.traits, state)
    limit = DEFAULT_HISTORY if spec.history_limit is None else spec.history_limit
    status: Status = {
        "strategy": rotation.strategy.value,
        "step": state.step.value,
        "secret": f"{rotation.publication.namespace}/{rotation.publication.spec.name}",
        "revision": current.revision if current is not None else None,
        "current": _key(current),
        "pending": _key(state.pending),
        "previous": _key(state.previous),
        "issuedAt": _moment(current.issued_at if current is not None else None),
        "notAfter": _moment(current.not_after if current is not None else None),
        "renewalTime": _moment(renewal_of(rotation)),
        "revokeNotBefore": _moment(until),
        "blockedBy": shortened(waiting.blocked_by, _LONGEST_BLOCK) if waiting is not None else None,
        "lastVerification": _verification(_last_seen(rotation)),
        "handledRequest": state.handled_request,
        "history": [_record(record) for record in state.history[:limit]],
    }
    return {name: value for name, value in status.items() if value is not None}


def renewal_of(rotation: RotationPass) -> datetime | None:
    """When the published key is to be replaced; None where nothing says so, or where the schedule is none."""
    current = rotation.state.current
    if current is None:
        return None
    try:
        found = schedule.renewal_time(rotation.resource.spec, current)
    except Terminal:
        return None  # the step that needs it says what is wrong
    return found[0] if found is not None else None


def conditions_of(
    rotation: RotationPass, waiting: Waiting | None, error: VectorwrightError | None, edited: list[str]
) -> list[ConditionState]:
    """Ready: a valid key is published. Issuing: a rotation goes on. Reconciling only until there is a key for what the
    spec says: a rotation that goes on by the clock is no change that somebody waits for."""
    state = rotation.state
    found = [_ready(rotation, error, edited), _issuing(state, waiting, error)]
    stalled = error is not None and is_stalling(error)
    if error is not None and stalled:
        found.append(ConditionState("Stalled", "True", error.reason, error.message))
    elif state.current is None or state.identity != rotation.identity:
        told = error.message if error is not None else (waiting.blocked_by if waiting else f"step {state.step}")
        found.append(ConditionState("Reconciling", "True", error.reason if error else state.step.value, told))
    return found


def _ready(rotation: RotationPass, error: VectorwrightError | None, edited: list[str]) -> ConditionState:
    state = rotation.state
    current = state.current
    if current is None:
        reason = error.reason if error is not None else "Issuing"
        return ConditionState("Ready", "False", reason, error.message if error else "no key was published yet")
    where = f"{rotation.publication}"
    if current.not_after is not None and current.not_after <= rotation.now:
        message = f"key {current.id} in {where} expired at {rfc3339(current.not_after)}"
        return ConditionState("Ready", "False", "KeyExpired", message + (f": {error.message}" if error else ""))
    if error is not None and error.reason == "CurrentKeyRefused":
        return ConditionState("Ready", "False", error.reason, error.message)
    if rotation.publication.body is None:
        reason = error.reason if error is not None else "SecretMissing"
        return ConditionState("Ready", "False", reason, error.message if error else f"{where} is gone")
    if edited:
        message = f"{where} was edited: {', '.join(edited[:5])} are not what was published"
        return ConditionState("Ready", "False", "SecretEdited", message)
    return ConditionState(
        "Ready", "True", "KeyPublished", f"{where} holds key {current.id}, revision {current.revision}"
    )


def _issuing(state: RotationState, waiting: Waiting | None, error: VectorwrightError | None) -> ConditionState:
    if state.step is Step.IDLE:
        if error is not None:
            return ConditionState("Issuing", "False", error.reason, error.message)
        return ConditionState("Issuing", "False", "Idle", "no rotation goes on")
    if error is not None:
        return ConditionState("Issuing", "True", error.reason, f"step {state.step}: {error.message}")
    if waiting is not None:
        return ConditionState("Issuing", "True", state.step.value, f"waits for {waiting.blocked_by}")
    return ConditionState("Issuing", "True", state.step.value, f"step {state.step}")


def count_attempts(rotation: RotationPass, status: Status, error: VectorwrightError | None) -> float | None:
    """Put failed attempts into the status. Returns the seconds after which a stalled one is tried again."""
    before = rotation.resource.status
    if error is None:
        return None
    attempts = (before.failed_attempts or 0) + 1 if before.step == status.get("step") else 1
    status |= {"failedAttempts": attempts, "lastFailureTime": rfc3339(rotation.now)}
    if attempts == 1 or not isinstance(error, Retryable):
        metrics.KEY_ROTATIONS.inc(*rotation.resource.key, result="failure")
    return float(min(300, 5 * 2 ** min(attempts - 1, 6)))


def measure(rotation: RotationPass, waiting: Waiting | None, error: VectorwrightError | None) -> None:
    """The metrics of a resource."""
    place = rotation.resource.key
    current = rotation.state.current
    if current is not None:
        for metric, moment in (
            (metrics.KEY_EXPIRATION, current.not_after),
            (metrics.KEY_RENEWAL, renewal_of(rotation)),
        ):
            if moment is None:
                metric.forget(*place)
            else:
                metric.set(*place, moment.timestamp())
    metrics.KEY_BLOCKED.set(*place, float(waiting is not None or error is not None))


def _moment(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None


def _key(key: KeyRecord | None) -> dict[str, Any] | None:
    if key is None:
        return None
    told = {
        "id": key.id,
        "revision": key.revision or None,
        "issuedAt": _moment(key.issued_at),
        "notAfter": _moment(key.not_after),
    }
    return {name: value for name, value in told.items() if value is not None}


def _last_seen(rotation: RotationPass) -> Verification | None:
    """The last proof: of the rotation, or that the published key was accepted since."""
    remembered, current = rotation.state.verification, rotation.state.current
    seen = rotation.context.keys_seen.get(rotation.key)
    if seen is None or current is None or seen[0] != current.label:
        return remembered
    if remembered is not None and remembered.time >= seen[1]:
        return remembered
    return Verification(seen[1], current.id, "Accepted")


def _verification(seen: Verification | None) -> dict[str, str] | None:
    return {"time": rfc3339(seen.time), "keyId": seen.key_id, "result": seen.result} if seen is not None else None


def _record(record: Record) -> dict[str, Any]:
    told = {
        "revision": record.revision,
        "keyId": record.key_id,
        "reason": record.reason,
        "startedAt": _moment(record.started_at),
        "publishedAt": _moment(record.published_at),
        "revokedKeyId": record.revoked_key_id,
        "revokedAt": _moment(record.revoked_at),
        "refusedAt": _moment(record.refused_at),
        "finishedAt": _moment(record.finished_at),
    }
    return {name: value for name, value in told.items() if value is not None}
