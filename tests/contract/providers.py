"""The stores that the contract suite runs against. A new one is a class here and a line in ``PROVIDERS``."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import httpx
import pytest
from psycopg import sql
from tests.support.chroma import ChromaServer
from tests.support.postgres import PostgresServer
from tests.support.store_server import StoreServer

from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range
from vectorwright.stores.registry import Connection, StoreCredentials

SECRET = "s3cret-that-never-shows"


class Provider(ABC):
    """One real server, and connections to it. Made once a test; the server behind it is shared."""

    name: str
    speaks_http = False
    """Whether the fault proxy can stand in front of it: then ``origin`` is needed."""
    checks_credentials = False
    """Whether the server itself refuses wrong credentials; the proxy does it for those that do not."""
    tuned: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """Mutable settings and two values to change between."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request

    @abstractmethod
    def connection(self) -> Connection:
        """A connection to a place of this test's own, where nothing is: the same place each time it is called."""

    @abstractmethod
    def at(self, host: str, port: int) -> Connection:
        """The same, as if the server were at another address."""

    def wrong_credentials(self) -> Connection:
        """The same with credentials that the server refuses, where ``checks_credentials``."""
        raise NotImplementedError(f"{self.name} asks for no credentials by itself")

    def origin(self) -> str:
        """Where the server is, such as ``http://127.0.0.1:8000``, for the proxy."""
        raise NotImplementedError(f"{self.name} does not speak HTTP")

    def may_refuse(self, where: Filter) -> bool:
        """Whether this store cannot express the filter, and says so. Nothing is refused by default."""
        del where
        return False


class Chroma(Provider):
    name = "chroma"
    speaks_http = True
    tuned: ClassVar = {"hnsw.ef_search": (64, 80), "hnsw.num_threads": (1, 2)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: ChromaServer = request.getfixturevalue("chroma_server")
        self.database = f"db_{secrets.token_hex(6)}"
        made = httpx.post(
            f"{self.server.url}/api/v2/tenants/default_tenant/databases", json={"name": self.database}, trust_env=False
        )
        assert made.status_code == 200, made.text

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port)

    def at(self, host: str, port: int) -> Connection:
        return Connection(
            "chroma",
            {"url": f"http://{host}:{port}", "database": self.database},
            credentials=StoreCredentials(token=SECRET),
        )

    def origin(self) -> str:
        return self.server.url

    def may_refuse(self, where: Filter) -> bool:
        return _cannot_be_said_in_chroma(where, negated=False)


def _cannot_be_said_in_chroma(where: Filter, *, negated: bool) -> bool:
    """No negated range, no range of strings, no test for a field: see stores/chroma/filters.py."""
    match where:
        case Eq() | Ne() | In():
            return False
        case Exists():
            return True
        case Range():
            kinds = {
                isinstance(bound, str) for bound in (where.gt, where.gte, where.lt, where.lte) if bound is not None
            }
            return kinds == {True} or (negated and kinds == {False})
        case And(parts) | Or(parts):
            return any(_cannot_be_said_in_chroma(part, negated=negated) for part in parts)
        case Not(part):
            return _cannot_be_said_in_chroma(part, negated=not negated)


class Pgvector(Provider):
    name = "pgvector"
    checks_credentials = True
    tuned: ClassVar = {"hnsw.m": (8, 12), "hnsw.ef_construction": (32, 40)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: PostgresServer = request.getfixturevalue("postgres_server")
        self.schema = f"Schema {secrets.token_hex(6)}"
        with self.server.connect() as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port)

    def at(self, host: str, port: int) -> Connection:
        server = self.server
        return Connection(
            "pgvector",
            {"host": host, "port": port, "database": server.database, "schema": self.schema, "sslMode": "disable"},
            credentials=StoreCredentials(username=server.user, password=server.password),
        )

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(username=self.server.user, password=SECRET))


class _Served(Provider):
    """Behind a store server, which asks for a token."""

    speaks_http = True
    checks_credentials = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: StoreServer = request.getfixturevalue("store_server")

    def origin(self) -> str:
        return self.server.url

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(token=f"not {SECRET}"))


class Lance(_Served):
    """Over TCP, in a folder of its own."""

    name = "lance"
    tuned: ClassVar = {"num_partitions": (8, 16)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.folder = f"test-{secrets.token_hex(6)}"

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port)

    def at(self, host: str, port: int) -> Connection:
        settings = {"server": f"http://{host}:{port}", "path": self.folder}
        return Connection("lance", settings, credentials=StoreCredentials(token=self.server.token))


class Memory(_Served):
    """Over a socket: one store, emptied before each test."""

    name = "memory"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server.empty_memory()

    def connection(self) -> Connection:
        return self._connection(f"unix://{self.server.unix}")

    def at(self, host: str, port: int) -> Connection:
        return self._connection(f"http://{host}:{port}")

    def _connection(self, server: str) -> Connection:
        return Connection("memory", {"server": server}, credentials=StoreCredentials(token=self.server.token))


PROVIDERS: Mapping[str, type[Provider]] = {one.name: one for one in (Chroma, Pgvector, Lance, Memory)}
HTTP_PROVIDERS = [name for name, provider in PROVIDERS.items() if provider.speaks_http]
CREDENTIAL_PROVIDERS = [name for name, provider in PROVIDERS.items() if provider.checks_credentials]
