"""Stores behind a store server, which asks for a token."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import ClassVar

import pytest
from tests.contract.providers.base import SECRET, Provider
from tests.support.store_server import StoreServer

from vectorwright.stores.registry import Connection, StoreCredentials


class Served(Provider):
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


class Lance(Served):
    """Over TCP, in a folder of its own."""

    name = "lance"
    tuned: ClassVar = {"num_partitions": (8, 16)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.folder = f"test-{secrets.token_hex(6)}"

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port)

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        settings = {"server": f"http://{host}:{port}", "path": self.folder}
        return Connection("lance", settings, credentials=StoreCredentials(token=self.server.token))


class Memory(Served):
    """Over a socket: one store, emptied before each test."""

    name = "memory"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server.empty_memory()

    def connection(self) -> Connection:
        return self._connection(f"unix://{self.server.unix}")

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        return self._connection(f"http://{host}:{port}")

    def _connection(self, server: str) -> Connection:
        return Connection("memory", {"server": server}, credentials=StoreCredentials(token=self.server.token))
