"""When an IngestionJob runs: pure functions of its spec, its annotations, its status and the clock."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from vectorwright.api.cron import slots
from vectorwright.api.v1alpha1.common import ANNOTATION_RUN, seconds
from vectorwright.api.v1alpha1.ingestionjob import IngestionJob, Schedule
from vectorwright.kube.status import rfc3339

DEFAULT_STARTING_DEADLINE = 3600.0


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a run starts."""

    name: str
    """``generation-3``, ``request-<value>``, ``schedule-<slot>`` or ``incarnation-<id>``."""
    handled: dict[str, Any]
    """Status fields that record it as handled."""


def run_id(job: IngestionJob, trigger: Trigger) -> str:
    """Name of a run: the same trigger of the same job is the same run, also after a restart of the operator.

    A DNS label of at most 51 characters: the pods of an Indexed Job have it in their host names.
    """
    digest = hashlib.sha256(f"{job.metadata.uid}/{trigger.name}".encode()).hexdigest()[:10]
    return f"{job.metadata.name[:40].replace('.', '-').rstrip('-')}-{digest}"


def due_slot(schedule: Schedule, since: datetime, now: datetime) -> datetime | None:
    """The last slot in (since, now] that may still start: of several missed ones only that one. Raises Terminal."""
    deadline = seconds(schedule.starting_deadline) if schedule.starting_deadline else DEFAULT_STARTING_DEADLINE
    # Backwards from now, so that a year of missed minutes costs no more than one.
    backwards = slots(schedule, now + timedelta(seconds=1), reverse=True)
    last = next((slot for slot in backwards if slot <= now), None)
    if last is None or last <= since or (now - last).total_seconds() > deadline:
        return None
    return last


def due(job: IngestionJob, incarnation: str, now: datetime) -> Trigger | None:
    """Why a run is due now, if one is. Raises Terminal when the schedule is wrong.

    One run answers everything that asks for one at its start.
    """
    status, metadata = job.status, job.metadata
    request = metadata.annotations.get(ANNOTATION_RUN)
    everything: dict[str, Any] = {
        "handledGeneration": metadata.generation,
        "handledIncarnation": incarnation,
        "handledRequest": request or status.handled_request,
    }
    slot = None
    if job.spec.schedule is not None:
        slot = due_slot(job.spec.schedule, status.handled_slot or metadata.creation_timestamp or now, now)
    if slot is not None:
        everything["handledSlot"] = rfc3339(slot)
    if status.handled_generation != metadata.generation:
        return Trigger(f"generation-{metadata.generation}-{incarnation}", everything)
    if request and request != status.handled_request:
        return Trigger(f"request-{request}", everything)
    if status.handled_incarnation != incarnation:
        return Trigger(f"incarnation-{incarnation}", everything)
    return None if slot is None else Trigger(f"schedule-{rfc3339(slot)}", everything)
