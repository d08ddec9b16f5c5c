"""JSON lines: one JSON object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from .base import Row
from .decode import decode

_NOT_A_NUMBER = re.compile(rb"\b(?:NaN|Infinity)\b")
_TEXT_WITH_MARK = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
_SNIFFED = 8000
"""Bytes in which a NUL shows a binary file, as git looks for it."""


def _as_float(literal: str) -> float:
    return float(literal.replace("Infinity", "inf"))


def _load(line: bytes) -> Any:
    """The value of a line. Raises ``ValueError`` with what is wrong.

    NaN and Infinity are no JSON, but vectors that were written by Python hold them: they become floats here, so that
    the check of the vector can say which record is broken and why.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        if not _NOT_A_NUMBER.search(line):
            raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    try:
        value = json.loads(line, parse_constant=_as_float)
        orjson.dumps(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (RecursionError, orjson.JSONEncodeError):
        raise ValueError("it is nested too deeply, or holds a number or a character that JSON cannot carry") from None
    return value


def rows(data: bytes) -> Iterator[Row]:
    """The records of a document. Empty lines are left out but counted.

    Raises Terminal ``BinaryContent`` where the document is not text at all.
    """
    if data.startswith(_TEXT_WITH_MARK) or b"\0" in data[:_SNIFFED]:
        data = decode(data).encode("utf-8", "replace")
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].strip()
        start, number = end + 1, number + 1
        if not line:
            continue
        try:
            value = _load(line)
        except ValueError as error:
            yield Row(number, number, problem=f"line {number} is not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(number, number, values=value)
        else:
            yield Row(number, number, problem=f"line {number} is JSON, but not an object")
