"""Changes of an index as bytes: what a record of the log holds.

A payload is a prefix (kind, number of records, dimension, length of the lines), JSON lines, and raw little-endian
float32 vectors. An upsert has a line and a vector a record, a removal a line (the id as a JSON string) a record.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import orjson

from ..base import Metadata, RecordBatch, Vectors

_PREFIX = struct.Struct("<BxxxIIQ")
_UPSERT, _REMOVAL = 1, 2


@dataclass(frozen=True, slots=True)
class Upsert:
    """Records to write. ``lines[i]`` is :func:`encode_line` of record i; ``vectors`` has shape (n, d)."""

    ids: list[str]
    lines: list[bytes]
    metadata: list[Metadata]
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Removal:
    """Records to remove."""

    ids: list[str]


Change = Upsert | Removal


def upsert_of(batch: RecordBatch, metadata: Sequence[bytes]) -> Upsert:
    """A batch whose metadata was encoded already."""
    lines = [
        b'{"id":%b,"metadata":%b,"text":%b}' % (orjson.dumps(record_id), encoded, orjson.dumps(text))
        for record_id, encoded, text in zip(batch.ids, metadata, batch.texts, strict=True)
    ]
    return Upsert(list(batch.ids), lines, list(batch.metadata), np.array(batch.vectors, np.float32, order="C"))


def decode_line(line: bytes) -> tuple[str, Metadata, str | None]:
    """Id, metadata and text of a line."""
    value = orjson.loads(line)
    return value["id"], value["metadata"], value["text"]


@lru_cache(256)
def name_in_line(name: str) -> bytes:
    """How the name of a metadata field stands in the line of every record that has it."""
    return orjson.dumps(name) + b":"


def encode_change(change: Change) -> bytes:
    """The payload of a change."""
    if isinstance(change, Upsert):
        lines = b"\n".join(change.lines)
        prefix = _PREFIX.pack(_UPSERT, len(change.ids), change.vectors.shape[1], len(lines))
        return b"".join((prefix, lines, np.ascontiguousarray(change.vectors, "<f4").data.cast("B")))
    lines = b"\n".join(orjson.dumps(record_id) for record_id in change.ids)
    return _PREFIX.pack(_REMOVAL, len(change.ids), 0, len(lines)) + lines


def decode_change(payload: bytes | memoryview) -> Change:
    """The change that a payload holds. Raises ValueError where it is none."""
    if len(payload) < _PREFIX.size:
        raise ValueError("shorter than a change can be")
    kind, count, dimension, length = _PREFIX.unpack_from(payload)
    end = _PREFIX.size + length
    if kind not in (_UPSERT, _REMOVAL) or len(payload) != end + count * dimension * 4:
        raise ValueError("not of the form of a change")
    lines = bytes(payload[_PREFIX.size : end]).split(b"\n") if count else []
    if len(lines) != count:
        raise ValueError("its lines are not as many as its records")
    if kind == _REMOVAL:
        return Removal([orjson.loads(line) for line in lines])
    vectors = np.frombuffer(payload, "<f4", count * dimension, end).reshape(count, dimension)
    decoded = [decode_line(line) for line in lines]
    return Upsert([one[0] for one in decoded], lines, [one[1] for one in decoded], vectors.astype(np.float32))
