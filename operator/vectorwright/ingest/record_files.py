"""Parquet files of records: what ``vectorwright export`` writes, and what reads it.

One row a record: ``id`` (string), ``vector`` (list of float32, of a fixed size), ``text`` (string, or null) and
``metadata`` (JSON, exact: 1 and 1.0 differ). What the vectors are is in the metadata of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from vectorwright.errors import Terminal
from vectorwright.stores.base import Metadata

ID, VECTOR, TEXT, METADATA = "id", "vector", "text", "metadata"
_PREFIX = "vectorwright."
_FORMAT = "1"
BUFFER_BYTES = 2**20
"""Bytes read at a time. With this, and no buffering ahead, a file of 394 MiB takes 122 MiB of memory; 512 without."""


@dataclass(frozen=True, slots=True)
class FileHead:
    """What the file says of its records. None: not known."""

    dimension: int
    metric: str | None
    model_fingerprint: str | None
    index: str
    exported_at: str
    """RFC 3339, UTC."""

    def as_metadata(self) -> dict[str, str]:
        """The metadata of the schema."""
        values = {
            "format": _FORMAT,
            "dimension": str(self.dimension),
            "metric": self.metric,
            "model_fingerprint": self.model_fingerprint,
            "index": self.index,
            "exported_at": self.exported_at,
        }
        return {_PREFIX + name: value for name, value in values.items() if value is not None}

    @classmethod
    def parse(cls, metadata: Mapping[bytes, bytes] | None) -> FileHead | None:
        """The head of a file that :meth:`as_metadata` described, None of any other. Raises Terminal."""
        values = {name.decode("utf-8", "replace"): value for name, value in (metadata or {}).items()}
        told = {
            name.removeprefix(_PREFIX): value.decode("utf-8", "replace")
            for name, value in values.items()
            if name.startswith(_PREFIX)
        }
        if "format" not in told:
            return None
        dimension = told.get("dimension", "")
        if told["format"] != _FORMAT or not (dimension.isascii() and dimension.isdecimal()):
            raise Terminal(
                f"the file was written in a form ({told['format'][:20]!r}) that this version does not read: use a "
                "newer version of vectorwright",
                reason="BadParquet",
            )
        return cls(
            dimension=int(dimension),
            metric=told.get("metric"),
            model_fingerprint=told.get("model_fingerprint"),
            index=told.get("index", ""),
            exported_at=told.get("exported_at", ""),
        )


def pyarrow() -> Any:
    """The module, with its part for parquet. Raises Terminal (``MissingExtra``) where it is not installed."""
    try:
        import pyarrow as arrow  # noqa: ICN001, PLC0415 - 60 MB of memory, for those who need it
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError:
        raise Terminal(
            "parquet files need the package 'pyarrow': install vectorwright[parquet]", reason="MissingExtra"
        ) from None
    return arrow


def open_parquet(source: Path | bytes) -> Any:
    """A ``pyarrow.parquet.ParquetFile`` that reads little ahead.

    Raises Terminal: ``BadParquet`` for what is no parquet file, ``FileNotReadable``.
    """
    arrow = pyarrow()
    given = arrow.BufferReader(source) if isinstance(source, bytes) else str(source)
    try:
        return arrow.parquet.ParquetFile(given, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except MemoryError:
        raise  # pyarrow's own is one of its exceptions, too
    except arrow.ArrowException as error:
        raise bad_parquet(error) from None
    except OSError as error:
        raise Terminal(
            f"{source!s:.300} cannot be read: {error.strerror or 'it is broken'}", reason="FileNotReadable"
        ) from None


def batches(file: Any, size: int, columns: list[str]) -> Iterator[Any]:
    """Record batches of at most ``size`` rows. Raises Terminal ``BadParquet`` where the file is broken."""
    arrow = pyarrow()
    try:
        yield from file.iter_batches(batch_size=size, columns=columns, use_threads=False)
    except MemoryError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise bad_parquet(error) from None


def bad_parquet(error: Exception) -> Terminal:
    """The error of a file that is no parquet, or broken."""
    told = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return Terminal(f"it is not a parquet file, or it is broken: {told}", reason="BadParquet")


def matrix(column: Any) -> Any | None:
    """A column of lists of numbers as float32 of shape (n, d); None where it is no such column, or rows differ.

    No number is turned into text and back.
    """
    import numpy as np  # noqa: PLC0415 - for those who handle vectors

    kind = column.type
    arrow = pyarrow()
    lists = arrow.types.is_fixed_size_list(kind) or arrow.types.is_list(kind) or arrow.types.is_large_list(kind)
    if not lists or not arrow.types.is_float32(kind.value_type) or column.null_count or not len(column):
        return None
    values = column.flatten()
    if values.null_count or len(values) % len(column):
        return None
    width = len(values) // len(column)
    if not arrow.types.is_fixed_size_list(kind):
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if not (lengths == width).all():
            return None
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False).reshape(len(column), width), np.float32)


def decoded_metadata(value: object, row: int) -> Metadata:
    """Metadata from JSON, exactly. Raises Terminal ``BadParquet`` for anything that metadata cannot be."""
    if value is None:
        return {}
    try:
        found = orjson.loads(value) if isinstance(value, str) else None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(map(_is_value, found.values())):
        raise Terminal(
            f"row {row}: its metadata is not a JSON object of texts, numbers, booleans and lists of texts",
            reason="BadParquet",
        )
    return found


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(part, str) for part in value)
    return isinstance(value, str | int | float | bool)
