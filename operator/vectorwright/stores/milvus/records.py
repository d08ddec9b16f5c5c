"""Records on the wire: rows in, as bytes that no value of a vector was touched for; rows out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vectorwright.errors import BatchRejected, BatchTooLarge

from ..base import RESERVED_FIELDS, MetadataValue, Record, RecordBatch, Vectors
from .metadata import MAX_JSON, decode, encode
from .names import from_key, to_key
from .schema import ID, MAX_VARCHAR, METADATA, MIXED, TEXT, VECTOR, Collection
from .stubs import milvus_pb2, schema_pb2

MAX_REQUEST = 60 * 2**20
"""Bytes. Milvus takes 64 MB a request (its documentation)."""
_SLOTS = {"string": "string_data", "integer": "long_data", "float": "double_data", "bool": "bool_data"}
_TYPES = {"string": 21, "integer": 5, "float": 11, "bool": 1}
_JSON, _FLOAT_VECTOR = 23, 101


def upsert_request(batch: RecordBatch, collection: Collection, partition: str, namespace: str) -> bytes:
    """An UpsertRequest with every column of a batch that was checked: what is not said is null, and nothing stays.

    Raises BatchRejected, which names the record, and BatchTooLarge.
    """
    index = collection.name
    mixed = [False] * len(batch)
    packed = [
        _column(ID, "string", [to_key(one, namespace) for one in batch.ids]),
        _column(TEXT, "string", [text or "" for text in batch.texts]),
        _metadata(batch, index),
    ]
    for name, kind in collection.columns.items():
        packed.append(_nullable(name, kind, _values(name, kind, batch, mixed, index)))
    packed.append(_column(MIXED, "bool", mixed))
    request = milvus_pb2.UpsertRequest(
        collection_name=collection.theirs, partition_name=partition, num_rows=len(batch), fields_data=packed
    )
    # The vectors last, as one more field of the same list: their bytes are copied once, into the request.
    body = b"".join((request.SerializeToString(), *_vectors(batch.vectors)))
    if len(body) > MAX_REQUEST:
        raise BatchTooLarge(f"index {index}: {len(body)} bytes in one write; Milvus takes {MAX_REQUEST}")
    return body


def _column(name: str, kind: str, values: Sequence[Any]) -> Any:
    made = schema_pb2.FieldData(type=_TYPES[kind], field_name=name)
    getattr(made.scalars, _SLOTS[kind]).data.extend(values)
    return made


def _nullable(name: str, kind: str, values: list[Any]) -> Any:
    made = _column(name, kind, [value for value in values if value is not None])
    if not made.scalars.HasField(_SLOTS[kind]):
        getattr(made.scalars, _SLOTS[kind]).SetInParent()  # all null: the kind is told all the same
    made.valid_data.extend(value is not None for value in values)
    return made


def _metadata(batch: RecordBatch, index: str) -> Any:
    made = schema_pb2.FieldData(type=_JSON, field_name=METADATA)
    for record_id, metadata, text in zip(batch.ids, batch.metadata, batch.texts, strict=True):
        encoded = encode(metadata, has_text=text is not None)
        if len(encoded) > MAX_JSON:
            raise BatchRejected(
                f"index {index}, record {record_id!r}: its metadata takes {len(encoded)} bytes as JSON with the names "
                f"of its types; Milvus takes {MAX_JSON}"
            )
        made.scalars.json_data.data.append(encoded)
    return made


def _values(name: str, kind: str, batch: RecordBatch, mixed: list[bool], index: str) -> list[Any]:
    """The values of a column, None where it holds none. A value that it cannot hold marks its record in ``mixed``."""
    found: list[Any] = []
    for at, metadata in enumerate(batch.metadata):
        value = metadata.get(name)
        held = None if value is None else _held(kind, value)
        if value is not None and held is None:
            if name in RESERVED_FIELDS:
                raise BatchRejected(
                    f"index {index}, record {batch.ids[at]!r}: metadata {name!r} is reserved, and must be a "
                    f"{RESERVED_FIELDS[name]} of at most {MAX_VARCHAR} bytes"
                )
            mixed[at] = True
        found.append(held)
    return found


def _held(kind: str, value: MetadataValue) -> MetadataValue | None:
    """The value as a column of the kind holds it, equal to it in every comparison; None where it cannot."""
    match kind, value:
        case "bool", bool():
            return value
        case _, bool():
            return None
        case "string", str() if len(value) * 4 <= MAX_VARCHAR or len(value.encode()) <= MAX_VARCHAR:
            return value
        case "integer", int():
            return value
        case "integer", float() if value.is_integer() and -(2**63) <= value < 2**63:
            return int(value)
        case "float", int() if int(float(value)) == value:
            return float(value)
        case "float", float():
            return value
    return None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


_LENGTH, _NUMBER = 2, 0
_UPSERT_FIELDS = milvus_pb2.UpsertRequest.DESCRIPTOR.fields_by_name["fields_data"].number
_FIELD = {field.name: field.number for field in schema_pb2.FieldData.DESCRIPTOR.fields}
_VECTORS = {field.name: field.number for field in schema_pb2.VectorField.DESCRIPTOR.fields}
_FLOATS = schema_pb2.FloatArray.DESCRIPTOR.fields_by_name["data"].number


def _vectors(vectors: Vectors) -> list[bytes | memoryview]:
    """The column of vectors in protobuf's encoding: packed floats are little-endian float32, as they are in memory."""
    raw = np.ascontiguousarray(vectors, "<f4")
    floats = _tag(_FLOATS, _LENGTH) + _varint(raw.nbytes)
    field = (
        _tag(_VECTORS["dim"], _NUMBER)
        + _varint(vectors.shape[1])
        + _tag(_VECTORS["float_vector"], _LENGTH)
        + _varint(len(floats) + raw.nbytes)
        + floats
    )
    head = (
        _tag(_FIELD["type"], _NUMBER)
        + _varint(_FLOAT_VECTOR)
        + _tag(_FIELD["field_name"], _LENGTH)
        + _varint(len(VECTOR))
        + VECTOR.encode()
        + _tag(_FIELD["vectors"], _LENGTH)
        + _varint(len(field) + raw.nbytes)
        + field
    )
    return [_tag(_UPSERT_FIELDS, _LENGTH) + _varint(len(head) + raw.nbytes) + head, raw.reshape(-1).view(np.uint8).data]


def placeholder(vector: Vectors) -> bytes:
    """One vector, shape (d,), as a search carries it: bytes of a PlaceholderGroup."""
    raw = np.ascontiguousarray(vector, "<f4").tobytes()
    value = b"\x0a\x02$0" + b"\x10" + _varint(_FLOAT_VECTOR) + b"\x1a" + _varint(len(raw)) + raw
    return b"\x0a" + _varint(len(value)) + value


def records(fields_data: Iterable[Any], keys: Sequence[str] | None, namespace: str) -> list[Record]:
    """Rows of an answer. ``keys`` are the primary keys where they come apart from the columns."""
    columns = {field.field_name: field for field in fields_data}
    if keys is None:
        keys = list(columns[ID].scalars.string_data.data) if ID in columns else []
    documents = columns[METADATA].scalars.json_data.data if METADATA in columns else None
    texts = columns[TEXT].scalars.string_data.data if TEXT in columns else None
    vectors = _matrix(columns[VECTOR]) if VECTOR in columns and keys else None
    found = []
    for at, key in enumerate(keys):
        metadata, has_text = decode(documents[at]) if documents is not None else ({}, False)
        text = texts[at] if texts is not None and has_text else None
        vector = vectors[at].copy() if vectors is not None else None
        found.append(Record(from_key(key, namespace), metadata, text, vector))
    return found


def _matrix(field: Any) -> Vectors:
    """The vectors of an answer, shape (n, d)."""
    packed: bytes = field.vectors.float_vector.SerializeToString()
    start = 1  # behind the tag comes the length, a varint
    while packed[start] & 0x80:
        start += 1
    return (
        np.frombuffer(packed, "<f4", offset=start + 1)
        .reshape(-1, int(field.vectors.dim))
        .astype(np.float32, copy=False)
    )
