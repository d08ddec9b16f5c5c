"""Filters as Pinecone's metadata filters, with the meaning of :mod:`vectorwright.stores.filters`, or refused.

What the service documents, and what shapes the translation:

- It has ``$eq $ne $in $nin $gt $gte $lt $lte $exists $and $or`` and no negation: ``Not`` is pushed inward.
- ``$ne`` and ``$nin`` match records that have the field only, so a negated equality also asks for its absence.
- A list of strings equals each of its strings. ``$in`` and ``$nin`` take strings and numbers, ``$eq`` booleans too.
- Numbers are doubles. Integers beyond 2^53 are kept beside (see :mod:`.metadata`), and in the filterable field rounded
  away from zero: a comparison with a number up to 2^53 is exact, one with a number from there to 2^63 is refused.
- Ranges are of numbers. Nothing says "no number, or outside", so a negated range is refused, as is one of strings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from vectorwright.errors import Terminal

from ..clauses import Translated, all_of, any_of
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar
from .metadata import EMPTY, EXACT, OWN_NAMES

MAX_VALUES = 10_000
"""Values of one ``$in`` or ``$nin``."""


def refused(what: str) -> Terminal:
    """The error for a filter that Pinecone cannot express."""
    return Terminal(f"Pinecone cannot filter by {what}", reason="UnsupportedFilter")


def translate(where: Filter) -> Translated:
    """``where`` as Pinecone says it. Raises Terminal (``UnsupportedFilter``)."""
    return _translate(where, negated=False)


def _translate(where: Filter, *, negated: bool) -> Translated:
    match where:
        case Eq(name, value):
            return _one_of(_field(name), [value], negated=negated)
        case Ne(name, value):
            return _one_of(_field(name), [value], negated=not negated)
        case In(name, values):
            return _one_of(_field(name), values, negated=negated)
        case Range(name):
            return _range(_field(name), where, negated=negated)
        case Exists(name):
            return _exists(_field(name), negated=negated)
        case And(parts) | Or(parts):
            clauses = [_translate(part, negated=negated) for part in parts]
            return all_of(clauses) if isinstance(where, And) is not negated else any_of(clauses)
        case Not(part):
            return _translate(part, negated=not negated)


def _field(name: str) -> str:
    if not name or name.startswith("$") or name in OWN_NAMES:
        raise refused(f"the name {name[:63]!r}: it is reserved")
    return name


def _exists(name: str, *, negated: bool) -> Translated:
    """An empty list is kept by its name alone: the service holds none."""
    clauses: list[Translated] = [{name: {"$exists": not negated}}]
    if negated:
        return all_of([*clauses, any_of([{EMPTY: {"$exists": False}}, {EMPTY: {"$nin": [name]}}])])
    return any_of([*clauses, {EMPTY: {"$in": [name]}}])


def _one_of(name: str, values: Iterable[Scalar], *, negated: bool) -> Translated:
    """One clause a type: a list of literals has one type."""
    texts, flags, numbers = _by_type(values)
    clauses: list[Translated] = [{name: {"$ne" if negated else "$eq": flag}} for flag in flags]
    for literals in (texts, numbers):
        for at in range(0, len(literals), MAX_VALUES):
            some = literals[at : at + MAX_VALUES]
            if len(some) == 1:
                clauses.append({name: {"$ne" if negated else "$eq": some[0]}})
            else:
                clauses.append({name: {"$nin" if negated else "$in": some}})
    if not negated:
        return any_of(clauses)
    return any_of([{name: {"$exists": False}}, all_of(clauses)]) if clauses else True


def _by_type(values: Iterable[Scalar]) -> tuple[list[str], list[bool], list[float]]:
    """Distinct values: strings, booleans, numbers."""
    texts: dict[str, None] = {}
    flags: dict[bool, None] = {}
    numbers: dict[float, None] = {}
    for value in values:
        if isinstance(value, str):
            texts[value] = None
        elif isinstance(value, bool):
            flags[value] = None
        else:
            numbers[_number(value)] = None
    return list(texts), list(flags), list(numbers)


def _number(value: float) -> float:
    """The number, where a double says it and its comparison is exact. Raises Terminal."""
    beyond = isinstance(value, float) and math.isfinite(value) and abs(value) > 2**63
    if not abs(value) <= EXACT and not beyond:
        raise refused(f"the number {value}: it compares numbers up to 2^53 exactly")
    return value


def _range(name: str, where: Range, *, negated: bool) -> Translated:
    bounds = [(sign, bound) for sign in ("gt", "gte", "lt", "lte") if (bound := getattr(where, sign)) is not None]
    kinds = {isinstance(bound, str) for _, bound in bounds}
    if len(kinds) == 2:
        return negated  # nothing is a number and a string at once
    if kinds == {True}:
        raise refused(f"a range of strings (field {name!r}): it compares numbers only")
    if not bounds:
        raise refused(f"a range without bounds (field {name!r})")
    if negated:
        raise refused(f"the negation of a range (field {name!r})")
    return all_of({name: {f"${sign}": _number(bound)}} for sign, bound in bounds)
