"""What is to be remembered of a rotation from step to step: the truth, of which the status of the resource tells a
part.

It is kept in a private Secret, because values are shown once: the pending one from the moment of its making, and the
one before until its refusal is proved. The values are in fields of their own (``pending.token`` …); everything else is
JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from vectorwright.errors import Terminal

from .base import KeyMaterial, LiveKey

STATE_FIELD = "state.json"
FORMAT = 1
"""Of the JSON. Fields are only ever added within one; a newer one is neither read nor overwritten."""
MOST_RECORDS = 20


class Step(StrEnum):
    """Where a rotation is: the step that is to be done next."""

    IDLE = "Idle"
    CREATE = "Create"
    VERIFY = "Verify"
    PUBLISH = "Publish"
    RESTART = "Restart"
    WAIT = "Wait"
    GRACE = "Grace"
    REVOKE = "Revoke"
    VERIFY_REFUSED = "VerifyRefused"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key. Its repr shows no value."""

    revision: int
    id: str
    """Id at the store; the name while the store has not given one yet."""
    name: str
    issued_at: datetime
    not_after: datetime | None = None
    material: KeyMaterial | None = None
    """Its value; None where it is not known."""
    made: bool = False
    """Whether the store has it. False: about to be made."""
    dead: bool = False
    """Whether the store is known to refuse it: what has its name may be made anew."""

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.not_after is not None and self.not_after < now

    def usable(self, now: datetime) -> bool:
        """Whether consumers may still use it: it was neither refused for good, nor has it expired."""
        return not (self.dead or self.expired(now))

    @property
    def live(self) -> LiveKey:
        """As an issuer is told of it."""
        return LiveKey(self.id, self.name, self.revision)

    @property
    def label(self) -> str:
        """Stands for this very key on pod templates: ``7-1786752000``. Other than the revision, never used twice."""
        return f"{self.revision}-{int(self.issued_at.timestamp())}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The last proof by a real call. ``result``: Accepted, Refused, StillAccepted, NotProvable."""

    time: datetime
    key_id: str
    result: str


@dataclass(frozen=True, slots=True)
class Record:
    """One rotation of the past, or the present one as far as it came."""

    revision: int
    key_id: str
    reason: str
    started_at: datetime
    published_at: datetime | None = None
    revoked_key_id: str | None = None
    revoked_at: datetime | None = None
    refused_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RotationState:
    """All that is remembered of one APIKeyRotation."""

    step: Step = Step.IDLE
    revision: int = 0
    """Number of the last key that was begun."""
    pending: KeyRecord | None = None
    current: KeyRecord | None = None
    """The key that the Secret holds, or is to hold from step Publish on."""
    previous: KeyRecord | None = None
    """The key before it, until its end is proved."""
    identity: str = ""
    """Digest of the identity that the current key was made for."""
    drafted_for: str = ""
    """Digest of the identity that the pending key is made for."""
    handled_request: str | None = None
    revocations: int = 0
    """Keys that were revoked so far: the first one may wait for a person."""
    published: bool = False
    """Whether the Secret was ever written: one that vanished since is made again."""
    remade: int = 0
    """How often the pending key was made again because the store refused it."""
    restarted: tuple[str, ...] = ()
    """Workloads that were restarted for the current key: one that lost its restart is told from one that is new."""
    reverts: int = 0
    """How often a restart for the current key was taken back by somebody."""
    reverted_at: datetime | None = None
    """When that was seen last."""
    republished: int = 0
    """How often the Secret held something else while the key before lived: pods may have started with that."""
    endpoint: str = ""
    """Where the current key was made: at another address it may mean nothing."""
    maker: str | None = None
    """The process that makes the pending key, where the store makes its value."""
    claimed_at: datetime | None = None
    """When that one began."""
    step_since: datetime | None = None
    """When the present step began."""
    record: Record | None = None
    """The rotation that is going on, or the last one."""
    history: tuple[Record, ...] = ()
    """Past rotations, the newest first."""
    verification: Verification | None = None

    def at(self, step: Step, now: datetime, **changes: Any) -> RotationState:
        """The state in which ``step`` is the next one."""
        return replace(self, step=step, step_since=now, **changes)

    def noted(self, **changes: Any) -> RotationState:
        """With changes to the record of the rotation that is going on."""
        return replace(self, record=replace(self.record, **changes)) if self.record is not None else self

    def finished(self, now: datetime) -> RotationState:
        """Idle again, with the rotation in the history."""
        done = replace(self.record, finished_at=now) if self.record is not None else None
        history = ((done, *self.history) if done is not None else self.history)[:MOST_RECORDS]
        return self.at(Step.IDLE, now, previous=None, record=None, history=history)


_FIELDS = frozenset(part.name for part in fields(RotationState))
_SLOTS = ("pending", "current", "previous")
_PARTS = tuple(part.name for part in fields(KeyMaterial))


def to_data(state: RotationState) -> dict[str, str]:
    """The fields of the private Secret."""
    plain = asdict(replace(state, pending=None, current=None, previous=None))
    data: dict[str, str] = {}
    for slot in _SLOTS:
        key: KeyRecord | None = getattr(state, slot)
        plain[slot] = None
        if key is not None:
            plain[slot] = asdict(replace(key, material=None)) | {"known": key.material is not None}
            if key.material is not None:
                data |= {f"{slot}.{part}": value for part, value in key.material.parts.items()}
    data[STATE_FIELD] = json.dumps({"format": FORMAT, **plain}, default=_moment, sort_keys=True)
    return data


def from_data(data: Mapping[str, bytes]) -> RotationState | None:
    """The state that :func:`to_data` wrote; None where it is missing or damaged.

    Raises Terminal (``StateTooNew``) where a newer version of the operator wrote it.
    """
    try:
        plain = json.loads(data[STATE_FIELD])
        if plain.pop("format") > FORMAT:
            raise Terminal(
                "what this rotation remembers was written by a newer version of the operator: nothing is done until "
                "that one is back",
                reason="StateTooNew",
            )
        # What an older version does not know it does without.
        plain = {name: value for name, value in plain.items() if name in _FIELDS}
        plain["step"] = Step(plain["step"])
        for slot in _SLOTS:
            plain[slot] = _key(plain[slot], slot, data)
        plain["record"] = _record(plain["record"])
        plain["history"] = tuple(record for item in plain["history"] if (record := _record(item)) is not None)
        seen = plain["verification"]
        plain["verification"] = Verification(**{**seen, "time": _time(seen["time"])}) if seen else None
        plain["step_since"] = _time(plain["step_since"])
        for name in ("claimed_at", "reverted_at"):
            plain[name] = _time(plain.get(name))
        plain["restarted"] = tuple(plain.get("restarted", ()))
        return RotationState(**plain)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _key(plain: dict[str, Any] | None, slot: str, data: Mapping[str, bytes]) -> KeyRecord | None:
    if plain is None:
        return None
    material = None
    if plain.pop("known"):
        parts = {part: data[f"{slot}.{part}"].decode() for part in _PARTS if f"{slot}.{part}" in data}
        material = KeyMaterial(**parts) if parts else None
    moments = {name: _time(plain[name]) for name in ("issued_at", "not_after")}
    return KeyRecord(**{**plain, **moments, "material": material})


def _record(plain: dict[str, Any] | None) -> Record | None:
    if plain is None:
        return None
    moments = {name: _time(value) for name, value in plain.items() if name.endswith("_at")}
    return Record(**{**plain, **moments})


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"no JSON for a {type(value).__name__}")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
