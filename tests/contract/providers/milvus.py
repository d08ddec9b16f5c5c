"""Milvus: a database of its own a test, on one milvus-lite or on the server that ``MILVUS_URI`` names."""

from __future__ import annotations

import secrets
from typing import ClassVar

import pytest
from tests.contract.providers.base import SECRET, Provider
from tests.support.milvus import RawMilvus, RunningMilvus

from vectorwright.stores.registry import Connection, StoreCredentials


class Milvus(Provider):
    name = "milvus"
    speaks_grpc = True
    has_namespaces = True
    cannot: ClassVar = {"identity": "Milvus has no identity of its own: a backend is an address and a database"}
    tuned: ClassVar = {"autoindex.level": (1, 2)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: RunningMilvus = request.getfixturevalue("milvus_server")
        self.database = f"db_{secrets.token_hex(6)}"
        self.raw = RawMilvus(self.server, self.database)
        self.raw.create_database()
        request.addfinalizer(self.raw.drop_database)

    def connection(self) -> Connection:
        return self._connection(self.server.url)

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        return self._connection(f"http://{host}:{grpc_port or port}")

    def _connection(self, url: str) -> Connection:
        return Connection(
            "milvus",
            {"url": url, "database": self.database},
            credentials=StoreCredentials(token=self.server.token or SECRET),
        )

    def grpc_port(self) -> int:
        return self.server.port

    def restart(self) -> None:
        self.server.restart()
