"""Chroma: a database of its own a test, on one server."""

from __future__ import annotations

import secrets
from typing import ClassVar

import httpx
import orjson
import pytest
from tests.contract.providers.base import JSON, SECRET, Provider
from tests.support.chroma import ChromaServer
from tests.support.loopback_http import Response

from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range
from vectorwright.stores.registry import Connection, StoreCredentials


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

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        return Connection(
            "chroma",
            {"url": f"http://{host}:{port}", "database": self.database},
            credentials=StoreCredentials(token=SECRET),
        )

    def origin(self) -> str:
        return self.server.url

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def refusal(self, status: int, text: str) -> Response:
        kinds = {404: "NotFoundError", 409: "UniqueConstraintError", 401: "AuthError", 403: "AuthError"}
        return Response(orjson.dumps({"error": kinds.get(status, "InternalError"), "message": text}), status, JSON)

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
