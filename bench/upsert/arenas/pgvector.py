"""pgvector: ours, and psycopg on tables of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from vectorwright.stores.registry import Connection, StoreCredentials

from ..contest import Arena, Ours
from ..rows import Rows
from .places import BATCH


class Psycopg(Ours):
    """psycopg's ``executemany`` of the same upsert into the same table, as pgvector's examples do."""

    def __init__(self, connection: Connection, dsn: str) -> None:
        super().__init__(connection, BATCH)
        self.name = "psycopg executemany"
        self._dsn = dsn

    def write(self, index: str, rows: Rows) -> None:
        """All in one transaction, which the driver pipelines."""
        import psycopg
        from psycopg import sql

        statement = sql.SQL(
            "INSERT INTO {} (id, embedding, text, metadata) VALUES (%s, %s::vector, %s, %s::jsonb) ON CONFLICT (id) DO "
            "UPDATE SET embedding = excluded.embedding, text = excluded.text, metadata = excluded.metadata"
        ).format(sql.Identifier(index))
        values = (
            (row_id, str(vector.tolist()), text, orjson.dumps(metadata).decode())
            for row_id, vector, text, metadata in zip(rows.ids, rows.vectors, rows.texts, rows.metadata, strict=True)
        )
        with psycopg.connect(self._dsn) as connection, connection.cursor() as cursor:
            cursor.executemany(statement, values)


@contextmanager
def pgvector() -> Iterator[Arena]:
    """A PostgreSQL server with pgvector. Tables are too small to have a vector index yet."""
    from tests.support.postgres import start_postgres_server

    server = start_postgres_server()
    try:
        connection = Connection(
            "pgvector",
            {"host": server.host, "port": server.port, "database": server.database, "sslMode": "disable"},
            credentials=StoreCredentials(username=server.user, password=server.password),
        )
        yield Arena(
            "PostgreSQL with pgvector; the vector index is built later",
            9_000,
            (Ours(connection, BATCH), Ours(connection, 1_000), Psycopg(connection, server.dsn())),
        )
    finally:
        server.remove()
