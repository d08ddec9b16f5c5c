"""Parquet: columns by name, or a file that ``vectorwright export`` wrote, which needs no names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.errors import Terminal
from vectorwright.ingest.identity import foreign_id
from vectorwright.ingest.record_files import (
    ID,
    METADATA,
    TEXT,
    FileHead,
    batches,
    decoded_metadata,
    matrix,
    open_parquet,
)

from .base import Row
from .records import Fields

_BATCH = 256
"""Rows that are turned into values at a time."""


def table(data: bytes, parse: Parse, precomputed_field: str | None) -> tuple[Fields, Iterator[Row]]:
    """The fields that are used of a file, and its records.

    Raises Terminal: ``BadParquet``; ``MissingField`` where it lacks a column that the job names; ``MissingExtra``.
    """
    file = open_parquet(data)
    exported = FileHead.parse(file.schema_arrow.metadata) is not None and parse.id_field is None
    if exported:
        fields = Fields(
            id=ID,
            text=tuple(parse.text_fields or (TEXT,)),
            metadata=(),
            vector=precomputed_field,
            text_required=parse.text_fields is not None,
            typed=False,
        )
    else:
        fields = Fields.of(parse, precomputed_field, typed=False)
    names = file.schema_arrow.names
    missing = sorted(set(fields.required) - set(names))
    if missing:
        raise Terminal(
            f"it has no column {', '.join(map(repr, missing[:5]))}; it has "
            f"{', '.join(repr(name[:64]) for name in names[:20]) or 'none'}",
            reason="MissingField",
        )
    wanted = [fields.id, *fields.text, *fields.metadata, fields.vector, METADATA if exported else None]
    columns = [name for name in dict.fromkeys(wanted) if name is not None and name in names]
    return fields, _rows(file, columns, set(parse.metadata_fields or ()), exported=exported)


def _rows(file: Any, columns: list[str], chosen: set[str], *, exported: bool) -> Iterator[Row]:
    number = 0
    with file:
        for batch in batches(file, _BATCH, columns):
            given = [_values(batch.column(at)) for at in range(len(columns))]
            for values in zip(*given, strict=True):
                number += 1
                row = dict(zip(columns, values, strict=True))
                yield _exported(row, number, chosen) if exported else Row(number, number, values=row)


def _exported(values: dict[str, Any], number: int, chosen: set[str]) -> Row:
    """A record as it was exported, with its metadata as it was; of it only what is ``chosen``, if anything is."""
    try:
        metadata = decoded_metadata(values.pop(METADATA, None), number)
    except Terminal as error:
        return Row(number, number, problem=error.message)
    original = metadata.get("vw_id")
    if isinstance(original, str) and values.get(ID) == foreign_id(original):
        # The store that it came from could not hold its id.
        values[ID] = original
    if chosen:
        metadata = {name: value for name, value in metadata.items() if name in chosen}
    return Row(number, number, values=values, metadata=metadata)


def _values(column: Any) -> list[Any]:
    vectors = matrix(column)
    if vectors is not None:
        found: list[Any] = vectors.tolist()
        return found
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    """A value in the types of JSON. Bytes are none: they are left out."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return str(value) if isinstance(value, Decimal) else None
