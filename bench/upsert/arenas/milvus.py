"""Milvus (milvus-lite): ours, and the official client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.servers.milvus import start_milvus_server

from vectorwright.stores.registry import Connection

from ..contest import Arena, Ours
from ..rows import DIMENSION, Rows
from .places import BATCH, directory


class MilvusSdk:
    """``MilvusClient.upsert`` of the official client, as its documentation shows: dictionaries, metadata as a field."""

    def __init__(self, url: str, size: int) -> None:
        from pymilvus import MilvusClient

        self.name = f"pymilvus upsert, {size:,}"
        self._client: Any = MilvusClient(uri=url)
        self._size = size

    def make(self, index: str) -> None:
        """A collection with the same columns, indexed by AUTOINDEX, loaded."""
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=512)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
        schema.add_field("text", DataType.VARCHAR, max_length=65_535)
        schema.add_field("metadata", DataType.JSON)
        schema.add_field("topic", DataType.VARCHAR, max_length=1_024)
        schema.add_field("year", DataType.INT64)
        params = self._client.prepare_index_params()
        params.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        self._client.create_collection(index, schema=schema, index_params=params)

    def write(self, index: str, rows: Rows) -> None:
        """One batch after another."""
        for batch in rows.batches(self._size):
            self._client.upsert(
                index,
                [
                    {
                        "id": row_id,
                        "vector": vector,
                        "text": text,
                        "metadata": metadata,
                        "topic": metadata["topic"],
                        "year": metadata["year"],
                    }
                    for row_id, vector, text, metadata in zip(
                        batch.ids, batch.vectors, batch.texts, batch.metadata, strict=True
                    )
                ],
            )

    def count(self, index: str) -> int:
        """Exact: a strongly consistent count."""
        found = self._client.query(index, filter="", output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def drop(self, index: str) -> None:
        """The collection."""
        self._client.drop_collection(index)


@contextmanager
def milvus() -> Iterator[Arena]:
    """A milvus-lite server."""
    with directory() as base:
        server = start_milvus_server(base / "data", remove=base)
        try:
            connection = Connection("milvus", {"url": server.url})
            yield Arena(
                "milvus-lite",
                10_000,
                (
                    Ours(connection, BATCH),
                    Ours(connection, 1_000),
                    MilvusSdk(server.url, BATCH),
                    MilvusSdk(server.url, 1_000),
                ),
            )
        finally:
            server.stop()
