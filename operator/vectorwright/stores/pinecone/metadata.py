"""Metadata and text of a record as Pinecone holds them, and back, exactly.

Pinecone holds strings, doubles, booleans and lists of strings that are not empty; no integers, no nulls, no text. So
beside the metadata, in keys of our own and only where they say something:

- ``vw_text``: the text of the record.
- ``vw_types``: JSON that names the whole numbers that are floats, and holds as text the numbers that may come back as
  others: integers beyond 2^53, and a negative zero.
- ``vw_empty``: names of the fields that are empty lists.

A number without a fraction that ``vw_types`` does not name is an integer: so are the years that others wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from vectorwright.errors import BatchRejected

from ..base import Metadata, RecordBatch

TEXT = "vw_text"
TYPES = "vw_types"
EMPTY = "vw_empty"
OWN_NAMES = frozenset({TEXT, TYPES, EMPTY})

EXACT = 2**53
"""Integers up to this one, either sign, are doubles exactly."""
MAX_BYTES = 40 * 1024
"""Metadata of a record, its text included, as JSON."""


def encode(metadata: Metadata, text: str | None) -> dict[str, Any]:
    """What is sent for the metadata and the text of a record. Names are checked by :func:`encode_all`."""
    sent: dict[str, Any] = {}
    floats: list[str] = []
    texts: dict[str, str] = {}
    empty: list[str] = []
    for name, value in metadata.items():
        if isinstance(value, list) and not value:
            empty.append(name)
        elif isinstance(value, bool | str | list):
            sent[name] = value
        elif isinstance(value, int):
            sent[name] = value if -EXACT <= value <= EXACT else _away_from_zero(value)
            if abs(value) > EXACT:
                texts[name] = str(value)
        else:
            sent[name] = value
            if value == 0 and math.copysign(1.0, value) < 0:
                texts[name] = "-0.0"
            elif value.is_integer() and abs(value) <= EXACT:
                floats.append(name)
    if text is not None:
        sent[TEXT] = text
    if floats or texts:
        sent[TYPES] = orjson.dumps({"f": floats, "n": texts}).decode()
    if empty:
        sent[EMPTY] = empty
    return sent


def _away_from_zero(value: int) -> float:
    """The nearest double that is not nearer to zero: beyond 2^53 no rounding may bring a number back to it."""
    near = float(value)
    return near if abs(int(near)) >= abs(value) else math.nextafter(near, math.copysign(math.inf, near))


def encode_all(batch: RecordBatch, index: str) -> list[bytes]:
    """The metadata to send, as JSON, one by one. Raises BatchRejected, naming the first record to blame."""
    encoded = []
    for record_id, metadata, text in zip(batch.ids, batch.metadata, batch.texts, strict=True):
        for name in metadata:
            if name.startswith("$") or name in OWN_NAMES:
                raise BatchRejected(
                    f"index {index}, record {record_id!r}: metadata {name[:63]!r} cannot be held: the name is reserved"
                )
        one = orjson.dumps(encode(metadata, text))
        if len(one) > MAX_BYTES:
            raise BatchRejected(
                f"index {index}, record {record_id!r}: its metadata and text have {len(one)} bytes as JSON; Pinecone "
                f"takes {MAX_BYTES}: make the chunks smaller, or leave metadata out"
            )
        encoded.append(one)
    return encoded


def decode(held: Mapping[str, Any] | None) -> tuple[Metadata, str | None]:
    """Metadata and text of what Pinecone gave back."""
    held = held or {}
    floats, texts = _types(held.get(TYPES))
    metadata: Metadata = {}
    for name, value in held.items():
        if name in OWN_NAMES:
            continue
        if isinstance(value, bool | str | list):
            metadata[name] = value
        elif name in texts:
            metadata[name] = float(texts[name]) if "." in texts[name] else int(texts[name])
        elif isinstance(value, int | float):
            whole = float(value).is_integer() and abs(value) <= EXACT and name not in floats
            metadata[name] = int(value) if whole else float(value)
    empty = held.get(EMPTY)
    for name in empty if isinstance(empty, list) else ():
        metadata[str(name)] = []
    text = held.get(TEXT)
    return metadata, text if isinstance(text, str) else None


def _types(text: object) -> tuple[Sequence[str], Mapping[str, str]]:
    if not isinstance(text, str):
        return (), {}
    try:
        types = orjson.loads(text)
        return types["f"], types["n"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return (), {}  # somebody else's key of that name: numbers are read as they come
