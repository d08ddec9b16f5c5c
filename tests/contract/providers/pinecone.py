"""Pinecone: a double of its own a test, or the empty project of ``PINECONE_API_KEY``.

``PINECONE_CONTROLLER_HOST`` names another control plane than the public one, as it does for the SDK. Tests share the
one project, so they run in one process (``-n 0``), and each deletes what it made.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import orjson
import pytest
from tests.contract.providers.base import JSON, SECRET, Provider
from tests.contract.providers.exclusive import take_turns
from tests.support.loopback_http import Response
from tests.support.pinecone import PineconeDouble
from tests.support.pinecone.refusals import Refusal

from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar
from vectorwright.stores.registry import Connection, StoreCredentials, open_store

T = TypeVar("T")
REAL_KEY = os.environ.get("PINECONE_API_KEY", "")
REAL_URL = os.environ.get("PINECONE_CONTROLLER_HOST", "")


class Pinecone(Provider):
    name = "pinecone"
    # Each index of the real service has a host of its own: no proxy can stand before all of them.
    speaks_http = not REAL_KEY
    checks_credentials = True
    has_namespaces = True
    cannot: ClassVar = {"restart": "nobody restarts a hosted service"}
    tuned: ClassVar = {"deletion_protection": ("disabled", "enabled")}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        if REAL_KEY:
            take_turns(request, "PINECONE_API_KEY", REAL_KEY, held=lambda: _apart(_held), empty=lambda: _apart(_clear))
            return
        self.double = PineconeDouble({SECRET: "p1a2b3c"})
        self.double.knobs.bare_hosts = True
        request.addfinalizer(self.double.close)

    def connection(self) -> Connection:
        return _real() if REAL_KEY else self.at(self.double.host, self.double.port)

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        return Connection(
            "pinecone",
            # Indexes are told to be at the same address, so that what stands there sees all requests.
            {"controlUrl": f"http://{host}:{port}/at/{host}:{port}"},
            credentials=StoreCredentials(token=SECRET),
        )

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(token=f"not {SECRET}"))

    def origin(self) -> str:
        return self.double.url

    def refusal(self, status: int, text: str) -> Response:
        return Response(orjson.dumps(Refusal(status, text).of_control_plane()), status, JSON)

    def may_refuse(self, where: Filter) -> bool:
        return _cannot_be_said(where, negated=False)


def _real() -> Connection:
    url = {"controlUrl": REAL_URL} if REAL_URL else {}
    return Connection(
        "pinecone", {"freshnessTimeoutSeconds": 60, **url}, credentials=StoreCredentials(token=REAL_KEY), timeout=60
    )


def _apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a thread with an event loop of its own: that of the test is not ours."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


async def _held() -> list[str]:
    async with open_store(_real()) as store:
        return [index.name for index in await store.list_indexes()]


async def _clear() -> None:
    """Delete what the test made: the project was empty, and each index carries the incarnation that was written."""
    async with open_store(_real()) as store:
        for index in await store.list_indexes():
            if index.incarnation.startswith(("host:", "unreadable:")):
                continue
            if index.settings.get("deletion_protection") == "enabled":
                await store.update_index(index.name, {"deletion_protection": "disabled"})
            await store.delete_index(index.name)


def _cannot_be_said(where: Filter, *, negated: bool) -> bool:
    """No negated range, none of strings, no numbers from 2^53 to 2^63: see stores/pinecone/filters.py."""
    match where:
        case Eq(_, value) | Ne(_, value):
            return _inexact(value)
        case In(_, values):
            return any(map(_inexact, values))
        case Exists():
            return False
        case Range():
            bounds = [bound for bound in (where.gt, where.gte, where.lt, where.lte) if bound is not None]
            kinds = {isinstance(bound, str) for bound in bounds}
            return kinds == {True} or (kinds == {False} and (negated or any(map(_inexact, bounds))))
        case And(parts) | Or(parts):
            return any(_cannot_be_said(part, negated=negated) for part in parts)
        case Not(part):
            return _cannot_be_said(part, negated=not negated)


def _inexact(value: Scalar) -> bool:
    return not isinstance(value, str) and 2**53 < abs(value) <= 2**63
