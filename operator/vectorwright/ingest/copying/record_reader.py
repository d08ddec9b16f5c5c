"""A parquet file as the origin of a copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vectorwright.errors import Terminal
from vectorwright.ingest.identity import id_digest
from vectorwright.ingest.record_files import (
    ID,
    METADATA,
    TEXT,
    VECTOR,
    FileHead,
    batches,
    decoded_metadata,
    matrix,
    open_parquet,
)
from vectorwright.stores.base import Record

from .fit import Space


class FileOrigin:
    """Records of a file with the columns ``id`` and ``vector``, and ``text`` and ``metadata`` where it has them.

    Every method of it raises Terminal ``BadParquet`` for a file that holds anything else.
    """

    id_pattern: str | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Any = None
        self.revision: str | None = None
        self.head: FileHead | None = None

    def _open(self) -> Any:
        file = open_parquet(self._path)
        missing = sorted({ID, VECTOR} - set(file.schema_arrow.names))
        if missing:
            file.close()
            raise Terminal(
                f"{self._path} has no column {' and no column '.join(map(repr, missing))}: it needs 'id' and 'vector', "
                "as vectorwright export writes them",
                reason="BadParquet",
            )
        return file

    async def prepare(self) -> Space:
        """See :class:`.origin.Origin`. A file of any other origin does not tell what its vectors are."""

        def look() -> tuple[FileHead | None, int | None]:
            with self._open() as file:
                schema = file.schema_arrow
                # Of a list of any length, each record is checked by itself.
                size = getattr(schema.field(VECTOR).type, "list_size", None)
                return FileHead.parse(schema.metadata), size

        head, size = await asyncio.to_thread(look)
        self.head = head
        if head is None:
            return Space(str(self._path), size, None, None)
        self.revision = head.exported_at
        return Space(str(self._path), head.dimension, head.metric, head.model_fingerprint)

    async def count(self) -> int:
        """Number of rows."""

        def rows() -> int:
            with self._open() as file:
                return int(file.metadata.num_rows)

        return await asyncio.to_thread(rows)

    async def pages(self, page: int) -> AsyncGenerator[list[Record], None]:
        """See :class:`.origin.Origin`."""
        found = _records(await asyncio.to_thread(self._open), page)
        try:
            while (records := await asyncio.to_thread(next, found, None)) is not None:
                yield records
        finally:
            await asyncio.to_thread(found.close)  # type: ignore[attr-defined]

    async def present(self, ids: Sequence[str]) -> set[str]:
        """See :class:`.origin.Origin`. All ids are read once, 8 bytes each."""
        if self._known is None:
            self._known = await asyncio.to_thread(self._read_ids)
        asked = np.array([_short(record_id) for record_id in ids], np.uint64)
        there = np.isin(asked, self._known)
        return {record_id for record_id, found in zip(ids, there.tolist(), strict=True) if found}

    def _read_ids(self) -> Any:
        with self._open() as file:
            parts = [
                np.array([_short(record_id) for record_id in batch.column(0).to_pylist() if record_id], np.uint64)
                for batch in batches(file, 10_000, [ID])
            ]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def _short(record_id: str) -> int:
    return int.from_bytes(id_digest(record_id)[:8], "big")


def _records(file: Any, page: int) -> Iterator[list[Record]]:
    columns = [name for name in (ID, VECTOR, TEXT, METADATA) if name in file.schema_arrow.names]
    first = 1
    with file:
        for batch in batches(file, page, columns):
            yield _page(batch, columns, first)
            first += len(batch)


def _page(batch: Any, columns: list[str], first: int) -> list[Record]:
    """Records of a batch whose first row has the number ``first``."""
    given = {name: batch.column(at) for at, name in enumerate(columns)}
    vectors = matrix(given[VECTOR])
    if vectors is None:
        raise Terminal(
            f"rows {first} to {first + len(batch) - 1}: vectors must be lists of float32 of one length, none of them "
            "null",
            reason="BadParquet",
        )
    nothing = [None] * len(batch)
    texts = given[TEXT].to_pylist() if TEXT in given else nothing
    metadata = given[METADATA].to_pylist() if METADATA in given else nothing
    return [
        Record(_text(record_id, "id", row), decoded_metadata(told, row), _text_or_none(text, row), vector)
        for row, (record_id, vector, text, told) in enumerate(
            zip(given[ID].to_pylist(), vectors, texts, metadata, strict=True), first
        )
    ]


def _text(value: object, name: str, row: int) -> str:
    if not isinstance(value, str) or not value:
        raise Terminal(f"row {row}: its {name} is not a text, or it is empty", reason="BadParquet")
    return value


def _text_or_none(value: object, row: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise Terminal(f"row {row}: its text is none", reason="BadParquet")
