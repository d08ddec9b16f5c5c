"""Records and descriptions as columns of a Lance table, and back.

Columns: ``id``, ``vector``, ``text``, ``metadata`` (the whole of it, as JSON: types survive exactly), ``mixed`` (see
:mod:`.filters`), then one typed column for each reserved field and each declared one (``f_<name>``). What the
index is (incarnation, metric, fields, settings, mark, model) is kept as metadata of the column ``id``, so that it is
written by the same atomic commit that makes the table, and by one of its own when it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from ..base import RESERVED_FIELDS, FieldDefinition, IndexDescription, Record, RecordBatch
from ..wire import WireError, decode_json
from ..wire_indexes import decode_description, encode_description
from .filters import column_name

META_KEY = "vectorwright"
FIXED_COLUMNS = ("id", "vector", "text", "metadata", "mixed")
_ARROW_TYPES = {
    "keyword": pa.string(),
    "datetime": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
}


def field_types(description: IndexDescription) -> dict[str, str]:
    """The type of every declared field, reserved ones included."""
    return {**RESERVED_FIELDS, **{one.name: one.type for one in description.fields or ()}}


def column_field(name: str, kind: str) -> pa.Field:
    """The column of a declared field."""
    return pa.field(column_name(name), _ARROW_TYPES[kind])


def table_schema(description: IndexDescription) -> pa.Schema:
    """The schema of a new table, which says what the index is."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata={META_KEY: encode_meta(description)}),
            pa.field("vector", pa.list_(pa.float32(), description.dimension), nullable=False),
            pa.field("text", pa.string()),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("mixed", pa.bool_(), nullable=False),
            *(column_field(name, kind) for name, kind in field_types(description).items()),
        ]
    )


def encode_meta(description: IndexDescription) -> str:
    """What the index is, as it is kept with the table."""
    return orjson.dumps({"format": 1, **encode_description(description)}).decode()


def decode_meta(schema: pa.Schema) -> IndexDescription | None:
    """What the table says that it is; None where Vectorwright did not make it."""
    if "id" not in schema.names:
        return None
    text = (schema.field("id").metadata or {}).get(META_KEY.encode())
    if text is None:
        return None
    try:
        return decode_description(decode_json(text))
    except WireError:
        return None


def column_value(value: object, kind: str) -> object:
    """What a column of this type holds for a metadata value; None where it cannot hold it exactly."""
    if kind in ("keyword", "datetime"):
        return value if isinstance(value, str) else None
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind == "integer":
        return value if isinstance(value, int) else None
    number = float(value)
    return number + 0.0 if number == value else None  # + 0.0: minus zero is another value to the engine


def encode_rows(batch: RecordBatch, metadata: Sequence[bytes], schema: pa.Schema, types: Mapping[str, str]) -> pa.Table:
    """Records as rows of a table with this schema. ``metadata`` is each record's, as JSON."""
    count = len(batch)
    columns: dict[str, list[object]] = {column_name(name): [None] * count for name in types}
    mixed = [False] * count
    by_column = {name: (columns[column_name(name)], kind) for name, kind in types.items()}
    for row, values in enumerate(batch.metadata):
        for name, value in values.items():
            if name in by_column:
                column, kind = by_column[name]
                held = column[row] = column_value(value, kind)
                if held is None:
                    mixed[row] = True
    flat = pa.array(np.ascontiguousarray(batch.vectors).reshape(-1))
    fixed: dict[str, Any] = {
        "id": pa.array(batch.ids, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, batch.vectors.shape[1]),
        "text": pa.array(batch.texts, pa.string()),
        "metadata": pa.array([one.decode() for one in metadata], pa.string()),
        "mixed": pa.array(mixed, pa.bool_()),
    }
    arrays = []
    for field in schema:
        if field.name in fixed:
            arrays.append(fixed[field.name])
        else:  # a column that is not declared (an unfinished change of the table) stays empty
            arrays.append(pa.array(columns.get(field.name, [None] * count), field.type))
    plain = pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])
    return pa.Table.from_arrays(arrays, schema=plain)


def newest_of_each(rows: pa.Table) -> pa.Table:
    """The last row of every id, in the order of the rows."""
    ids = rows.column("id").to_pylist()
    last = {record_id: row for row, record_id in enumerate(ids)}
    return rows if len(last) == len(ids) else rows.take(pa.array(sorted(last.values())))


def decode_rows(rows: pa.Table | pa.RecordBatch, *, vectors: bool, metadata: bool) -> list[Record]:
    """Rows as records; the columns that are asked for must be there."""
    ids = rows.column("id").to_pylist()
    values = [orjson.loads(text) for text in rows.column("metadata").to_pylist()] if metadata else [{} for _ in ids]
    texts = rows.column("text").to_pylist() if metadata else [None] * len(ids)
    matrix = decode_vectors(rows) if vectors else None
    return [
        Record(record_id, values[row], texts[row], None if matrix is None else matrix[row].copy())
        for row, record_id in enumerate(ids)
    ]


def decode_vectors(rows: pa.Table | pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vectors of rows: shape (n, d)."""
    column = rows.column("vector")
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(array), array.type.list_size)


def new_field_rows(rows: pa.RecordBatch, fields: Sequence[FieldDefinition], schema: pa.Schema) -> tuple[pa.Table, int]:
    """For fields declared later: id, ``mixed`` and their columns, of the rows that have one of them; and how many."""
    ids, mixed = rows.column("id").to_pylist(), rows.column("mixed").to_pylist()
    out: dict[str, list[object]] = {name: [] for name in ("id", "mixed", *(column_name(one.name) for one in fields))}
    for row, text in enumerate(rows.column("metadata").to_pylist()):
        values = orjson.loads(text)
        found = {one.name: column_value(values[one.name], one.type) for one in fields if one.name in values}
        if found:
            out["id"].append(ids[row])
            out["mixed"].append(mixed[row] or None in found.values())
            for one in fields:
                out[column_name(one.name)].append(found.get(one.name))
    arrays = [pa.array(values, schema.field(name).type) for name, values in out.items()]
    return pa.table(arrays, names=list(out)), len(out["id"])
