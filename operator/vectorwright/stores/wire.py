"""How a store server and its client speak: the same encoding at both ends, nothing trusted.

A message is a *frame*: the four bytes ``VWF1``, the length of a JSON header (unsigned 32 bits, little-endian), the
header, padded with spaces so that what follows is aligned to 8 bytes, and then the vectors as raw little-endian
float32, whose shape the header tells. JSON numbers would cost 348 µs a vector of 768 dimensions, base64 4 µs and a
third more bytes; raw costs a copy.

Everything here raises :class:`WireError` on input that is not of this form; what the input means (dimensions, names,
metadata) is checked by the stores.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson

from vectorwright.errors import (
    BatchRejected,
    BatchTooLarge,
    Conflict,
    NotFound,
    Retryable,
    Terminal,
    VectorwrightError,
)

from .base import Match, Metadata, Record, RecordBatch, Vectors
from .filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar

MEDIA_TYPE = "application/vnd.vectorwright.frame"
_PREFIX = struct.Struct("<4sI")
_MAGIC = b"VWF1"
_MAX_FILTER_DEPTH = 32
_MAX_FILTER_NODES = 4096
_MAX_FILTER_VALUES = 10_000

T = TypeVar("T", str, int, bool)


class WireError(ValueError):
    """The bytes are not a message of this protocol."""


# --- frames ----------------------------------------------------------------------------------------------------------


def encode_frame(header: Mapping[str, Any], vectors: Vectors | None = None) -> bytes:
    """A frame. ``vectors`` has shape (n, d). Raises WireError where a string is not valid Unicode."""
    head = dict(header)
    if vectors is not None:
        head["shape"] = list(vectors.shape)
    try:
        text = orjson.dumps(head)
    except TypeError as error:
        raise WireError("it holds text that is not valid Unicode, or values that JSON cannot hold") from error
    text += b" " * (-(_PREFIX.size + len(text)) % 8)
    parts = [_PREFIX.pack(_MAGIC, len(text)), text]
    if vectors is not None:
        parts.append(np.ascontiguousarray(vectors, "<f4").tobytes())
    return b"".join(parts)


def decode_frame(data: bytes) -> tuple[dict[str, Any], Vectors | None]:
    """Header and vectors of a frame. The vectors are a read-only view of ``data``."""
    if len(data) < _PREFIX.size:
        raise WireError("it is shorter than a frame's prefix")
    magic, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise WireError("it does not begin as a frame does")
    start = _PREFIX.size + length
    if start > len(data):
        raise WireError(f"its header should have {length} bytes, and the frame has {len(data)}")
    header = decode_json(memoryview(data)[_PREFIX.size : start])
    shape = header.pop("shape", None)
    if shape is None:
        if start != len(data):
            raise WireError("bytes follow its header, and the header tells no shape")
        return header, None
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 <= n < 2**31 for n in shape)):
        raise WireError("its shape is not two numbers that are not negative")
    rows, columns = shape
    if len(data) - start != rows * columns * 4:
        raise WireError(f"its shape is {rows} by {columns}, which is not the number of bytes that follow")
    vectors = np.frombuffer(data, "<f4", rows * columns, start).reshape(rows, columns)
    return header, vectors.astype(np.float32, copy=False)


def decode_json(data: bytes | memoryview) -> dict[str, Any]:
    """A JSON object. Raises WireError."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WireError("it is not valid JSON") from error
    if not isinstance(value, dict):
        raise WireError("it is not a JSON object")
    return value


# --- taking values out of headers ------------------------------------------------------------------------------------


def take(header: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """A value of exactly this type. Raises WireError."""
    value = header.get(name, default)
    if type(value) is not kind:
        raise WireError(f"{name!r} is not of type {kind.__name__}")
    return value


def take_strings(header: Mapping[str, Any], name: str) -> list[str]:
    """A list of strings. Raises WireError."""
    value = header.get(name)
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        raise WireError(f"{name!r} is not a list of strings")
    return value


def take_optional(header: Mapping[str, Any], name: str) -> str | None:
    """A string, or None where there is none. Raises WireError."""
    return None if header.get(name) is None else take(header, name, str)


# --- records ---------------------------------------------------------------------------------------------------------


def encode_batch(batch: RecordBatch) -> bytes:
    """A batch as a frame. Raises BatchRejected where it cannot be written as one."""
    try:
        return encode_frame({"ids": batch.ids, "metadata": batch.metadata, "texts": batch.texts}, batch.vectors)
    except WireError as error:
        raise BatchRejected(f"a record of the batch cannot be sent: {error}") from None


def decode_batch(data: bytes) -> RecordBatch:
    """A batch from a frame. Raises WireError."""
    header, vectors = decode_frame(data)
    ids = take_strings(header, "ids")
    metadata, texts = header.get("metadata"), header.get("texts")
    if vectors is None:
        raise WireError("it holds no vectors")
    if not isinstance(metadata, list) or not all(type(item) is dict for item in metadata):
        raise WireError("'metadata' is not a list of objects")
    if not isinstance(texts, list) or not all(item is None or type(item) is str for item in texts):
        raise WireError("'texts' is not a list of strings and nulls")
    if not len(ids) == len(vectors) == len(metadata) == len(texts):
        raise WireError("its ids, vectors, metadata and texts are not as many")
    return RecordBatch(ids, vectors, metadata, texts)


def encode_records(records: Sequence[Record], scores: Sequence[float] | None = None) -> bytes:
    """Records as a frame: with vectors where the first record has one."""
    header: dict[str, Any] = {"ids": [one.id for one in records]}
    if any(one.metadata for one in records):
        header["metadata"] = [one.metadata for one in records]
    if any(one.text is not None for one in records):
        header["texts"] = [one.text for one in records]
    if scores is not None:
        header["scores"] = scores
    found = [one.vector for one in records if one.vector is not None]
    return encode_frame(header, np.stack(found) if found and len(found) == len(records) else None)


def decode_records(data: bytes) -> tuple[list[Record], list[float] | None]:
    """Records and, for the answer to a query, their scores. Raises WireError."""
    header, vectors = decode_frame(data)
    ids = take_strings(header, "ids")
    metadata: Sequence[Metadata | None] = header.get("metadata") or [None] * len(ids)
    texts: Sequence[str | None] = header.get("texts") or [None] * len(ids)
    scores = header.get("scores")
    if not len(ids) == len(metadata) == len(texts) == (len(ids) if vectors is None else len(vectors)):
        raise WireError("its ids, metadata, texts and vectors are not as many")
    if scores is not None and len(scores) != len(ids):
        raise WireError("its scores are not as many as its ids")
    records = [
        Record(record_id, metadata[at] or {}, texts[at], None if vectors is None else vectors[at].copy())
        for at, record_id in enumerate(ids)
    ]
    return records, scores


def encode_matches(matches: Sequence[Match]) -> bytes:
    """The answer to a query as a frame."""
    return encode_records([one.record for one in matches], [one.score for one in matches])


# --- filters ---------------------------------------------------------------------------------------------------------


def _checked(value: Scalar | None) -> Scalar | None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Terminal("a filter cannot compare with NaN or infinity here", reason="UnsupportedFilter")
    return value


def encode_filter(where: Filter) -> list[Any]:
    """A filter as a JSON array that begins with the name of its kind.

    Raises Terminal (``UnsupportedFilter``) for numbers that JSON cannot hold.
    """
    match where:
        case Eq(name, value):
            return ["eq", name, _checked(value)]
        case Ne(name, value):
            return ["ne", name, _checked(value)]
        case In(name, values):
            return ["in", name, [_checked(value) for value in values]]
        case Range(name, gt, gte, lt, lte):
            return ["range", name, *map(_checked, (gt, gte, lt, lte))]
        case Exists(name):
            return ["exists", name]
        case And(parts):
            return ["and", *(encode_filter(part) for part in parts)]
        case Or(parts):
            return ["or", *(encode_filter(part) for part in parts)]
        case Not(part):
            return ["not", encode_filter(part)]


def decode_filter(value: object) -> Filter:
    """The filter that :func:`encode_filter` wrote. Raises WireError."""
    return _FilterDecoder().decode(value, 0)


class _FilterDecoder:
    """Counts what it decodes, so that no filter is deeper or larger than anybody means."""

    def __init__(self) -> None:
        self._nodes = 0

    def decode(self, value: object, depth: int) -> Filter:
        self._nodes += 1
        if depth > _MAX_FILTER_DEPTH or self._nodes > _MAX_FILTER_NODES:
            raise WireError(f"its filter is deeper than {_MAX_FILTER_DEPTH} or has more than {_MAX_FILTER_NODES} parts")
        if not isinstance(value, list) or not value:
            raise WireError("its filter has a part that is not an array with the name of its kind")
        match value:
            case ["eq", str(name), str() | int() | float() as scalar]:
                return Eq(name, scalar)
            case ["ne", str(name), str() | int() | float() as scalar]:
                return Ne(name, scalar)
            case ["in", str(name), list(values)] if all(isinstance(one, str | int | float) for one in values):
                if len(values) > _MAX_FILTER_VALUES:
                    raise WireError(f"its filter has a list of more than {_MAX_FILTER_VALUES} values")
                return In(name, tuple(values))
            case ["range", str(name), gt, gte, lt, lte] if self._bounds(gt, gte, lt, lte):
                return Range(name, gt, gte, lt, lte)
            case ["exists", str(name)]:
                return Exists(name)
            case ["and", *parts]:
                return And(tuple(self.decode(part, depth + 1) for part in parts))
            case ["or", *parts]:
                return Or(tuple(self.decode(part, depth + 1) for part in parts))
            case ["not", part]:
                return Not(self.decode(part, depth + 1))
        raise WireError("its filter has a part that is not known, or of the wrong form")

    @staticmethod
    def _bounds(*bounds: object) -> bool:
        given = [bound for bound in bounds if bound is not None]
        return bool(given) and all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in given)


# --- errors ----------------------------------------------------------------------------------------------------------

_KINDS: dict[str, tuple[type[VectorwrightError], int]] = {
    "BatchTooLarge": (BatchTooLarge, 413),
    "BatchRejected": (BatchRejected, 422),
    "Terminal": (Terminal, 400),
    "NotFound": (NotFound, 404),
    "Conflict": (Conflict, 409),
    "Retryable": (Retryable, 503),
}


def encode_error(error: VectorwrightError) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON body of an error."""
    kind = next((kind for kind, (cls, _) in _KINDS.items() if isinstance(error, cls)), "Terminal")
    after = error.after if isinstance(error, Retryable) else None
    return _KINDS[kind][1], {"kind": kind, "reason": error.reason, "message": error.message, "after": after}


def decode_error(body: Mapping[str, Any]) -> VectorwrightError:
    """The error that :func:`encode_error` wrote. Raises WireError."""
    kind, reason, message = (take(body, name, str) for name in ("kind", "reason", "message"))
    if kind not in _KINDS:
        raise WireError("it tells an error of a kind that is not known")
    after = body.get("after")
    if kind == "Retryable":
        return Retryable(message, reason=reason, after=float(after) if isinstance(after, int | float) else None)
    return _KINDS[kind][0](message, reason=reason)
