"""The right to change things ends with the lease, and no lease without a margin is accepted."""

from __future__ import annotations

import pytest

from vectorwright.errors import Retryable
from vectorwright.kube import clock
from vectorwright.kube.lease import Timings
from vectorwright.kube.tenure import Tenure, process_tenure, tenure_guard


def test_without_a_lease_there_is_no_end() -> None:
    assert Tenure().require() is None
    assert process_tenure().require() is None
    assert tenure_guard() is None


def test_a_call_gets_what_is_left_and_none_begins_too_late() -> None:
    time = [100.0]
    tenure = Tenure(lambda: time[0])
    tenure.set_deadline(109.0)
    assert tenure.require() == 9.0
    time[0] = 108.5
    assert tenure.require() == 0.5
    for late in (108.9, 109.0, 500.0):
        time[0] = late
        with pytest.raises(Retryable) as refused:
            tenure.require()
        assert refused.value.reason == "LeaseLost"
    tenure.set_deadline(520.0)
    assert tenure.remaining() == 20.0


def test_the_clock_never_goes_back() -> None:
    readings = [clock.now() for _ in range(1000)]
    assert readings == sorted(readings)


@pytest.mark.parametrize(
    "timings",
    [
        {"lease": 6.0, "renew_deadline": 6.0},
        {"lease": 10.0, "renew_deadline": 9.5, "margin": 1.0},
        {"renew_deadline": 2.0, "retry": 2.0},
    ],
)
def test_timings_that_leave_no_room_are_refused(timings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must outlast"):
        Timings(**timings)
