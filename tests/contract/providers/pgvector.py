"""pgvector: a schema of its own a test, on one server."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import ClassVar

import pytest
from psycopg import sql
from tests.contract.providers.base import SECRET, Provider
from tests.support.postgres import PostgresServer

from vectorwright.stores.registry import Connection, StoreCredentials


class Pgvector(Provider):
    name = "pgvector"
    speaks_postgres = True
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

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        del grpc_port
        server = self.server
        return Connection(
            "pgvector",
            {"host": host, "port": port, "database": server.database, "schema": self.schema, "sslMode": "disable"},
            credentials=StoreCredentials(username=server.user, password=server.password),
        )

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(username=self.server.user, password=SECRET))

    def postgres_address(self) -> tuple[str, int]:
        return self.server.host, self.server.port

    def restart(self) -> None:
        self.server.stop()
        self.server.start()
