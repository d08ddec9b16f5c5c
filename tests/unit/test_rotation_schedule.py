"""When a key is replaced.

- An interval counts from the issue of the key; many missed ones come to one rotation.
- A cron schedule takes the first time after the issue, in its time zone, over changes of daylight saving.
- A key that expires is replaced a third of its life, or ``renewBefore``, ahead; never in the moment of its making.
- A key that expires lives beyond its replacement and the overlap after it.
- A request counts once; another identity, a lost value and no key at all ask for one.
- A replaced key ends after the overlap, and where it cannot be revoked, after its expiry and the store's leeway.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vectorwright.api.v1alpha1.apikeyrotation import APIKeyRotationSpec
from vectorwright.errors import Terminal
from vectorwright.rotation import schedule
from vectorwright.rotation.base import IssuerTraits, KeyMaterial
from vectorwright.rotation.state import KeyRecord, Record, RotationState, Step

NOW = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)
KEY = KeyRecord(3, "k3", "k3", NOW, material=KeyMaterial(token="secret-of-three"), made=True)
STATE = RotationState(revision=3, current=KEY, identity="same")
EXPIRING = IssuerTraits(generates=True, expires=True, revocable=False, leeway=30)


def spec(**fields: Any) -> APIKeyRotationSpec:
    given = {
        "storeRef": {"name": "store"},
        "identity": {"generated": {}},
        "secret": {"name": "key"},
        "overlap": "1h",
        **fields,
    }
    return APIKeyRotationSpec.model_validate(given)


def due(at: datetime, state: RotationState = STATE, *, request: str | None = None, **fields: Any) -> str | None:
    return schedule.due(spec(**fields), state, "same", request, at)


def test_without_an_interval_nothing_is_due() -> None:
    assert schedule.renewal_time(spec(), KEY) is None
    assert due(NOW + timedelta(days=10_000)) is None


@pytest.mark.parametrize(
    "late", [timedelta(), timedelta(hours=1), timedelta(days=400)], ids=["on time", "late", "a year"]
)
def test_an_interval_counts_from_the_issue(late: timedelta) -> None:
    assert due(NOW + timedelta(days=30) - timedelta(seconds=1), rotationInterval="30d") is None
    at = NOW + timedelta(days=30) + late
    assert due(at, rotationInterval="30d") == "Interval"
    # The key that is issued then begins a new interval, however many were missed.
    issued = replace(STATE, current=replace(KEY, issued_at=at))
    assert due(at + timedelta(seconds=1), issued, rotationInterval="30d") is None


def test_an_interval_of_nothing_does_not_rotate_without_end() -> None:
    assert schedule.renewal_time(spec(rotationInterval="0s"), KEY) == (NOW + timedelta(seconds=1), "Interval")


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        (None, datetime(2026, 3, 29, 3, 0, tzinfo=UTC)),
        # Summer time begins that night: three o'clock in Berlin is one o'clock UTC.
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    ],
    ids=["UTC", "Berlin"],
)
def test_a_cron_schedule_takes_the_first_time_after_the_issue(zone: str | None, expected: datetime) -> None:
    calendar = {"cron": "0 3 * * *", **({"timeZone": zone} if zone else {})}
    assert schedule.renewal_time(spec(schedule=calendar), KEY) == (expected, "Schedule")
    assert due(expected - timedelta(seconds=1), schedule=calendar) is None
    assert due(expected + timedelta(days=90), schedule=calendar) == "Schedule"


def test_a_schedule_that_is_none_is_told() -> None:
    with pytest.raises(Terminal) as caught:
        due(NOW, schedule={"cron": "61 3 * * *"})
    assert (caught.value.reason, "spec.schedule.cron" in caught.value.message) == ("InvalidSchedule", True)


@pytest.mark.parametrize(
    ("before", "expected"),
    [(None, timedelta(days=20)), ("1d", timedelta(days=29)), ("60d", timedelta(days=20))],
    ids=["a third", "as the spec says", "longer than it lives"],
)
def test_a_key_that_expires_is_replaced_ahead(before: str | None, expected: timedelta) -> None:
    key = replace(KEY, not_after=NOW + timedelta(days=30))
    fields = {"renewBefore": before} if before else {}
    assert schedule.renewal_time(spec(**fields), key) == (NOW + expected, "Expiry")


def test_the_earlier_of_interval_and_expiry_counts() -> None:
    key = replace(KEY, not_after=NOW + timedelta(days=3))
    assert schedule.renewal_time(spec(rotationInterval="1d"), key) == (NOW + timedelta(days=1), "Interval")
    assert schedule.renewal_time(spec(rotationInterval="10d"), key) == (NOW + timedelta(days=2), "Expiry")


@pytest.mark.parametrize(
    ("fields", "life"),
    [
        ({"rotationInterval": "10d"}, timedelta(days=15, hours=1)),
        ({"keyLifetime": "7d", "rotationInterval": "1d"}, timedelta(days=7)),
        ({}, timedelta(days=30)),
        ({"schedule": {"cron": "0 12 * * *"}}, timedelta(days=3, hours=1)),
    ],
    ids=["interval", "said", "neither", "schedule"],
)
def test_a_key_that_expires_lives_beyond_its_replacement(fields: dict[str, Any], life: timedelta) -> None:
    assert schedule.expiry(spec(**fields), EXPIRING, NOW) == NOW + life
    issued = replace(KEY, not_after=NOW + life)
    renewal = schedule.renewal_time(spec(**fields), issued)
    assert renewal is not None
    # The one before must live until the overlap after the replacement is over.
    assert renewal[0] + timedelta(hours=1) <= NOW + life


def test_a_key_that_does_not_expire_has_no_expiry() -> None:
    assert schedule.expiry(spec(rotationInterval="1d"), IssuerTraits(generates=True), NOW) is None


def test_a_request_counts_once() -> None:
    assert due(NOW, request="a") == "Requested"
    assert due(NOW, replace(STATE, handled_request="a"), request="a") is None
    assert due(NOW, replace(STATE, handled_request="a"), request="b") == "Requested"
    assert due(NOW, replace(STATE, handled_request="a")) is None


def test_what_else_asks_for_a_key() -> None:
    assert due(NOW, RotationState()) == "Initial"
    assert due(NOW, replace(STATE, current=replace(KEY, material=None))) == "KeyLost"
    assert schedule.due(spec(), STATE, "another", None, NOW) == "SpecChanged"


def test_a_replaced_key_ends_after_the_overlap() -> None:
    record = Record(4, "k4", "Interval", NOW, published_at=NOW)
    state = replace(STATE, previous=KEY, record=record, step=Step.GRACE)
    # The time of publication is cut to a second: the overlap may have begun as much later.
    ends = NOW + timedelta(hours=1, seconds=1)
    assert schedule.revocable_from(spec(), IssuerTraits(generates=True), state) == ends
    assert schedule.revocable_from(spec(), EXPIRING, state) == ends
    assert schedule.revocable_from(spec(overlap="0s"), EXPIRING, state) == NOW
    assert schedule.revocable_from(spec(), EXPIRING, replace(state, previous=None)) is None


def test_one_that_cannot_be_revoked_ends_after_its_expiry_and_the_leeway() -> None:
    previous = replace(KEY, not_after=NOW + timedelta(days=2))
    state = replace(STATE, previous=previous, record=Record(4, "k4", "Interval", NOW, published_at=NOW))
    assert schedule.revocable_from(spec(), EXPIRING, state) == NOW + timedelta(days=2, seconds=30)


@pytest.mark.parametrize(("life", "overlap", "works"), [("1h", "30m", True), ("1h", "40m", False), ("1h", "2h", False)])
def test_a_key_must_outlive_the_overlap_of_the_one_before(life: str, overlap: str, works: bool) -> None:
    given = spec(keyLifetime=life, overlap=overlap)
    schedule.check(given, IssuerTraits(generates=True))
    if works:
        schedule.check(given, EXPIRING)
        return
    with pytest.raises(Terminal, match=r"spec\.keyLifetime") as caught:
        schedule.check(given, EXPIRING)
    assert caught.value.reason == "InvalidSpec"
