"""Leader election where the clock and the network play tricks that no real server shows on demand."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vectorwright.errors import Conflict, NotFound, Retryable
from vectorwright.kube.lease import LeaderElector, Lost
from vectorwright.kube.resources import ResourceType


class Time:
    """A clock that only moves when told, and a sleep that moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Api:
    """One Lease with the API server's rule: a replacement must carry the version that is stored.

    ``faults`` are taken one a call: "down" does nothing, "silent" does what is asked but the answer is lost.
    """

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.faults: list[str] = []
        self._version = 0

    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> dict[str, Any]:
        self._fault()
        if self.stored is None:
            raise NotFound("no such lease")
        return copy.deepcopy(self.stored)

    async def create(
        self, resource: ResourceType, body: dict[str, Any], namespace: str | None = None
    ) -> dict[str, Any]:
        silent = self._fault()
        if self.stored is not None:
            raise Conflict("exists", reason="AlreadyExists")
        return self._store(body, silent=silent)

    async def replace(
        self, resource: ResourceType, name: str, namespace: str | None, body: dict[str, Any]
    ) -> dict[str, Any]:
        silent = self._fault()
        if self.stored is None:
            raise NotFound("no such lease")
        if body["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store(body, silent=silent)

    def _fault(self) -> bool:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "down":
            raise Retryable("down")
        return fault == "silent"

    def _store(self, body: dict[str, Any], *, silent: bool) -> dict[str, Any]:
        self._version += 1
        self.stored = copy.deepcopy(body)
        self.stored["metadata"]["resourceVersion"] = str(self._version)
        if silent:
            raise Retryable("the answer was lost")
        return copy.deepcopy(self.stored)

    @property
    def holder(self) -> str:
        assert self.stored is not None
        return str(self.stored["spec"]["holderIdentity"])


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def api() -> Api:
    return Api()


def contender(api: Api, time: Time, identity: str) -> LeaderElector:
    return LeaderElector(api, namespace="n", name="l", identity=identity, now=time, sleep=time.sleep)


async def test_a_machine_that_slept_does_not_believe_that_it_leads(api: Api, time: Time) -> None:
    first = contender(api, time, "first")
    await first.acquire()
    before = first.leading
    time.now += 3600
    assert (before, first.leading) == (True, False)
    second = contender(api, time, "second")
    time.now += 11
    await second.acquire()
    assert api.holder == "second"
    assert await first.hold() is Lost.TAKEN


async def test_a_lease_ends_when_renewals_fail_and_work_ends_before_it(api: Api, time: Time) -> None:
    first = contender(api, time, "first")
    await first.acquire()
    renewed = time.now
    api.faults = ["down"] * 100
    assert await first.hold() is Lost.EXPIRED
    assert 6.0 <= time.now - renewed < 6.5
    assert first.deadline == renewed + 9.0


async def test_one_failed_renewal_is_made_good(api: Api, time: Time) -> None:
    first = contender(api, time, "first")
    await first.acquire()
    api.faults = ["down", "", "down", "", *["down"] * 100]
    begun = time.now
    await first.hold()
    assert time.now - begun > 12


async def test_a_renewal_whose_answer_was_lost_does_not_cost_the_lead(api: Api, time: Time) -> None:
    first = contender(api, time, "first")
    await first.acquire()
    deadline = first.deadline
    api.faults = ["silent", "", "", "", *["down"] * 100]
    await first.hold()
    assert first.last_error is not None
    assert api.holder == "first"
    assert first.deadline > deadline


async def test_a_lost_answer_never_lengthens_the_lease(api: Api, time: Time) -> None:
    first = contender(api, time, "first")
    await first.acquire()
    deadline = first.deadline
    api.faults = ["silent", *["down"] * 100]
    assert await first.hold() is Lost.EXPIRED
    assert first.deadline == deadline


async def test_it_is_given_back_even_after_a_lost_answer(api: Api, time: Time) -> None:
    first = contender(api, time, "first")
    await first.acquire()
    api.faults = ["silent", *["down"] * 3]
    assert await first.hold() is Lost.EXPIRED
    api.faults = []
    await first.release()
    assert api.holder == ""


async def test_what_is_no_longer_ours_is_not_given_back(api: Api, time: Time) -> None:
    first, second = contender(api, time, "first"), contender(api, time, "second")
    await first.acquire()
    time.now += 3
    # The second one must see the lease unchanged for its whole length.
    await second.acquire()
    await first.release()
    assert api.holder == "second"


async def test_the_lease_of_a_longer_version_is_respected(api: Api, time: Time) -> None:
    api.stored = {
        "metadata": {"name": "l", "resourceVersion": "x"},
        "spec": {"holderIdentity": "other", "leaseDurationSeconds": 60},
    }
    begun = time.now
    await contender(api, time, "first").acquire()
    assert 60 <= time.now - begun < 63
