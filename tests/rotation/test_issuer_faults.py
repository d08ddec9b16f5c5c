"""What every issuer of keys does when something fails, on its real server or double.

- the admin is refused, lacks the right, or names a role that is not there: said as such, nothing changed
- a server that is down or silent is worth another try, in each method, and nothing changed
- whatever exchange a process is killed in, or a task cancelled: the same method, called again, comes to the same end,
  and the published key is valid all the while
- a process that is no longer the leader changes nothing
- no key and no password shows in an error, a log record or a repr
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.rotation.cases import IssuerCase, OpenIssuer, key_request
from tests.rotation.exchanges import Mode
from tests.rotation.issuers import over
from tests.rotation.steps import after_break, becomes, begin, is_accepted, is_refused, make, names_live, revoke

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.rotation.base import Assignment, IssuedKey, KeyIssuer, LiveKey

pytestmark = pytest.mark.server
MOST_EXCHANGES = 80
"""More than any one method needs: a test that counts further is in a circle."""
CANCEL_SECONDS = 15.0
"""Within this time a task that was cancelled has ended."""


def impatient(assignment: Assignment, seconds: float = 1.5) -> Assignment:
    """The same with less time for a call."""
    return replace(assignment, connection=replace(assignment.connection, timeout=seconds))


def methods(case: IssuerCase, issuer: KeyIssuer, key: IssuedKey) -> dict[str, Callable[[], Awaitable[object]]]:
    """Calls of each method that asks the server. Those that change something are about revision 2."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "check": issuer.check,
        "create": lambda: issuer.create(key_request(issuer, 2, key.material)),
        "accepts": lambda: issuer.accepts(key.material),
        "revoke": lambda: issuer.revoke(LiveKey(key.id, issuer.name_of(1), 1)),
        "live": issuer.live,
    }
    return {name: call for name, call in calls.items() if name in case.calls}


async def refusal(call: Callable[[], Awaitable[object]]) -> Terminal:
    with pytest.raises(Terminal) as refused:
        await call()
    return refused.value


@over(lambda case: case.has("wrong_admin"))
async def test_an_admin_who_is_refused(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    before = await case.inventory()
    issuer = open_issuer(case.wrong_admin())
    assert (await refusal(issuer.check)).reason == "AccessDenied"
    for call in (lambda: issuer.create(key_request(issuer, 1)), issuer.live):
        if "live" in case.calls:
            assert (await refusal(call)).reason == "AccessDenied"
    assert await case.inventory() == before


@over(lambda case: case.has("without_right"))
async def test_an_admin_who_may_not_make_keys(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    before = await case.inventory()
    issuer = open_issuer(case.without_right())
    assert (await refusal(issuer.check)).reason in case.right_reasons
    assert (await refusal(lambda: issuer.create(key_request(issuer, 1)))).reason in case.right_reasons | {
        "AccessDenied"
    }
    assert await case.inventory() == before


@over(lambda case: case.has("missing_role"))
async def test_what_the_identity_names_must_exist(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    before = await case.inventory()
    issuer = open_issuer(case.missing_role())
    for call in (issuer.check, lambda: issuer.create(key_request(issuer, 1))):
        assert (await refusal(call)).reason == case.missing_reason
    assert await case.inventory() == before


@pytest.mark.parametrize("mode", ["down", "silent"])
@over(lambda case: bool(case.calls))
async def test_a_server_that_does_not_answer(case: IssuerCase, open_issuer: OpenIssuer, mode: Mode) -> None:
    key = await begin(case, open_issuer())
    before = await case.inventory()
    warm, cold = open_issuer(impatient(case.assignment())), open_issuer(impatient(case.assignment()))
    if "live" in case.calls:
        await after_break(warm.live)
    case.exchanges.be(mode)

    async def fails(issuer: KeyIssuer) -> None:
        for name, call in methods(case, issuer, key).items():
            with pytest.raises(Retryable) as failed:
                await asyncio.wait_for(call(), 30)
            assert failed.value.reason != "InProgress", name

    await asyncio.gather(fails(warm), fails(cold))
    case.exchanges.heal()
    assert await case.inventory() == before
    for issuer in (warm, cold):
        await is_accepted(case, issuer, key.material)


async def _begun(
    case: IssuerCase, call: Callable[[], Awaitable[object]], at: int, mode: Mode
) -> asyncio.Future[object]:
    """A call, one exchange of which has lost its answer. It is over, or (``silent``) waits in vain."""
    case.exchanges.lose(at, mode)
    task = asyncio.ensure_future(call())
    while not task.done() and not (mode == "silent" and case.exchanges.lost.is_set()):
        await asyncio.wait([task], timeout=0.02)
    return task


async def _broken_off(case: IssuerCase, call: Callable[[], Awaitable[object]], at: int, mode: Mode) -> bool:
    """Lose the answer of an exchange of ``call``, and cancel it where it waits: False where it has not that many."""
    task = await _begun(case, call, at, mode)
    begun = case.exchanges.seen
    task.cancel()
    case.exchanges.heal()
    (done,), _ = await asyncio.wait([task])
    if not done.cancelled() and (error := done.exception()) is not None:
        assert isinstance(error, Retryable), repr(error)
    return begun > at


@pytest.mark.parametrize("mode", ["down", "silent"])
@over(lambda case: case.traits.overlaps and {"create", "revoke"} <= case.calls)
async def test_killed_in_any_exchange(case: IssuerCase, open_issuer: OpenIssuer, mode: Mode) -> None:
    current = await begin(case, open_issuer())
    issuer = open_issuer()
    others = await case.inventory() - {issuer.name_of(1), issuer.name_of(2)}
    goes_on, at = True, 0
    while goes_on:
        assert at < MOST_EXCHANGES
        first, dying = open_issuer(), open_issuer()
        request = key_request(first, 2, current.material)
        goes_on = await _broken_off(case, lambda: make(first, request), at, mode)  # noqa: B023
        if not case.traits.generates:
            request = replace(request, draft=None)
        made = await after_break(lambda: make(open_issuer(), request))  # noqa: B023
        if case.traits.generates:
            assert made.material == request.draft
        await is_accepted(case, issuer, made.material)
        assert await case.use(current.material)
        assert await case.inventory() - others == {issuer.name_of(1), issuer.name_of(2)}
        goes_on |= await _broken_off(case, lambda: revoke(dying, made, 2), at, mode)  # noqa: B023
        await after_break(lambda: revoke(open_issuer(), made, 2))  # noqa: B023
        await is_refused(case, issuer, made.material)
        assert await case.use(current.material)
        await becomes(others | {issuer.name_of(1)}, case.inventory, case.refusal_seconds)
        if "live" in case.calls:
            assert await names_live(issuer) == {issuer.name_of(1)}
        at += 1
    assert at > 1, "nothing was broken off"
    await is_accepted(case, issuer, current.material)


@pytest.mark.parametrize("mode", ["down", "silent"])
@over(lambda case: not case.traits.overlaps and "create" in case.calls)
async def test_killed_in_any_exchange_in_place(case: IssuerCase, open_issuer: OpenIssuer, mode: Mode) -> None:
    current, issuer = await begin(case, open_issuer()), open_issuer()
    before = await case.inventory()
    goes_on, at = True, 0
    while goes_on:
        assert at < MOST_EXCHANGES
        dying = open_issuer()
        request = key_request(dying, 2 + at, current.material)
        goes_on = await _broken_off(case, lambda: make(dying, request), at, mode)  # noqa: B023
        made = await make(open_issuer(), request)
        await is_accepted(case, issuer, made.material)
        await is_refused(case, issuer, current.material)
        assert await case.inventory() == before
        current = made
        at += 1
    assert at > 1, "nothing was broken off"


@over(lambda case: "create" in case.calls)
async def test_a_cancelled_call_ends_though_nobody_answers(case: IssuerCase, open_issuer: OpenIssuer) -> None:
    key, issuer = await begin(case, open_issuer()), open_issuer()
    task = await _begun(case, lambda: issuer.create(key_request(issuer, 2, key.material)), 1, "silent")
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=CANCEL_SECONDS)
    assert done


@over(lambda case: bool({"create", "revoke"} & case.calls))
async def test_without_the_lease_nothing_is_changed(
    case: IssuerCase, open_issuer: OpenIssuer, request: pytest.FixtureRequest
) -> None:
    key = await begin(case, open_issuer())
    before = await case.inventory()
    request.getfixturevalue("tenure_ended")
    issuer = open_issuer()
    for name, call in methods(case, issuer, key).items():
        if name in {"create", "revoke"}:
            with pytest.raises(Retryable) as refused:
                await call()
            assert refused.value.reason == "LeaseLost"
    assert await case.inventory() == before
    assert await case.use(key.material)


def _inside(thing: Any, depth: int = 6) -> Iterator[str]:
    """The repr of an object and of what our own objects in it hold."""
    yield repr(thing)
    if depth and type(thing).__module__.startswith("vectorwright.rotation"):
        names = [*vars(thing)] if hasattr(thing, "__dict__") else list(getattr(type(thing), "__slots__", ()))
        for name in names:
            if name not in {"token", "password"}:
                yield from _inside(getattr(thing, name), depth - 1)


def _chain(error: BaseException) -> Iterator[str]:
    yield "".join(traceback.format_exception(error))
    found: BaseException | None = error
    while found is not None:  # also what the traceback leaves out
        yield f"{found} {found!r} {found.args}"
        found = found.__cause__ or found.__context__


@over()
async def test_no_value_shows_anywhere(
    case: IssuerCase, open_issuer: OpenIssuer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    issuer = open_issuer()
    request = key_request(issuer, 1)
    made = await make(issuer, request)
    await case.published(made.material)
    await is_accepted(case, issuer, made.material)
    secrets = [*case.secrets(), *(made.material.token, made.material.password)]
    said += [text for thing in (issuer, request, made, made.material) for text in _inside(thing)]
    issuer = open_issuer(impatient(case.assignment()))
    for mode in ("down", "silent", "open"):
        case.exchanges.be(mode)
        for call in methods(case, issuer, made).values():
            try:
                said.append(repr(await call()))
            except VectorwrightError as error:
                said += _chain(error)
    spoiled = case.other(made.material)
    secrets += [spoiled.token, spoiled.password]
    if "accepts" in case.calls:
        await becomes(False, lambda: issuer.accepts(spoiled), 30)
    for refused in ("wrong_admin", "without_right", "missing_role"):
        if case.has(refused):
            other = open_issuer(getattr(case, refused)())
            for call in (other.check, lambda: other.create(key_request(other, 1))):  # noqa: B023
                try:
                    await call()
                except VectorwrightError as error:
                    said += _chain(error)
    said += [f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records]
    said += capfd.readouterr()
    for secret in filter(None, secrets):
        assert len(secret) >= 8
        assert not any(secret in text for text in said)
