"""What tests do with a key, one after the other: make, publish, try, revoke; and what a step fails with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from tests.rotation.cases import IssuerCase, key_request

from vectorwright.errors import Retryable, VectorwrightError
from vectorwright.rotation.base import IssuedKey, KeyIssuer, KeyMaterial, KeyRequest, LiveKey

Result = TypeVar("Result")


async def make(issuer: KeyIssuer, request: KeyRequest) -> IssuedKey:
    """Create a key, by as many calls as it takes."""
    return await _until_done(lambda: issuer.create(request))


async def revoke(issuer: KeyIssuer, key: IssuedKey, revision: int) -> None:
    """Revoke a key, by as many calls as it takes."""
    live = LiveKey(key.id, issuer.name_of(revision), revision)
    await _until_done(lambda: issuer.revoke(live))


async def _until_done(call: Callable[[], Awaitable[Result]], seconds: float = 60.0) -> Result:
    ends = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await call()
        except Retryable as error:
            if error.reason != "InProgress" or asyncio.get_running_loop().time() > ends:
                raise
            await asyncio.sleep(min(error.after or 0.1, 1.0))


async def becomes(wanted: object, call: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Fail unless ``call`` gives ``wanted`` within so many seconds. What may be repeated is."""
    ends = asyncio.get_running_loop().time() + seconds
    while (found := await _or_failure(call)) != wanted:
        assert asyncio.get_running_loop().time() < ends, f"{found!r} after {seconds:g} s, not {wanted!r}"
        await asyncio.sleep(0.1)


async def _or_failure(call: Callable[[], Awaitable[object]]) -> object:
    try:
        return await call()
    except Retryable as error:
        return error


async def after_break(call: Callable[[], Awaitable[Result]]) -> Result:
    """Call, and once more where the store was not reached, as the operator does after a break of the connection.

    gRPC's handles to one address share it: a new one may hear of the end of the one before it, once.
    """
    try:
        return await call()
    except Retryable as error:
        if error.reason not in {"Unreachable", "Timeout"}:
            raise
        return await call()


async def failed(call: Callable[[], Awaitable[object]]) -> VectorwrightError:
    """What a call fails with."""
    with pytest.raises(VectorwrightError) as error:
        await call()
    return error.value


async def names_live(issuer: KeyIssuer) -> set[str]:
    """Names of the keys that the issuer says are live."""
    found = [key.name for key in await issuer.live()]
    assert len(found) == len(set(found)), f"two keys of one name: {found}"
    return set(found)


async def is_accepted(case: IssuerCase, issuer: KeyIssuer, key: KeyMaterial) -> None:
    if case.traits.provable:
        await becomes(True, lambda: issuer.accepts(key), case.acceptance_seconds)
    await becomes(True, lambda: case.use(key), case.acceptance_seconds)


async def is_refused(case: IssuerCase, issuer: KeyIssuer, key: KeyMaterial) -> None:
    if case.traits.provable:
        await becomes(False, lambda: issuer.accepts(key), case.refusal_seconds)
    await becomes(False, lambda: case.use(key), case.refusal_seconds)


async def begin(case: IssuerCase, issuer: KeyIssuer, revision: int = 1, current: IssuedKey | None = None) -> IssuedKey:
    """A key that was made, is published beside the current one, and accepted."""
    made = await make(issuer, key_request(issuer, revision, None if current is None else current.material))
    await case.published(*(() if current is None else (current.material,)), made.material)
    await is_accepted(case, issuer, made.material)
    return made
