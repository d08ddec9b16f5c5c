"""When an IngestionJob runs, and what its run is called.

What is checked: each reason to run, and that one run answers all of them; slots in time zones and over daylight saving;
of missed slots only the last, and only within its deadline; wrong schedules in words; names that are the same after a
restart and that Kubernetes takes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from vectorwright.api.cron import next_slot
from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.api.v1alpha1.ingestionjob import Schedule
from vectorwright.errors import Terminal
from vectorwright.kube.status import rfc3339
from vectorwright.reconcile.triggers import Trigger, due, due_slot, run_id

NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
RUN = "vectorwright.dev/run-requested-at"


def job(
    *,
    name: str = "docs",
    generation: int = 1,
    annotations: dict[str, str] | None = None,
    created: datetime = NOON - timedelta(days=3),
    schedule: dict[str, str] | None = None,
    **status: Any,
) -> IngestionJob:
    spec: dict[str, Any] = {"indexRef": {"name": "docs"}, "source": {"configMap": {"name": "texts"}}}
    if schedule:
        spec["schedule"] = schedule
    metadata = {
        "name": name, "namespace": "team-a", "uid": "0b9c", "generation": generation,
        "annotations": annotations or {}, "creationTimestamp": rfc3339(created),
    }  # fmt: skip
    return IngestionJob.model_validate({"metadata": metadata, "spec": spec, "status": status})


def done(**status: Any) -> dict[str, Any]:
    """The status of a job that has nothing left to do."""
    return {"handledGeneration": 1, "handledIncarnation": "i1", **status}


# -- why --
def test_a_new_job_runs_for_its_generation() -> None:
    trigger = due(job(), "i1", NOON)
    assert trigger == Trigger(
        "generation-1-i1", {"handledGeneration": 1, "handledIncarnation": "i1", "handledRequest": None}
    )


def test_a_job_that_has_run_does_nothing() -> None:
    assert due(job(**done()), "i1", NOON) is None


def test_a_changed_spec_runs() -> None:
    trigger = due(job(generation=2, **done()), "i1", NOON)
    assert trigger is not None
    assert trigger.name == "generation-2-i1"


def test_a_request_runs_once_and_is_never_taken_back() -> None:
    asked = job(annotations={RUN: "monday"}, **done())
    trigger = due(asked, "i1", NOON)
    assert trigger is not None
    assert (trigger.name, trigger.handled["handledRequest"]) == ("request-monday", "monday")
    assert due(job(annotations={RUN: "monday"}, **done(handledRequest="monday")), "i1", NOON) is None
    again = due(job(annotations={RUN: "tuesday"}, **done(handledRequest="monday")), "i1", NOON)
    assert again is not None
    assert due(job(**done(handledRequest="monday")), "i1", NOON) is None, "taking the annotation away asks for nothing"


def test_an_index_that_was_made_again_is_filled_again() -> None:
    trigger = due(job(**done()), "i2", NOON)
    assert trigger is not None
    assert (trigger.name, trigger.handled["handledIncarnation"]) == ("incarnation-i2", "i2")


def test_one_run_answers_everything_that_asks_for_one() -> None:
    everything = job(
        generation=5, annotations={RUN: "now"}, schedule={"cron": "0 * * * *"}, **done(handledRequest="before")
    )
    trigger = due(everything, "i2", NOON)
    assert trigger is not None
    assert trigger.name == "generation-5-i2"
    after = job(generation=5, annotations={RUN: "now"}, schedule={"cron": "0 * * * *"}, **trigger.handled)
    assert due(after, "i2", NOON) is None
    assert due(after, "i2", NOON + timedelta(hours=1)) is not None


@given(
    st.integers(1, 3),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from(["i1", "i2"]),
    st.sampled_from([None, {"cron": "*/10 * * * *"}]),
    st.fixed_dictionaries(
        {},
        optional={
            "handledGeneration": st.integers(1, 3),
            "handledIncarnation": st.sampled_from(["i1", "i2"]),
            "handledRequest": st.sampled_from(["a", "b"]),
            "handledSlot": st.sampled_from([rfc3339(NOON - timedelta(minutes=number)) for number in (0, 5, 10, 60)]),
        },
    ),
)
def test_whatever_is_due_is_due_once(
    generation: int, request: str | None, incarnation: str, schedule: dict[str, str] | None, status: dict[str, Any]
) -> None:
    annotations = {RUN: request} if request else {}
    trigger = due(job(generation=generation, annotations=annotations, schedule=schedule, **status), incarnation, NOON)
    if trigger is None:
        return
    after = {**status, **{name: value for name, value in trigger.handled.items() if value is not None}}
    again = job(generation=generation, annotations=annotations, schedule=schedule, **after)
    assert due(again, incarnation, NOON) is None


# -- slots --
def test_a_slot_runs_when_its_time_has_come() -> None:
    hourly = {"cron": "0 * * * *"}
    at = job(schedule=hourly, **done(handledSlot=rfc3339(NOON - timedelta(hours=1))))
    assert due(at, "i1", NOON - timedelta(seconds=1)) is None
    trigger = due(at, "i1", NOON)
    assert trigger is not None
    assert trigger.name == "schedule-2026-06-15T12:00:00Z"
    assert trigger.handled["handledSlot"] == "2026-06-15T12:00:00Z"
    handled = job(schedule=hourly, **done(handledSlot="2026-06-15T12:00:00Z"))
    assert due(handled, "i1", NOON + timedelta(minutes=59)) is None


def test_of_missed_slots_only_the_last_runs() -> None:
    schedule = Schedule(cron="*/10 * * * *")
    assert due_slot(schedule, NOON - timedelta(days=2), NOON + timedelta(minutes=7)) == NOON


@pytest.mark.parametrize(
    ("late", "deadline", "runs"),
    [
        (3599, None, True), (3600, None, True), (3601, None, False), (599, "10m", True), (601, "10m", False),
        (0, "0s", True), (1, "0s", False), (80000, "1d", True),
    ],
)  # fmt: skip
def test_a_missed_slot_runs_within_its_deadline(late: int, deadline: str | None, runs: bool) -> None:
    schedule = Schedule(cron="0 12 * * *", starting_deadline=deadline)
    found = due_slot(schedule, NOON - timedelta(days=1), NOON + timedelta(seconds=late))
    assert found == (NOON if runs else None)


def test_a_slot_before_the_job_existed_does_not_run() -> None:
    schedule = {"cron": "0 * * * *"}
    young = job(schedule=schedule, created=NOON + timedelta(minutes=1), **done())
    assert due(young, "i1", NOON + timedelta(minutes=2)) is None


def test_a_deadline_longer_than_all_time_is_no_trouble() -> None:
    schedule = Schedule(cron="* * * * *", starting_deadline="99999999999999d")
    begun = time.perf_counter()
    assert due_slot(schedule, datetime(1970, 1, 1, tzinfo=UTC), NOON) == NOON
    assert time.perf_counter() - begun < 5, "years of missed minutes are not counted one by one"


def test_slots_are_those_of_the_time_zone() -> None:
    summer = datetime(2026, 7, 1, tzinfo=UTC)
    winter = datetime(2026, 1, 10, tzinfo=UTC)
    schedule = Schedule(cron="30 9 * * *", time_zone="Europe/Berlin")
    assert next_slot(schedule, summer) == datetime(2026, 7, 1, 7, 30, tzinfo=UTC)
    assert next_slot(schedule, winter) == datetime(2026, 1, 10, 8, 30, tzinfo=UTC)
    assert next_slot(Schedule(cron="30 9 * * *"), summer) == datetime(2026, 7, 1, 9, 30, tzinfo=UTC)


def test_a_time_that_a_clock_change_skips_runs_once_that_day() -> None:
    """On 29 March 2026 there was no 02:30 in Berlin."""
    schedule = Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    slot = next_slot(schedule, datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert slot is not None
    assert datetime(2026, 3, 29, 0, 30, tzinfo=UTC) < slot <= datetime(2026, 3, 29, 2, tzinfo=UTC)
    assert due_slot(schedule, slot - timedelta(hours=12), slot + timedelta(minutes=5)) == slot


def test_a_time_that_a_clock_change_repeats_runs_once_that_day() -> None:
    """On 25 October 2026 02:30 came twice in Berlin."""
    schedule = Schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    first = next_slot(schedule, datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert first is not None
    second = next_slot(schedule, first)
    assert second is not None
    assert second - first >= timedelta(hours=24)


@settings(max_examples=150)
@given(
    st.sampled_from(
        ["*/5 * * * *", "30 2 * * *", "0 3 * * *", "15 * * * *", "0 */3 * * *", "45 1,2,3 * * *", "0 0 1 * *"]
    ),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.sampled_from([(3, 29), (10, 25), (3, 8), (11, 1)]),
    st.integers(-86400, 172800),
    st.integers(1, 200000),
)
def test_the_last_slot_is_that_which_the_calendar_has(
    cron: str, zone: str, day: tuple[int, int], offset: int, back: int
) -> None:
    now = datetime(2026, *day, tzinfo=UTC) + timedelta(seconds=offset)
    since = now - timedelta(seconds=back)
    expected = None
    for slot in CronSim(cron, since.astimezone(ZoneInfo(zone))):
        if slot.astimezone(UTC) > now:
            break
        expected = slot.astimezone(UTC)
    assert due_slot(Schedule(cron=cron, time_zone=zone, starting_deadline="30d"), since, now) == expected


def test_a_schedule_that_never_comes_runs_never() -> None:
    leap = Schedule(cron="0 0 29 2 *")
    assert next_slot(leap, NOON) == datetime(2028, 2, 29, tzinfo=UTC)
    assert due_slot(leap, NOON - timedelta(days=30), NOON) is None


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        ("61 * * * *", "Bad minute"),
        ("0 25 * * *", "Bad hour"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("every hour on", "it has 3"),
        ("* * * * * *", "it has 6"),
        ("@hourly @all", "it has 2"),
    ],
)
def test_a_wrong_schedule_is_told_in_words(cron: str, why: str) -> None:
    asked: list[Callable[[Schedule], object]] = [
        lambda schedule: next_slot(schedule, NOON),
        lambda schedule: due_slot(schedule, NOON, NOON),
    ]
    for ask in asked:
        with pytest.raises(Terminal) as caught:
            ask(Schedule(cron=cron))
        assert caught.value.reason == "InvalidSchedule"
        assert caught.value.message == f"spec.schedule.cron: {cron!r} is not a cron expression of five fields: {why}"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Europe", "../../etc/passwd", "/etc/localtime", "Europe/Berlin\0"])
def test_a_wrong_time_zone_is_told_in_words(zone: str) -> None:
    with pytest.raises(Terminal) as caught:
        next_slot(Schedule(cron="0 * * * *", time_zone=zone), NOON)
    assert caught.value.message == f"spec.schedule.timeZone: {zone!r} is not a time zone such as Europe/Berlin"


# -- names --
def test_the_same_trigger_of_the_same_job_is_the_same_run() -> None:
    """So a restart in the middle of a start finds what it began."""
    first = due(job(), "i1", NOON)
    assert first is not None
    assert run_id(job(), first) == run_id(job(), first) == "docs-" + run_id(job(), first).rpartition("-")[2]
    other = due(job(generation=2), "i1", NOON)
    assert other is not None
    assert run_id(job(), first) != run_id(job(), other)


def test_a_job_made_again_under_its_name_has_other_runs() -> None:
    trigger = Trigger("generation-1-i1", {})
    again = job()
    again.metadata.uid = "another"
    assert run_id(job(), trigger) != run_id(again, trigger)


_label = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_names = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?){0,3}\Z")


@given(_names, st.integers(1, 10**6))
def test_names_of_runs_fit_into_the_host_names_of_pods(name: str, attempt: int) -> None:
    found = run_id(job(name=name), Trigger("request-x", {}))
    # Pods of an Indexed Job are called <job>-<index> in DNS, and the Job is <run>-<attempt>.
    host = f"{found}-{attempt}-0"
    assert len(host) <= 63
    assert _label.fullmatch(host)
