"""Weaviate: one server a test process, emptied before each test."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import orjson
import pytest
from tests.contract.data import FIELDS
from tests.contract.providers.base import JSON, SECRET, Provider
from tests.support.loopback_http import Response
from tests.support.weaviate import API_KEY, WeaviateServer, clear_weaviate

from vectorwright.stores.filters import And, Filter, Not, Or, Range
from vectorwright.stores.registry import Connection, StoreCredentials

RANGED = {*(field.name for field in FIELDS), "when", "vw_n", "vw_count"}
"""Fields that ranges can be asked of."""


class Weaviate(Provider):
    name = "weaviate"
    speaks_http = True
    speaks_grpc = True
    checks_credentials = True
    has_namespaces = True
    cannot: ClassVar = {"identity": "Weaviate has no identity of its own: a backend is an address"}
    namespaced: ClassVar = {"multi_tenancy": True}
    tuned: ClassVar = {"hnsw.ef": (64, 80), "hnsw.flat_search_cutoff": (40_000, 50_000)}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.server: WeaviateServer = request.getfixturevalue("weaviate_server")
        clear_weaviate(self.server)

    def connection(self) -> Connection:
        return self.at(self.server.host, self.server.port, self.server.grpc_port)

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        return Connection(
            "weaviate",
            {"url": f"http://{host}:{port}", "grpcPort": grpc_port or port},
            credentials=StoreCredentials(token=API_KEY),
        )

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(token=f"not-{SECRET}"))

    def origin(self) -> str:
        return self.server.url

    def grpc_port(self) -> int:
        return self.server.grpc_port

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def refusal(self, status: int, text: str) -> Response:
        return Response(orjson.dumps({"error": [{"message": text}]}), status, JSON)

    def may_refuse(self, where: Filter) -> bool:
        match where:
            case Range(name):
                return name not in RANGED
            case And(parts) | Or(parts):
                return any(self.may_refuse(part) for part in parts)
            case Not(part):
                return self.may_refuse(part)
        return False
