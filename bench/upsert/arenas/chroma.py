"""Chroma: ours, and the official client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.servers.chroma import start_chroma_server

from vectorwright.stores.registry import Connection

from ..contest import Arena, Ours
from ..rows import Rows
from .places import BATCH, directory


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
    with directory() as base:
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
