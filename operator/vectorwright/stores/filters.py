"""One filter language for every store.

A filter is a small tree. Each store translates it into its own form, and refuses (Terminal, reason
``UnsupportedFilter``) what it cannot express: a filter is never ignored. :func:`matches` is the meaning of a filter, in
plain Python; stores agree with it.

A record without the field matches no comparison, and so ``Not(Eq(f, v))`` matches it: ``Not`` is plain negation, and
``Ne(f, v)`` is ``Not(Eq(f, v))``. A list of strings equals a value when it holds it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Eq:
    """The field equals the value. Booleans equal booleans only; 1 and 1.0 are equal."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class Ne:
    """The negation of :class:`Eq`: also true where the field is absent."""

    field: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The field equals one of the values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between bounds: numbers among numbers, RFC 3339 strings among strings. At least one is given."""

    field: str
    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The record has the field."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """All parts match. No parts: everything matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One part matches. No parts: nothing matches."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Filter


Filter = Eq | Ne | In | Range | Exists | And | Or | Not


def _equal(stored: object, value: Scalar) -> bool:
    if isinstance(stored, list):
        return any(_equal(item, value) for item in stored)
    if isinstance(stored, bool) or isinstance(value, bool):
        return isinstance(stored, bool) and isinstance(value, bool) and stored == value
    if isinstance(stored, str) or isinstance(value, str):
        return isinstance(stored, str) and stored == value
    return stored is not None and stored == value


def _in_range(stored: object, where: Range) -> bool:
    if isinstance(stored, bool) or not isinstance(stored, str | int | float):
        return False
    comparisons: tuple[tuple[float | str | None, Callable[[Any, Any], bool]], ...] = (
        (where.gt, operator.gt),
        (where.gte, operator.ge),
        (where.lt, operator.lt),
        (where.lte, operator.le),
    )
    return all(
        isinstance(bound, str) is isinstance(stored, str) and holds(stored, bound)
        for bound, holds in comparisons
        if bound is not None
    )


def matches(where: Filter, metadata: Mapping[str, object]) -> bool:
    """Whether a record with this metadata matches: the reference that every store agrees with."""
    match where:
        case Eq(name, value):
            return _equal(metadata.get(name), value)
        case Ne(name, value):
            return not _equal(metadata.get(name), value)
        case In(name, values):
            return any(_equal(metadata.get(name), value) for value in values)
        case Range(name):
            return _in_range(metadata.get(name), where)
        case Exists(name):
            return metadata.get(name) is not None
        case And(parts):
            return all(matches(part, metadata) for part in parts)
        case Or(parts):
            return any(matches(part, metadata) for part in parts)
        case Not(part):
            return not matches(part, metadata)
