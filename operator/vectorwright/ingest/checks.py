"""Checks before anything is sent: what a store would refuse, or worse, silently drop, never leaves the worker."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from vectorwright.stores.base import Capabilities, Metadata, MetadataValue, Vectors

RESERVED_PREFIX = "vw_"

_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Defect:
    """Why a record cannot be written."""

    reason: str
    message: str


class MetadataRules:
    """Turns what documents say of themselves into what the store can hold."""

    def __init__(self, capabilities: Capabilities, fields: Mapping[str, str]) -> None:
        self._lists = capabilities.list_metadata
        self._fields = dict(fields)
        self.notes: dict[str, str] = {}
        """Fields that were changed or dropped, and why: the first case of each."""

    def clean(self, metadata: Mapping[str, object]) -> Metadata:
        """Metadata in the store's types. Reserved names and what cannot be held are left out, with a note."""
        cleaned: Metadata = {}
        for name, value in metadata.items():
            if value is None:
                continue
            if not name or name.startswith(RESERVED_PREFIX):
                self._note(name, f"names that start with {RESERVED_PREFIX} are reserved; it is left out")
                continue
            held = self._held(name, value)
            declared = self._fields.get(name)
            if held is not None and declared is not None:
                coerced = coerce(held, declared)
                if coerced is None:
                    self._note(name, f"it is declared as {declared}, and some values are not; those are left out")
                held = coerced
            if held is not None:
                cleaned[name] = held
        return cleaned

    def _note(self, name: str, text: str) -> None:
        if len(self.notes) < 100:
            self.notes.setdefault(name[:128], text)

    def _held(self, name: str, value: object) -> MetadataValue | None:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, str):
            # Lone surrogates, from names of files that are no UTF-8, have no form on the wire.
            return value if value.isascii() else value.encode("utf-8", "replace").decode()
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return self._held_number(name, value)
        return self._held_structure(name, value)

    def _held_number(self, name: str, value: float) -> MetadataValue | None:
        if isinstance(value, int):
            if -_INT64 <= value < _INT64:
                return value
            self._note(name, "some values do not fit 64 bits; those are kept as text")
            return str(value)
        if not math.isfinite(value):
            self._note(name, "some values are not finite; those are left out")
            return None
        return value

    def _held_structure(self, name: str, value: object) -> MetadataValue | None:
        if isinstance(value, date):
            return value.isoformat()
        if self._lists and value and isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            return list(value)
        if isinstance(value, list | tuple | dict):
            self._note(name, "some values are nested; those are kept as JSON text")
            return _as_json(value)
        self._note(name, f"some values are of type {type(value).__name__}; those are left out")
        return None


def _as_json(value: Any) -> str | None:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return None


def coerce(value: MetadataValue, declared: str) -> MetadataValue | None:
    """The value as the declared type (keyword, integer, float, bool, datetime), or None where it is none."""
    try:
        return _COERCIONS[declared](value) if declared in _COERCIONS else value
    except (TypeError, ValueError):
        return None


def _as_keyword(value: MetadataValue) -> MetadataValue:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str | list) else str(value)


def _as_integer(value: MetadataValue) -> int | None:
    if isinstance(value, bool | list) or (isinstance(value, float) and not value.is_integer()):
        return None
    number = int(value)
    return number if -_INT64 <= number < _INT64 else None


def _as_float(value: MetadataValue) -> float | None:
    number = math.nan if isinstance(value, bool | list) else float(value)
    return number if math.isfinite(number) else None


def _as_bool(value: MetadataValue) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _as_datetime(value: MetadataValue) -> str | None:
    return value if isinstance(value, str) and datetime.fromisoformat(value) else None


_COERCIONS: Mapping[str, Callable[[MetadataValue], MetadataValue | None]] = {
    "keyword": _as_keyword,
    "integer": _as_integer,
    "float": _as_float,
    "bool": _as_bool,
    "datetime": _as_datetime,
}


def json_size(metadata: Metadata) -> int:
    """Bytes of metadata as JSON."""
    return len(orjson.dumps(metadata))


def check_sizes(metadata_bytes: int, text_bytes: int, capabilities: Capabilities) -> Defect | None:
    """What is too large for the store, before anything is paid for."""
    if metadata_bytes > capabilities.max_metadata_bytes:
        return Defect(
            "MetadataTooLarge",
            f"its metadata takes {metadata_bytes:,} bytes; the store takes {capabilities.max_metadata_bytes:,}",
        )
    if text_bytes > capabilities.max_text_bytes:
        return Defect(
            "TextTooLarge",
            f"its text takes {text_bytes:,} bytes; the store takes {capabilities.max_text_bytes:,}: "
            "choose smaller chunks",
        )
    return None


def as_vector(values: Sequence[float] | npt.NDArray[Any], dimension: int) -> Vectors | Defect:
    """A vector that came with a record: shape (dimension,), float32, or what is wrong with it."""
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return Defect("InvalidVector", "its vector is not a list of numbers")
    if vector.ndim != 1:
        return Defect("InvalidVector", "its vector is not a flat list of numbers")
    if len(vector) != dimension:
        return Defect("WrongDimension", f"its vector has {len(vector)} dimensions; the index has {dimension}")
    return vector


def check_vectors(vectors: Vectors, metric: str) -> Iterable[tuple[int, Defect]]:
    """Rows that must not be written, of vectors of shape (n, d)."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    finite = np.isfinite(squares)
    if finite.all() and (metric != "cosine" or squares.all()):
        return
    for row in range(len(vectors)):
        if not np.isfinite(vectors[row]).all():
            yield row, Defect("NotFinite", "its vector holds NaN or infinity")
        elif not finite[row]:
            yield row, Defect("NotFinite", "the length of its vector is beyond float32")
        elif metric == "cosine" and squares[row] == 0:
            yield (
                row,
                Defect("ZeroVector", "its vector has length 0, which has no direction: cosine is undefined for it"),
            )
