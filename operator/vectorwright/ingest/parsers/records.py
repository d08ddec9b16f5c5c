"""From rows of a table to documents: chosen fields become the id, the text, the metadata and the vector.

**Ids.** 7 and "7" are two ids, so the written form tells them apart:

- a number is written in decimal: ``7``;
- a string is written as it is, unless it reads as a whole number or begins with a double quote: then it is written as
  JSON, ``"7"``;
- a CSV cell has no type and is written as it is.

Two different ids are never written alike, and most are written as they are.

**Keys.** ``<entry>#<id>``, or ``<entry>#<number of the record>`` where the job names no id field. A record whose id
could not be read is reported under ``<entry>#line:<line>``: which document it was is not known.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.errors import Terminal
from vectorwright.stores.base import Metadata, MetadataValue

from .base import Row

MAX_ID = 1024
"""Characters of an id. Stores take less (Pinecone 512); the writer checks that."""

_FLOAT32_MAX = 3.4028234663852886e38
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a record are used."""

    id: str | None
    text: tuple[str, ...]
    metadata: tuple[str, ...]
    vector: str | None
    text_required: bool
    typed: bool
    """Whether values have types (JSON), or are all strings (CSV)."""

    @classmethod
    def of(cls, parse: Parse, precomputed_field: str | None, *, typed: bool) -> Fields:
        """The fields that a job names. A record that brings its vector may come without text."""
        return cls(
            id=parse.id_field,
            text=tuple(parse.text_fields or ("text",)),
            metadata=tuple(parse.metadata_fields or ()),
            vector=precomputed_field,
            text_required=parse.text_fields is not None or precomputed_field is None,
            typed=typed,
        )

    @property
    def required(self) -> tuple[str, ...]:
        """Fields that a table's header must name."""
        names = (self.id, *(self.text if self.text_required else ()), *self.metadata, self.vector)
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True, slots=True)
class Record:
    """A record, or why there is none."""

    key: str
    """What follows the entry's key and ``#``."""
    id: str | None = None
    text: str = ""
    metadata: Metadata | None = None
    vector: array[float] | None = None
    content_hash: str = ""
    problem: tuple[str, str] | None = None
    """Reason and message."""


def written_id(value: object, *, typed: bool) -> str:
    """The written form of an id. Raises Terminal ``BadId`` for what is no id."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Terminal("its id is neither a string nor a whole number of at most 64 bits", reason="BadId")
    if isinstance(value, int):
        return str(value)
    if not value.strip():
        raise Terminal("its id is empty", reason="BadId")
    if len(value) > MAX_ID:
        raise Terminal(f"its id has {len(value)} characters, more than {MAX_ID}", reason="BadId")
    if typed and (_WHOLE_NUMBER.fullmatch(value) or value.startswith('"')):
        return orjson.dumps(value).decode()
    return value


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return orjson.dumps(value).decode()


def _as_metadata(value: object) -> MetadataValue | None:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list) and all(isinstance(item, str | bool | int | float) for item in value):
        return [item if isinstance(item, str) else orjson.dumps(item).decode() for item in value]
    return orjson.dumps(value).decode()


def _bad_vector(message: str) -> Terminal:
    return Terminal(message, reason="BadVector")


def vector_of(value: object, field: str) -> array[float]:
    """The vector in a field: a list of numbers, or the JSON of one. Raises Terminal ``BadVector``.

    NaN, infinity and what is beyond float32 are refused here, with the position of the first such value; the length is
    checked by the writer, which knows the index.
    """
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise _bad_vector(f"field {field!r} is text, not a list of numbers") from None
    if not isinstance(value, list):
        raise _bad_vector(f"field {field!r} is {_kind(value)}, not a list of numbers")
    if not value:
        raise _bad_vector(f"field {field!r} is an empty list")
    for at, number in enumerate(value):
        if type(number) is not float and type(number) is not int:
            raise _bad_vector(f"field {field!r} holds {_kind(number)} at position {at}; a vector is a list of numbers")
        if not -_FLOAT32_MAX <= number <= _FLOAT32_MAX:
            named = "NaN" if number != number else "infinity or a number too large for float32"  # noqa: PLR0124
            raise _bad_vector(f"field {field!r} holds {named} at position {at}")
    return array("d", value)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "text", dict: "an object", list: "a list", int: "a number", float: "a number"}
    return names.get(type(value), "missing")


def _content_hash(fields: Fields, used: Mapping[str, object], as_it_is: Metadata | None) -> str:
    """SHA-256 of the fields that are used, in one form whatever their order in the record."""
    picked = [used.get(name) if name else None for name in (fields.id, *fields.text, *fields.metadata)]
    vector = used.get(fields.vector) if fields.vector else None
    content = [picked, vector] if as_it_is is None else [picked, vector, as_it_is]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _record(values: Mapping[str, Any], row: Row, fields: Fields) -> Record:
    record_id: str | None = None
    key = str(row.number)
    if fields.id is not None:
        key = f"line:{row.line}"
        if values.get(fields.id) is None:
            return Record(key, problem=("MissingId", f"line {row.line}: it has no field {fields.id!r} for its id"))
        try:
            record_id = key = written_id(values[fields.id], typed=fields.typed)
        except Terminal as error:
            return Record(key, problem=(error.reason, f"line {row.line}: {error.message}"))
    if fields.text_required and not any(name in values for name in fields.text):
        names = ", ".join(repr(name) for name in fields.text)
        return Record(
            key,
            problem=(
                "MissingField",
                f"line {row.line}: it has no field {names} for its text: set spec.parse.textFields",
            ),
        )
    vector = None
    if fields.vector is not None:
        try:
            vector = vector_of(values.get(fields.vector, _ABSENT), fields.vector)
        except Terminal as error:
            return Record(key, problem=(error.reason, f"line {row.line}: {error.message}"))
    texts = (_as_text(values.get(name)) for name in fields.text)
    metadata = {name: value for name in fields.metadata if (value := _as_metadata(values.get(name))) is not None}
    return Record(
        key,
        id=record_id,
        text="\n".join(text for text in texts if text),
        metadata={**(row.metadata or {}), **metadata},
        vector=vector,
        content_hash=_content_hash(fields, values, row.metadata),
    )


def records(rows: Iterable[Row], fields: Fields) -> Iterator[Record]:
    """The records of a table, broken ones with their problem. Of several with one id, the first is taken."""
    seen: dict[str, int] = {}
    for row in rows:
        if row.values is None:
            key = f"line:{row.line}" if fields.id is not None else str(row.number)
            yield Record(key, problem=("BadRecord", row.problem or "it cannot be read"))
            continue
        record = _record(row.values, row, fields)
        if record.problem is None and record.id is not None:
            first = seen.setdefault(record.id, row.line)
            if first != row.line:
                message = f"line {row.line}: its id was used on line {first} already; the first is kept"
                yield Record(record.key, problem=("DuplicateId", message))
                continue
        yield record
