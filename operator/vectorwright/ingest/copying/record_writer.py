"""Writes records to a parquet file, whole or not at all."""

from __future__ import annotations

import math
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from vectorwright.errors import Terminal
from vectorwright.ingest.record_files import ID, METADATA, TEXT, VECTOR, FileHead, pyarrow
from vectorwright.stores.base import Metadata, Record

_GROUP_BYTES = 16 * 2**20
"""A row group: what is held in memory before it is written."""


class RecordFileWriter:
    """Use as a context manager: the file is there under its name once the block ended without an error.

    Raises Terminal: ``FileNotWritable``; ``WrongDimension`` and ``MetadataNotHeld`` for records that the file cannot
    hold. Every method blocks.
    """

    def __init__(self, path: Path, head: FileHead) -> None:
        self._path = path
        self._head = head
        self._part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        self._writer: Any = None
        self._file: Any = None
        self._records: list[Record] = []
        self._bytes = 0
        self.written = 0

    def __enter__(self) -> Self:
        arrow = pyarrow()
        self._schema = arrow.schema(
            [
                arrow.field(ID, arrow.string(), nullable=False),
                arrow.field(VECTOR, arrow.list_(arrow.float32(), self._head.dimension), nullable=False),
                arrow.field(TEXT, arrow.string()),
                arrow.field(METADATA, arrow.string(), nullable=False),
            ],
            metadata=self._head.as_metadata(),
        )
        try:
            self._file = self._part.open("xb")
        except OSError as error:
            raise self._not_writable(error) from None
        self._writer = arrow.parquet.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            write_statistics=[ID],
        )
        return self

    def write(self, records: list[Record]) -> None:
        """Add records."""
        for record in records:
            vector = record.vector
            if vector is None or vector.shape != (self._head.dimension,):
                raise Terminal(
                    f"record {record.id[:200]!r} has no vector of dimension {self._head.dimension}",
                    reason="WrongDimension",
                )
            self._records.append(record)
            self._bytes += vector.nbytes + len(record.text or "") + 256
        if self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._records:
            return
        arrow, records = pyarrow(), self._records
        vectors = np.stack([record.vector for record in records if record.vector is not None]).astype(np.float32)
        values = arrow.array(vectors.reshape(-1))
        try:
            batch = arrow.record_batch(
                [
                    arrow.array([record.id for record in records], arrow.string()),
                    arrow.FixedSizeListArray.from_arrays(values, self._head.dimension),
                    arrow.array([record.text for record in records], arrow.string()),
                    arrow.array([_json(record.id, record.metadata) for record in records], arrow.string()),
                ],
                schema=self._schema,
            )
            self._writer.write_batch(batch, row_group_size=len(records))
        except OSError as error:
            raise self._not_writable(error) from None
        self.written += len(records)
        self._records, self._bytes = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                try:
                    if kind is None:
                        self._flush()
                finally:
                    self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None:
                self._part.replace(self._path)
                _sync_folder(self._path.parent)
        except OSError as failed:
            if kind is None:
                raise self._not_writable(failed) from None
        finally:
            self._part.unlink(missing_ok=True)

    def _not_writable(self, error: OSError) -> Terminal:
        return Terminal(
            f"{self._path} cannot be written: {error.strerror or type(error).__name__}", reason="FileNotWritable"
        )


def _json(record_id: str, metadata: Metadata) -> str:
    for name, value in metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise Terminal(
                f"record {record_id[:200]!r}: its metadata field {name[:100]!r} is {value}, which JSON cannot hold",
                reason="MetadataNotHeld",
            )
    try:
        return orjson.dumps(metadata).decode()
    except orjson.JSONEncodeError as error:
        raise Terminal(
            f"record {record_id[:200]!r}: its metadata cannot be written as JSON: {error}", reason="MetadataNotHeld"
        ) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
