"""Stores behind a store server, which asks for a token."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import orjson
import pytest
from tests.contract.providers.base import JSON, SECRET, Provider
from tests.support.loopback_http import Response
from tests.support.store_server import StoreServer

from vectorwright.errors import BatchTooLarge, Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.stores.registry import Connection, StoreCredentials
from vectorwright.stores.wire import encode_error


class Served(Provider):
    """Behind a store server, which asks for a token."""

    speaks_http = True
    checks_credentials = True

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: StoreServer = request.getfixturevalue("store_server")

    def origin(self) -> str:
        return self.server.url

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def refusal(self, status: int, text: str) -> Response:
        refusals: dict[int, VectorwrightError] = {
            401: Terminal(text, reason="AccessDenied"),
            403: Terminal(text, reason="AccessDenied"),
            404: NotFound(text),
            409: Conflict(text, reason="AlreadyExists"),
            413: BatchTooLarge(text),
        }
        if status == 429:  # of a proxy: the store server itself has no such limit
            return Response(text.encode(), status, {"Content-Type": "text/plain"})
        body = encode_error(refusals.get(status, Retryable(text)))[1]
        return Response(orjson.dumps(body), status, JSON)

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(token=f"not {SECRET}"))


class _InFolder(Served):
    """Over TCP, in a folder of its own."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.folder = self.server.new_folder()

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port)

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        settings = {"server": f"http://{host}:{port}", "path": self.folder}
        return Connection(self.name, settings, credentials=StoreCredentials(token=self.server.token))


class Lance(_InFolder):
    """Tables of its own."""

    name = "lance"
    tuned: ClassVar = {"num_partitions": (8, 16)}


class Faiss(_InFolder):
    """Beside Lance tables in the same directory."""

    name = "faiss"
    tuned: ClassVar = {"ivf.lists": (4, 8), "ivf.probes": (2, 3)}


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
