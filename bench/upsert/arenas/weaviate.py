"""Weaviate: ours, and the official client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.servers.weaviate_server import WeaviateServer, start_weaviate_server

from vectorwright.stores.registry import Connection, StoreCredentials

from ..contest import Arena, Ours
from ..rows import Rows
from .places import BATCH, directory

KEY = "bench-key"


class WeaviateSdk:
    """The official client: ``insert_many``, or its batch context manager at a fixed size, which is its default way."""

    def __init__(self, server: WeaviateServer, *, fixed: bool, size: int) -> None:
        import weaviate
        from weaviate.classes.init import AdditionalConfig, Auth

        self.name = f"weaviate-client {'fixed_size' if fixed else 'insert_many'}, {size:,}"
        self._client: Any = weaviate.connect_to_local(
            host=server.host,
            port=server.port,
            grpc_port=server.grpc_port,
            auth_credentials=Auth.api_key(KEY),
            additional_config=AdditionalConfig(trust_env=False),
        )
        self._fixed, self._size = fixed, size

    def make(self, index: str) -> None:
        """A collection with properties of the same types, HNSW by cosine."""
        from weaviate.classes.config import Configure, DataType, Property, VectorDistances

        kinds = {"topic": DataType.TEXT, "year": DataType.INT}
        self._client.collections.create(
            index.capitalize(),
            vector_config=Configure.Vectors.self_provided(
                vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE)
            ),
            properties=[
                *(Property(name=name, data_type=kind, index_searchable=False) for name, kind in kinds.items()),
                *(
                    Property(name=name, data_type=DataType.TEXT, index_filterable=False, index_searchable=False)
                    for name in ("path", "heading", "summary", "text")
                ),
            ],
        )

    def write(self, index: str, rows: Rows) -> None:
        """One batch after another, or as the batch context manager does."""
        from weaviate.classes.data import DataObject

        collection = self._client.collections.get(index.capitalize())
        if self._fixed:
            with collection.batch.fixed_size(batch_size=self._size, concurrent_requests=4) as batch:
                for row_id, vector, text, metadata in zip(
                    rows.ids, rows.vectors, rows.texts, rows.metadata, strict=True
                ):
                    batch.add_object({**metadata, "text": text}, uuid=row_id, vector=vector)
            return
        for part in rows.batches(self._size):
            collection.data.insert_many(
                [
                    DataObject(properties={**metadata, "text": text}, uuid=row_id, vector=vector.tolist())
                    for row_id, vector, text, metadata in zip(
                        part.ids, part.vectors, part.texts, part.metadata, strict=True
                    )
                ]
            )

    def count(self, index: str) -> int:
        """Exact."""
        return int(self._client.collections.get(index.capitalize()).aggregate.over_all(total_count=True).total_count)

    def drop(self, index: str) -> None:
        """The collection."""
        self._client.collections.delete(index.capitalize())

    def close(self) -> None:
        """Its connections."""
        self._client.close()


@contextmanager
def weaviate() -> Iterator[Arena]:
    """A Weaviate server with an API key."""
    with directory() as base:
        server = start_weaviate_server(base / "data", api_key=KEY)
        sdks: list[WeaviateSdk] = []
        try:
            sdks += [WeaviateSdk(server, fixed=fixed, size=size) for fixed, size in ((False, 1_000), (True, BATCH))]
            connection = Connection(
                "weaviate",
                {"url": server.url, "grpcPort": server.grpc_port},
                credentials=StoreCredentials(token=KEY),
            )
            yield Arena("Weaviate", 5_000, (Ours(connection, BATCH), Ours(connection, 1_000), *sdks))
        finally:
            for sdk in sdks:
                sdk.close()
            server.stop()
