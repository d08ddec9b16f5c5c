"""Faults at every call of every store, put on every transport that it speaks.

- whatever request of a call meets a fault, the first or the last one, the call ends in the right kind of error
- in time, without a credential and without unbounded foreign text in it
- and every one of the faults was met: a test that nothing reaches proves nothing
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from tests.contract.calls import Call, calls_of, prepare
from tests.contract.fault_plan import FAULTS
from tests.contract.faulty_transports import FaultyTransports
from tests.contract.providers import Provider
from tests.contract.report import CASE
from tests.contract.verdicts import Met, problem

from vectorwright.errors import Retryable
from vectorwright.stores.base import Store
from vectorwright.stores.registry import open_store

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]
_REQUESTS: dict[tuple[str, str], int] = {}
"""(provider, call) → requests of a handle that was never used before, as they were counted without a fault."""
SHORT = 0.6
"""Seconds of a request where nobody answers."""
SLACK = 5.0
"""Seconds that a call may take beyond the timeouts of the requests that met silence, also on a busy machine."""
ATTEMPTS = 4
"""A busy machine may take all of those before the request leaves: then nothing was seen, and it is tried with more."""
PARALLEL = 12


@pytest.fixture
async def prepared(provider: Provider, store: Store) -> Store:
    """A store, reached directly, with what the calls are about."""
    await prepare(store, provider)
    return store


@pytest.fixture
def transports(provider: Provider, prepared: Store) -> Iterator[FaultyTransports]:
    """The same store behind proxies."""
    with FaultyTransports(provider) as transports:
        yield transports


@pytest.fixture
async def usual(provider: Provider, prepared: Store, transports: FaultyTransports) -> dict[str, int]:
    """How many requests each call makes that meets no fault."""
    for call in calls_of(prepared.capabilities):
        if (provider.name, call.name) not in _REQUESTS:
            transports.plan.disarm()
            async with open_store(transports.connection()) as fresh:
                await call.run(fresh)
                _REQUESTS[provider.name, call.name] = transports.plan.seen
            if call.changes:
                await prepare(prepared, provider)
    return {call.name: _REQUESTS[provider.name, call.name] for call in calls_of(prepared.capabilities)}


async def meet(transports: FaultyTransports, call: Call, fault: str, first: int, usual: int, seconds: float) -> Met:
    """Make a call with a handle that was never used before, and see how it ends."""
    transports.plan.arm(fault, first)
    store = open_store(transports.connection(seconds))
    started = time.monotonic()
    try:
        (result,) = await asyncio.gather(asyncio.wait_for(_made(call, store), 30), return_exceptions=True)
        met = list(transports.plan.met)
        late = time.monotonic() - started > seconds * max(1, len(met)) + SLACK
        return Met(call, fault, first, usual, met, result, late)
    finally:
        transports.plan.disarm()
        await store.close()


async def _made(call: Call, store: Store) -> object:
    return await call.run(store)


def positions(count: int) -> list[int]:
    return sorted({0, count - 1})


def secrets_of(provider: Provider) -> list[str]:
    held = provider.connection().credentials
    return [secret for secret in (held.token, held.password) if secret]


def failures(met: list[Met], secrets: list[str]) -> str:
    """What went wrong, a line a call."""
    return "\n".join(f"{wrong}: {one}" for one in met if (wrong := problem(one, secrets)) is not None)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "timeout"])
async def test_a_fault_at_any_call_is_the_right_kind_of_error(
    provider: Provider,
    prepared: Store,
    transports: FaultyTransports,
    usual: dict[str, int],
    fault: str,
    record_property: Callable[[str, object], None],
) -> None:
    record_property(CASE, fault)
    met = []
    for call in calls_of(prepared.capabilities):
        for first in positions(usual[call.name]):
            one = await meet(transports, call, fault, first, usual[call.name], 5.0)
            if call.changes and first:
                await prepare(prepared, provider)
            if not one.transports:
                # What a call finds to tidy up may be one request less than before; and gRPC's handles to one address
                # share a connection, so that a new one may hear of the last one's end before it sent anything.
                one = await meet(transports, call, fault, max(first - 1, 0), first or usual[call.name], 5.0)
                await prepare(prepared, provider)
            met.append(one)
    assert len(met) >= len(usual)
    assert failures(met, secrets_of(provider)) == ""


async def test_silence_at_any_call_is_retryable_in_time(
    provider: Provider, prepared: Store, usual: dict[str, int]
) -> None:
    """Calls that change something run one after the other, the others side by side: waiting is all that they do."""
    slots = asyncio.Semaphore(PARALLEL)

    async def wait(call: Call, first: int) -> Met:
        async with slots:
            for attempt in range(ATTEMPTS):
                with FaultyTransports(provider) as transports:
                    met = await meet(transports, call, "timeout", first, usual[call.name], SHORT * 2**attempt)
                if met.transports or not isinstance(met.result, Retryable):
                    break
            return met

    calls = calls_of(prepared.capabilities)
    beside = [
        wait(call, first) for call in calls for first in positions(usual[call.name]) if not call.changes or not first
    ]
    met = await asyncio.gather(*beside)
    for call in calls:
        if call.changes and usual[call.name] > 1:
            one = await wait(call, usual[call.name] - 1)
            await prepare(prepared, provider)
            if not one.transports:  # as above
                one = await wait(call, usual[call.name] - 2)
                await prepare(prepared, provider)
            met.append(one)
    assert failures(met, secrets_of(provider)) == ""
