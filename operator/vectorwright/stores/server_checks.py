"""What the stores behind the store server refuse, in one place: names, definitions, batches, filters.

Everything here is checked in the server, whoever sent it: a client that checks too only saves a round trip.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import orjson

from vectorwright.errors import BatchRejected, BatchTooLarge, Terminal

from .base import RESERVED_FIELDS, Capabilities, FieldDefinition, IndexDefinition, Metadata, RecordBatch, Setting

MAX_ID_BYTES = 1024
MAX_FIELD_NAME_BYTES = 255
MAX_TOP_K = 10_000
INT64_MAX = 2**63 - 1
_FIELD_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,62}$")


def check_name(name: str, capabilities: Capabilities) -> None:
    """Raise Terminal (``InvalidName``) where the name of an index or alias is not taken: it may become a path."""
    if not re.fullmatch(capabilities.name_pattern, name) or ".." in name:
        raise Terminal(
            f"index name {name[:200]!r} is not taken by this store: it must match {capabilities.name_pattern} "
            "and not hold '..'",
            reason="InvalidName",
        )


def check_settings(settings: Mapping[str, Setting], known: Iterable[str]) -> None:
    """Raise Terminal (``UnsupportedSetting``) where a setting is not known."""
    names = sorted(known)
    for name in settings:
        if name not in names:
            raise Terminal(
                f"setting {name[:200]!r} is not known to this store; known are {', '.join(names) or 'none'}",
                reason="UnsupportedSetting",
            )


def check_fields(fields: Sequence[FieldDefinition], capabilities: Capabilities) -> None:
    """Raise Terminal (``InvalidField``) where a metadata field cannot be declared."""
    seen: set[str] = set()
    for field in fields:
        if field.name in RESERVED_FIELDS:
            problem = "is reserved and declared by the store itself"
        elif not _FIELD_NAME.fullmatch(field.name):
            problem = f"must match {_FIELD_NAME.pattern}"
        elif field.type not in capabilities.field_types:
            problem = f"has type {field.type[:100]!r}; this store has {', '.join(sorted(capabilities.field_types))}"
        elif field.name in seen:
            problem = "is declared twice"
        else:
            seen.add(field.name)
            continue
        raise Terminal(f"metadata field {field.name[:200]!r} {problem}", reason="InvalidField")


def check_definition(definition: IndexDefinition, capabilities: Capabilities, settings: Iterable[str]) -> None:
    """Raise Terminal where an index cannot be made as defined."""
    check_name(definition.name, capabilities)
    if not 1 <= definition.dimension <= capabilities.max_dimension:
        raise Terminal(
            f"dimension {definition.dimension} is not supported: this store takes 1 to {capabilities.max_dimension}",
            reason="InvalidDimension",
        )
    if definition.metric not in capabilities.metrics:
        raise Terminal(
            f"metric {definition.metric[:100]!r} is not supported; this store has "
            f"{', '.join(sorted(capabilities.metrics))}",
            reason="UnsupportedMetric",
        )
    check_fields(definition.fields, capabilities)
    check_settings(definition.settings, settings)


def check_batch_form(batch: RecordBatch, index: str) -> None:
    """Raise BatchRejected where the lists of a batch are not as many, or its vectors no float32 of shape (n, d)."""
    vectors, count = batch.vectors, len(batch)
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise BatchRejected(
            f"index {index}: vectors must be float32 of shape (n, d), got {vectors.dtype}{vectors.shape}"
        )
    if not (count == len(vectors) == len(batch.metadata) == len(batch.texts)):
        raise BatchRejected(
            f"index {index}: the batch has {count} ids, {len(vectors)} vectors, {len(batch.metadata)} metadata "
            f"and {len(batch.texts)} texts; they must be as many",
        )


def check_batch(
    batch: RecordBatch, *, index: str, dimension: int, metric: str, capabilities: Capabilities
) -> list[bytes]:
    """The metadata of the records as JSON, one by one. Vectors must have shape (n, d), finite float32.

    Raises BatchTooLarge (more records or bytes than the store takes at once) or BatchRejected, which names the first
    record to blame.
    """
    check_batch_form(batch, index)
    count = len(batch)
    if count > capabilities.max_batch_records:
        raise BatchTooLarge(
            f"index {index}: {count} records in one write; this store takes {capabilities.max_batch_records}"
        )
    _check_ids(batch.ids, index)
    _check_vectors(batch, index, dimension, metric)
    encoded = [
        _encode_metadata(metadata, record_id, index, capabilities)
        for record_id, metadata in zip(batch.ids, batch.metadata, strict=True)
    ]
    size = batch.vectors.nbytes + sum(map(len, encoded)) + sum(len(record_id) for record_id in batch.ids)
    for record_id, text in zip(batch.ids, batch.texts, strict=True):
        if text is None:
            continue
        length = _utf8_length(text, f"index {index}, record {record_id!r}: its text")
        if length > capabilities.max_text_bytes:
            raise BatchRejected(
                f"index {index}, record {record_id!r}: its text has {length} bytes; this store takes "
                f"{capabilities.max_text_bytes}"
            )
        size += length
    if size > capabilities.max_batch_bytes:
        raise BatchTooLarge(
            f"index {index}: {size} bytes in one write; this store takes {capabilities.max_batch_bytes}"
        )
    return encoded


def _utf8_length(text: str, what: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise BatchRejected(f"{what} is not valid Unicode (it holds half of a surrogate pair)") from None


def _check_ids(ids: Sequence[str], index: str) -> None:
    for record_id in ids:
        if not isinstance(record_id, str) or not record_id:
            raise BatchRejected(f"index {index}: an id must be a string that is not empty")
        if _utf8_length(record_id, f"index {index}: an id") > MAX_ID_BYTES:
            raise BatchRejected(f"index {index}: id {record_id[:64]!r}… is longer than {MAX_ID_BYTES} bytes")
    if len(set(ids)) != len(ids):
        twice = next(record_id for record_id, times in Counter(ids).items() if times > 1)
        raise BatchRejected(f"index {index}: id {twice!r} is in one batch twice; ids of a batch must be distinct")


def _check_vectors(batch: RecordBatch, index: str, dimension: int, metric: str) -> None:
    vectors = batch.vectors
    if len(vectors) and vectors.shape[1] != dimension:
        raise BatchRejected(
            f"index {index} has dimension {dimension}; the batch has vectors of {vectors.shape[1]}",
            reason="DimensionMismatch",
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        bad = batch.ids[int(np.argmin(finite))]
        raise BatchRejected(f"index {index}, record {bad!r}: its vector holds NaN or infinity")
    if metric == "cosine":
        nonzero = vectors.any(axis=1)
        if not nonzero.all():
            bad = batch.ids[int(np.argmin(nonzero))]
            raise BatchRejected(f"index {index}, record {bad!r}: a zero vector has no direction to compare by cosine")


def _encode_metadata(metadata: Metadata, record_id: str, index: str, capabilities: Capabilities) -> bytes:
    where = f"index {index}, record {record_id!r}"
    for name, value in metadata.items():
        if not isinstance(name, str) or not name or len(name) > MAX_FIELD_NAME_BYTES:
            raise BatchRejected(f"{where}: names of metadata have 1 to {MAX_FIELD_NAME_BYTES} characters")
        if isinstance(value, list):
            if not capabilities.list_metadata:
                raise BatchRejected(f"{where}: metadata {name!r} is a list, which this store does not hold")
            if not all(isinstance(item, str) for item in value):
                raise BatchRejected(f"{where}: metadata {name!r} is a list of other things than strings")
        elif isinstance(value, int):
            if not -INT64_MAX - 1 <= value <= INT64_MAX:
                raise BatchRejected(f"{where}: metadata {name!r} does not fit in 64 bits")
        elif isinstance(value, float):
            if not np.isfinite(value):
                raise BatchRejected(f"{where}: metadata {name!r} is NaN or infinite")
        elif not isinstance(value, str):
            raise BatchRejected(
                f"{where}: metadata {name!r} is a {type(value).__name__}; it must be a string, number, boolean or list "
                "of strings"
            )
    try:
        encoded = orjson.dumps(metadata)
    except TypeError:
        raise BatchRejected(f"{where}: its metadata is not valid Unicode or cannot be written as JSON") from None
    if len(encoded) > capabilities.max_metadata_bytes:
        raise BatchRejected(
            f"{where}: its metadata has {len(encoded)} bytes as JSON; "
            f"this store takes {capabilities.max_metadata_bytes}"
        )
    return encoded


def check_query(vector: np.ndarray, top_k: int, *, index: str, dimension: int, metric: str) -> None:
    """Raise Terminal (``InvalidQuery``) where a query vector, of shape (d,), or ``top_k`` makes no sense."""
    if vector.shape != (dimension,):
        problem = f"has dimension {dimension}; the query vector has shape {vector.shape}"
    elif not np.isfinite(vector).all():
        problem = "was asked with a vector that holds NaN or infinity"
    elif metric == "cosine" and not vector.any():
        problem = "compares by cosine, and the query vector is zero"
    elif not 1 <= top_k <= MAX_TOP_K:
        problem = f"was asked for {top_k} matches; 1 to {MAX_TOP_K} are possible"
    else:
        return
    raise Terminal(f"index {index} {problem}", reason="InvalidQuery")
