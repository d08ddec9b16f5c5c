"""The times of a cron expression in a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from vectorwright.errors import Terminal

from .v1alpha1.common import Calendar

WHERE = "spec.schedule"


def slots(calendar: Calendar, start: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """The times after ``start``, or (``reverse``) before it, the nearest first, UTC; none beyond fifty years.

    Raises Terminal (``InvalidSchedule``).
    """
    try:
        zone = ZoneInfo(calendar.time_zone) if calendar.time_zone else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as Europe
        raise Terminal(
            f"{WHERE}.timeZone: {calendar.time_zone!r} is not a time zone such as Europe/Berlin",
            reason="InvalidSchedule",
        ) from None
    problem = f"it has {len(calendar.cron.split())}"
    if len(calendar.cron.split()) == 5:
        try:
            found = CronSim(calendar.cron, start.astimezone(zone), reverse=reverse)
            return (slot.astimezone(UTC) for slot in found)
        except CronSimError as error:
            problem = str(error)
    raise Terminal(
        f"{WHERE}.cron: {calendar.cron!r} is not a cron expression of five fields: {problem}", reason="InvalidSchedule"
    )


def next_slot(calendar: Calendar, after: datetime) -> datetime | None:
    """The first time after a moment. None when there is none in the next fifty years. Raises Terminal."""
    return next(slots(calendar, after), None)
