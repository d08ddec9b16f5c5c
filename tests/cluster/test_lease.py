"""Leader election on a real API server, with both clients.

What is checked: the Lease is made, renewed and given back; only one of many contenders leads; a holder that stops
renewing is replaced after the lease and not before; times written by skewed clocks change nothing; a stray edit or a
deletion of the Lease does not cost the lead, a rival does; what may not be done is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from deploy.devcluster import Cluster
from tests.support.polling import until

from vectorwright.errors import Terminal
from vectorwright.kube import clock
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import KubeConnection, StaticToken, load_connection
from vectorwright.kube.lease import LeaderElector, Lost, Timings
from vectorwright.kube.resources import LEASES
from vectorwright.kube.slim import SlimClient

pytestmark = pytest.mark.cluster

FAST = Timings(lease=5.0, renew_deadline=3.5, retry=0.4, margin=0.5)

Contender = Callable[[str], LeaderElector]


@pytest.fixture
def connection(devcluster: Cluster) -> KubeConnection:
    return load_connection(devcluster.kubeconfig)


@pytest.fixture
async def client(connection: KubeConnection) -> AsyncIterator[KubeClient]:
    async with KubeClient(connection) as opened:
        yield opened


@pytest.fixture
async def contender(connection: KubeConnection, namespace: str) -> AsyncIterator[Contender]:
    """Makes contenders for one Lease, each with a connection of its own, as the parent process has."""
    opened: list[SlimClient] = []

    def make(identity: str) -> LeaderElector:
        opened.append(SlimClient(connection))
        return LeaderElector(opened[-1], namespace=namespace, name="lead", identity=identity, timings=FAST)

    yield make
    for api in opened:
        await api.close()


@contextlib.asynccontextmanager
async def background(work: Awaitable[object]) -> AsyncIterator[asyncio.Future[object]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_first_contender_makes_the_lease_and_a_second_waits(
    contender: Contender, client: KubeClient, namespace: str
) -> None:
    first, second = contender("first"), contender("second")
    await first.acquire()
    lease = await client.get(LEASES, "lead", namespace)
    assert lease["spec"]["holderIdentity"] == "first"
    assert lease["spec"]["leaseDurationSeconds"] == FAST.lease
    assert lease["spec"]["leaseTransitions"] == 0
    async with background(first.hold()) as holding, background(second.acquire()) as waiting:
        await asyncio.sleep(2 * FAST.lease)
        assert not holding.done()
        assert not waiting.done()
        assert first.leading
        assert not second.leading
        assert second.holder == "first"
    renewed = await client.get(LEASES, "lead", namespace)
    assert renewed["spec"]["renewTime"] > lease["spec"]["renewTime"]
    assert renewed["spec"]["acquireTime"] == lease["spec"]["acquireTime"]


async def test_a_lease_that_is_given_back_is_taken_at_once(
    contender: Contender, client: KubeClient, namespace: str
) -> None:
    first, second = contender("first"), contender("second")
    await first.acquire()
    async with background(second.acquire()) as waiting:
        await asyncio.sleep(1)
        await first.release()
        released = clock.now()
        await asyncio.wait_for(waiting, FAST.lease)
        assert clock.now() - released < FAST.lease - FAST.margin, "only when the lease was over"
    lease = await client.get(LEASES, "lead", namespace)
    assert lease["spec"]["holderIdentity"] == "second"
    # Given back is one change of hands, taken the next: as client-go counts.
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_silent_holder_is_replaced_after_its_lease_and_not_before(contender: Contender) -> None:
    first, second = contender("first"), contender("second")
    await first.acquire()
    ends = first.deadline + FAST.margin
    await asyncio.wait_for(second.acquire(), 3 * FAST.lease)
    assert clock.now() >= ends
    assert not first.leading


@pytest.mark.parametrize("renew_time", ["2001-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"])
async def test_the_times_of_another_clock_do_not_matter(
    contender: Contender, client: KubeClient, namespace: str, renew_time: str
) -> None:
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 2, "renewTime": renew_time, "leaseTransitions": 4}
    await client.create(LEASES, {"metadata": {"name": "lead"}, "spec": spec}, namespace)
    begun = clock.now()
    first = contender("first")
    await asyncio.wait_for(first.acquire(), 10)
    assert clock.now() - begun >= 2.0
    lease = await client.get(LEASES, "lead", namespace)
    assert lease["spec"]["leaseTransitions"] == 5


async def test_of_many_contenders_one_leads(contender: Contender) -> None:
    everyone = [contender(f"c{number}") for number in range(8)]
    tasks = [asyncio.ensure_future(one.acquire()) for one in everyone]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(1)
    assert [one.leading for one in everyone].count(True) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_stray_edit_does_not_cost_the_lead(contender: Contender, client: KubeClient, namespace: str) -> None:
    first = contender("first")
    await first.acquire()
    async with background(first.hold()) as holding:
        for number in range(4):
            await client.patch(LEASES, "lead", namespace, {"metadata": {"annotations": {"n": str(number)}}})
            await asyncio.sleep(0.7)
        assert not holding.done()
        assert first.leading
    lease = await client.get(LEASES, "lead", namespace)
    assert lease["metadata"]["annotations"] == {"n": "3"}


async def test_a_deleted_lease_is_made_again(contender: Contender, client: KubeClient, namespace: str) -> None:
    first = contender("first")
    await first.acquire()
    async with background(first.hold()) as holding:
        await client.delete(LEASES, "lead", namespace)
        async with asyncio.timeout(10):
            while not (made := await client.list(LEASES, namespace)):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)
        assert [lease["spec"]["holderIdentity"] for lease in made] == ["first"]
        assert not holding.done()


async def test_a_rival_costs_the_lead_at_once(contender: Contender, client: KubeClient, namespace: str) -> None:
    first = contender("first")
    await first.acquire()
    async with background(first.hold()) as holding:
        await client.patch(LEASES, "lead", namespace, {"spec": {"holderIdentity": "rival"}})
        assert await asyncio.wait_for(holding, 10) is Lost.TAKEN
    assert not first.leading
    await first.release()
    assert (await client.get(LEASES, "lead", namespace))["spec"]["holderIdentity"] == "rival"


async def test_a_lease_that_cannot_be_renewed_is_lost_inside_itself(devcluster: Cluster, contender: Contender) -> None:
    first = contender("first")
    await first.acquire()
    async with background(first.hold()) as holding:
        await asyncio.sleep(1)
        await asyncio.to_thread(devcluster.kill_apiserver)
        try:
            assert await asyncio.wait_for(holding, FAST.lease) is Lost.EXPIRED
            assert clock.now() < first.deadline
            assert not first.leading
            assert first.last_error is not None
        finally:
            await asyncio.to_thread(devcluster.start_apiserver)
    # And it comes back by itself.
    await asyncio.wait_for(first.acquire(), 30)
    await first.release()


async def test_what_may_not_be_done_is_told(devcluster: Cluster, connection: KubeConnection, namespace: str) -> None:
    devcluster.kubectl_run("create", "serviceaccount", "weak", "-n", namespace)
    token = devcluster.kubectl_run("create", "token", "weak", "-n", namespace).strip()
    weak = dataclasses.replace(connection, token=StaticToken(token), client_certificate=None, client_key=None)
    api = SlimClient(weak)
    first = LeaderElector(api, namespace=namespace, name="lead", identity="first", timings=FAST)
    async with background(first.acquire()) as waiting:
        await until(lambda: isinstance(first.last_error, Terminal), 20, 0.1)
        assert not waiting.done()
    assert isinstance(first.last_error, Terminal)
    assert 'cannot get resource "leases"' in first.last_error.message
    await api.close()


async def test_the_larger_client_serves_as_well(client: KubeClient, namespace: str) -> None:
    first = LeaderElector(client, namespace=namespace, name="lead", identity="first", timings=FAST)
    await first.acquire()
    assert first.leading
    await first.release()
    assert (await client.get(LEASES, "lead", namespace))["spec"]["holderIdentity"] == ""
