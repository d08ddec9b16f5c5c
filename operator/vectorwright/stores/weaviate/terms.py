"""Metadata as Weaviate indexes it, so that filters mean exactly what they mean everywhere.

Weaviate's typed properties lose what filters ask for: texts are trimmed, integers are doubles, a property takes one
type only. So every record carries its metadata as *terms*, whole strings in one indexed list: ``["word"]`` says that it
has the field, ``["word","plain"]`` that the field equals (or its list holds) the value. Equality is then that of
strings, for every field, declared or not. Fields that are declared when the index is made also carry a *key*, a string
whose order is the order of the values.
"""

from __future__ import annotations

import hashlib
import math
import struct

import orjson

from ..base import Metadata
from ..filters import Scalar

EVERY_RECORD = "[]"
"""A term that every record carries."""
MAX_TERM_BYTES = 256
"""Longer terms are replaced by their digest."""

_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_RESIDUAL = 1 << 12
"""More than an integer of 64 bits is away from the float next to it (1,024 at most)."""
_EXACT = 2.0**64
AFTER_NUMBERS, BEFORE_STRINGS = "o", "s"
"""Bounds in the order of keys: numbers begin with ``n``, strings with ``s``."""


def presence(field: str) -> str:
    """The term of a record that has the field."""
    return _short(f"[{_text(field)}]", field)


def equality(field: str, value: Scalar) -> str:
    """The term of a record whose field equals the value: 1 and 1.0 have one, true and "1" others.

    Raises ValueError for what no record can hold: half of a surrogate pair, NaN, infinity.
    """
    if isinstance(value, bool):
        literal = "true" if value else "false"
    elif isinstance(value, str):
        literal = _text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("no record holds NaN or infinity")
        literal = str(int(value)) if value.is_integer() else repr(value)
    else:
        literal = str(value)
    return _short(f"[{_text(field)},{literal}]", field)


def _text(value: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise ValueError("no record holds half of a surrogate pair") from None


def _short(term: str, field: str) -> str:
    encoded = term.encode()
    if len(encoded) <= MAX_TERM_BYTES:
        return term
    # No JSON begins with a number sign, so that a digest equals no other term.
    return f"[{_text(field[:32])},#{hashlib.sha256(encoded).hexdigest()}]"


def terms(metadata: Metadata) -> list[str]:
    """All terms of a record, each once. The metadata was checked: it holds what JSON can."""
    found = {EVERY_RECORD: None}
    for field, value in metadata.items():
        found[presence(field)] = None
        for one in value if isinstance(value, list) else (value,):
            found[equality(field, one)] = None
    return list(found)


def order_key(value: object) -> str | None:
    """A string that sorts (by code point, as by byte) where the number or string does; None for what has no order.

    A number is its nearest double, as bits that sort, and how far it is from that: so integers of 64 bits sort exactly,
    also among floats. A string ends with the lowest character, which Weaviate does not trim. Raises OverflowError for
    an integer that no double is near to, ValueError for NaN.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return f"s{value}\0"
    if not isinstance(value, int | float):
        return None
    near = float(value) + 0.0  # -0.0 is 0.0
    if math.isnan(near):
        raise ValueError("NaN has no place in the order")
    bits = int(struct.unpack(">Q", struct.pack(">d", near))[0])
    bits = bits ^ _ALL if bits & _SIGN else bits | _SIGN
    residual = 0
    if isinstance(value, int):
        residual = value - int(near)
        if abs(near) > _EXACT:  # beyond what records hold: only the side matters
            residual = max(-1, min(1, residual))
    return f"n{bits:016x}{residual + _RESIDUAL:04x}"
