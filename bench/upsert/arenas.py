"""The servers, and the vendors' own ways to write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from deploy.servers.chroma import start_chroma_server

from vectorwright.stores.registry import Connection, StoreCredentials

from .contest import Ours
from .rows import DIMENSION, Rows
from .run import Arena, Opener

BATCH = 100
"""Records in a batch: what a run writes when nothing else is said."""


@contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vectorwright-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class ChromaSdk:
    """``Collection.upsert`` of the official client."""

    def __init__(self, host: str, port: int, size: int) -> None:
        import chromadb

        self.name = f"chromadb upsert, {size}"
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        self._client: Any = chromadb.HttpClient(host=host, port=port, settings=settings)
        self._size = size

    def make(self, index: str) -> None:
        """A collection compared by cosine."""
        self._client.create_collection(index, configuration={"hnsw": {"space": "cosine"}}, embedding_function=None)

    def write(self, index: str, rows: Rows) -> None:
        """One batch after another, as its documentation shows."""
        collection = self._client.get_collection(index, embedding_function=None)
        for batch in rows.batches(self._size):
            collection.upsert(ids=batch.ids, embeddings=batch.vectors, metadatas=batch.metadata, documents=batch.texts)

    def count(self, index: str) -> int:
        """Exact."""
        return int(self._client.get_collection(index, embedding_function=None).count())

    def drop(self, index: str) -> None:
        """The collection."""
        self._client.delete_collection(index)


@contextmanager
def chroma() -> Iterator[Arena]:
    """A Chroma server."""
    with _directory() as base:
        server = start_chroma_server(base / "data", remove=base)
        try:
            connection = Connection("chroma", {"url": server.url})
            yield Arena(
                "Chroma",
                3_000,
                (
                    Ours(connection, BATCH),
                    Ours(connection, 1_000),
                    ChromaSdk(server.host, server.port, BATCH),
                    ChromaSdk(server.host, server.port, 1_000),
                ),
            )
        finally:
            server.stop()


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
    """A PostgreSQL server with pgvector; every table has its HNSW index while it is written to."""
    from tests.support.postgres import start_postgres_server

    server = start_postgres_server()
    try:
        connection = Connection(
            "pgvector",
            {"host": server.host, "port": server.port, "database": server.database, "sslMode": "disable"},
            credentials=StoreCredentials(username=server.user, password=server.password),
        )
        yield Arena(
            "PostgreSQL with pgvector, HNSW in place",
            2_000,
            (Ours(connection, BATCH), Ours(connection, 1_000), Psycopg(connection, server.dsn())),
        )
    finally:
        server.remove()


class LanceDb:
    """``merge_insert`` of the library, on a table of its own."""

    def __init__(self, directory: Path, size: int) -> None:
        import lancedb

        self.name = f"lancedb merge_insert, {size:,}"
        self._database: Any = lancedb.connect(directory)
        self._size = size

    def make(self, index: str) -> None:
        """A table with the same columns, metadata as JSON."""
        import pyarrow as pa

        schema = pa.schema(
            [
                ("id", pa.string()),
                ("vector", pa.list_(pa.float32(), DIMENSION)),
                ("text", pa.string()),
                ("metadata", pa.string()),
            ]
        )
        self._database.create_table(index, schema=schema)

    def write(self, index: str, rows: Rows) -> None:
        """One commit after another."""
        import pyarrow as pa

        table = self._database.open_table(index)
        for batch in rows.batches(self._size):
            flat = pa.array(batch.vectors.reshape(-1))
            columns = {
                "id": batch.ids,
                "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION),
                "text": batch.texts,
                "metadata": [orjson.dumps(one).decode() for one in batch.metadata],
            }
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(pa.table(columns))

    def count(self, index: str) -> int:
        """Exact."""
        return int(self._database.open_table(index).count_rows())

    def drop(self, index: str) -> None:
        """The table."""
        self._database.drop_table(index)


@contextmanager
def lance() -> Iterator[Arena]:
    """A store server that owns a directory, and the library alone on another one, which waits for no disk."""
    from tests.support.store_server import running_store_server

    with _directory() as base, running_store_server() as server:
        connection = Connection(
            "lance",
            {"server": server.url, "path": "bench"},
            credentials=StoreCredentials(token=server.token),
        )
        yield Arena(
            "a directory: ours through the store server with fsync, lancedb in process without",
            20_000,
            (Ours(connection, BATCH), Ours(connection, 1_000), LanceDb(base, BATCH * 10), LanceDb(base, 10_000)),
        )


ARENAS: Mapping[str, Opener] = {"chroma": chroma, "pgvector": pgvector, "lance": lance}
