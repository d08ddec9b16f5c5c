"""What the contract suite asks of a store that it runs against."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import orjson
import pytest
from tests.support.loopback_http import Response

from vectorwright.stores.base import Capabilities, Setting
from vectorwright.stores.filters import Filter
from vectorwright.stores.registry import Connection, open_store

SECRET = "s3cret-that-never-shows"
JSON = {"Content-Type": "application/json"}
_CAPABILITIES: dict[type[Provider], Capabilities] = {}


class Provider(ABC):
    """One real server, and connections to it. Made once a test; the server behind it is shared."""

    name: str
    speaks_http = False
    """Whether the fault proxy can stand in front of it: then ``origin`` is needed."""
    speaks_grpc = False
    """Whether some of its calls go over gRPC: then ``grpc_port`` is needed."""
    speaks_postgres = False
    """Whether it speaks PostgreSQL's protocol: then ``postgres_address`` is needed."""
    checks_credentials = False
    """Whether the server itself refuses wrong credentials; the proxy does it for those that do not."""
    has_namespaces = False
    """Whether its indexes can be divided into namespaces."""
    cannot: ClassVar[Mapping[str, str]] = {}
    """What the server of the tests cannot do → why: ``restart`` (see :meth:`restart`), ``identity`` (tell two addresses
    of one backend from two backends)."""
    namespaced: ClassVar[Mapping[str, Setting]] = {}
    """Settings that an index needs at creation to be divided."""
    tuned: ClassVar[Mapping[str, tuple[Setting, Setting]]] = {}
    """Mutable settings and two values to change between."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    @abstractmethod
    def connection(self) -> Connection:
        """A connection to a place of this test's own, where nothing is: the same place each time it is called."""

    @abstractmethod
    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        """The same, as if the server were at another address.

        ``grpc_port`` is where its gRPC API is, for those that ``speak_grpc``; None puts it on ``port``, too.
        """

    def wrong_credentials(self) -> Connection:
        """The same with credentials that the server refuses, where ``checks_credentials``."""
        raise NotImplementedError(f"{self.name} asks for no credentials by itself")

    def origin(self) -> str:
        """Where the server is, such as ``http://127.0.0.1:8000``, for the proxy."""
        raise NotImplementedError(f"{self.name} does not speak HTTP")

    def grpc_port(self) -> int:
        """Where the gRPC API of the server is, on 127.0.0.1, for the proxy."""
        raise NotImplementedError(f"{self.name} does not speak gRPC")

    def all_that_it_cannot(self) -> Mapping[str, str]:
        """``cannot``, and what follows from how it is spoken to."""
        found = dict(self.cannot)
        if self.speaks_grpc or not self.speaks_http:
            found["http alone"] = "it does not speak HTTP alone, and test_faults.py has the same on its transports"
        if not self.checks_credentials:
            found["credentials"] = "its server asks for none; the proxy asks in its place, in test_failures.py"
        return found

    def postgres_address(self) -> tuple[str, int]:
        """Where the PostgreSQL server is, for the proxy."""
        raise NotImplementedError(f"{self.name} does not speak PostgreSQL's protocol")

    def restart(self) -> None:
        """Stop the server in good order and start it again at the same addresses; see ``cannot``."""
        raise NotImplementedError(f"{self.name} says neither how its server is restarted nor why it cannot be")

    def refusal(self, status: int, text: str) -> Response:
        """An HTTP answer with an error in the form of the store itself, for the fault proxy. ``text`` is hostile."""
        return Response(orjson.dumps({"error": str(status), "message": text}), status, JSON)

    def capabilities(self) -> Capabilities:
        """What the store says that it can do before anybody was asked."""
        kind = type(self)
        if kind not in _CAPABILITIES:
            # A thread has an event loop of its own: SDKs may need one to be opened, and that of the test is not theirs.
            with ThreadPoolExecutor(1) as apart:
                _CAPABILITIES[kind] = apart.submit(lambda: asyncio.run(self._capabilities())).result()
        return _CAPABILITIES[kind]

    async def _capabilities(self) -> Capabilities:
        async with open_store(self.connection()) as store:
            return store.capabilities

    def may_refuse(self, where: Filter) -> bool:
        """Whether this store cannot express the filter, and says so. Nothing is refused by default."""
        del where
        return False
