"""Lance: ours behind the store server, and the library alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from vectorwright.stores.registry import Connection, StoreCredentials

from ..contest import Arena, Ours
from ..rows import DIMENSION, Rows
from .places import BATCH, directory


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

    with directory() as base, running_store_server() as server:
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
