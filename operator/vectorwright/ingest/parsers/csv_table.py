"""CSV: a header that names the fields, then one record a row (RFC 4180)."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence

from vectorwright.errors import Terminal

from .base import Row

_DELIMITERS = ",;\t|"


def _delimiter(text: str, wanted: Sequence[str]) -> str:
    """The first delimiter that finds all wanted fields in the header; otherwise the one that finds most fields."""
    head = text[: text.find("\n") + 1] or text
    headers = {}
    for delimiter in _DELIMITERS:
        try:
            headers[delimiter] = next(csv.reader(io.StringIO(head, newline=""), delimiter=delimiter), [])
        except csv.Error:
            continue
    for delimiter, header in headers.items():
        if set(wanted) <= {name.strip() for name in header}:
            return delimiter
    return max(headers, key=lambda delimiter: len(headers[delimiter]), default=",")


def rows(text: str, wanted: Sequence[str]) -> Iterator[Row]:
    """The records of a table.

    ``wanted`` are the fields that the job names: they tell the delimiter (comma, semicolon, tab or bar). Raises
    Terminal ``MissingField`` when the header lacks one, ``BadHeader`` when it names a field twice.
    """
    # A field may be as long as the document, whose size has been checked.
    csv.field_size_limit(max(len(text), 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, wanted), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise Terminal(f"its header is not CSV: {error}", reason="BadHeader") from None
    repeated = sorted(name for name, times in Counter(header).items() if times > 1)
    if repeated:
        raise Terminal(f"its header names {', '.join(map(repr, repeated[:5]))} twice", reason="BadHeader")
    missing = sorted(set(wanted) - set(header))
    if missing:
        raise Terminal(
            f"its header has no field {', '.join(map(repr, missing[:5]))}; it has "
            f"{', '.join(repr(name[:64]) for name in header[:20]) or 'none'}",
            reason="MissingField",
        )
    number = 0
    while True:
        line = reader.line_num + 1
        number += 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, line, problem=f"line {line} is not CSV: {error}")
            continue
        if not row:
            number -= 1
        elif len(row) != len(header):
            yield Row(number, line, problem=f"line {line} has {len(row)} fields where the header has {len(header)}")
        else:
            yield Row(number, line, values=dict(zip(header, row, strict=True)))
