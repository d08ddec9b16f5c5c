"""Filters as Chroma's ``where``, with the meaning of :mod:`vectorwright.stores.filters`, or refused.

What a server does was tried on chromadb 1.5.9, and shapes the translation:

- ``$ne`` and ``$nin`` match records without the field, as :class:`~.filters.Ne` does.
- ``$eq`` never looks into a list, ``$contains`` looks into nothing else: equality of strings asks both.
- Integers and floats are kept apart. An integer literal compares rightly with both; a literal with a fraction is cut
  to an integer before it is compared with integers, so that 1 equals 1.5. Literals are therefore chosen per operator.
- There is no negated comparison, none of strings, and nothing that asks whether a field exists: ``Not(Range)``,
  ranges of strings and ``Exists`` are refused (Terminal, ``UnsupportedFilter``).

Beyond 2^53 an integer and a float that rounds to it are equal to the server; integers among themselves stay exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from vectorwright.errors import Terminal

from ..base import RESERVED_FIELDS
from ..clauses import Clause, Translated, all_of, any_of
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar

EVERYTHING: Clause = {"$or": [{"vw_n": {"$eq": 0}}, {"vw_n": {"$ne": 0}}]}
"""A clause that is true of every record: a delete needs one."""

MAX_COMPARISONS = 500
"""The server turns a clause into one SQL expression; SQLite refuses it from a depth of 1,000."""
MAX_VALUES = 20_000
"""Values in all of a clause; SQLite refuses more than 32,766 variables in a statement."""
_INT64 = 2**63


def refused(what: str) -> Terminal:
    """The error for a filter that Chroma cannot express."""
    return Terminal(f"Chroma cannot filter by {what}", reason="UnsupportedFilter")


def translate(where: Filter) -> Translated:
    """``where`` as Chroma says it. Raises Terminal (``UnsupportedFilter``), also where it is too large."""
    clause = _translate(where, negated=False)
    if not isinstance(clause, bool):
        comparisons, values = _size(clause)
        if comparisons > MAX_COMPARISONS or values > MAX_VALUES:
            raise refused(
                f"{comparisons} comparisons of {values} values at once: it takes {MAX_COMPARISONS} and {MAX_VALUES}"
            )
    return clause


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
            raise refused(f"whether the field {name[:63]!r} exists")
        case And(parts) | Or(parts):
            clauses = [_translate(part, negated=negated) for part in parts]
            return all_of(clauses) if isinstance(where, And) is not negated else any_of(clauses)
        case Not(part):
            return _translate(part, negated=not negated)


def _field(name: str) -> str:
    if not name or name[0] in "#$" or name.startswith("chroma:"):
        raise refused(f"the name {name[:63]!r}: it is Chroma's own")
    return name


def _one_of(name: str, values: Iterable[Scalar], *, negated: bool) -> Translated:
    """One clause a type: a list of literals has one type."""
    texts, flags, wholes, fractions = _by_type(values)
    clauses: list[Clause] = []
    for literals in (texts, flags, wholes):
        if len(literals) == 1:
            clauses.append({name: {"$ne" if negated else "$eq": literals[0]}})
        elif literals:
            clauses.append({name: {"$nin" if negated else "$in": literals}})
    if name not in RESERVED_FIELDS:  # their values are never lists
        clauses += [{name: {"$not_contains" if negated else "$contains": text}} for text in texts]
    for fraction in fractions:
        # The literal also equals the integer that it is cut to; that one is put right by a second comparison.
        whole = math.trunc(fraction)
        if negated:
            clauses.append({"$or": [{name: {"$ne": fraction}}, {name: {"$eq": whole}}]})
        else:
            clauses.append({"$and": [{name: {"$eq": fraction}}, {name: {"$ne": whole}}]})
    return all_of(clauses) if negated else any_of(clauses)


def _by_type(values: Iterable[Scalar]) -> tuple[list[str], list[bool], list[int], list[float]]:
    """Distinct values: strings, booleans, numbers without a fraction (as integers) and with one."""
    texts: dict[str, None] = {}
    flags: dict[bool, None] = {}
    wholes: dict[int, None] = {}
    fractions: dict[float, None] = {}
    for value in values:
        if isinstance(value, str):
            texts[value] = None
        elif isinstance(value, bool):
            flags[value] = None
        elif isinstance(number := _number(value), int):
            wholes[number] = None
        else:
            fractions[number] = None
    return list(texts), list(flags), list(wholes), list(fractions)


def _number(value: float) -> int | float:
    """An integer where there is no fraction. Raises Terminal where the server's 64 bits do not hold the number."""
    if not math.isfinite(value) or not -_INT64 <= value < _INT64:
        raise refused(f"the number {value}: it takes finite ones within 64 bits")
    return int(value) if isinstance(value, int) or value.is_integer() else value


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
    return all_of({name: {operator: literal}} for operator, literal in (_bound(*one) for one in bounds))


def _bound(sign: str, bound: float) -> tuple[str, int | float]:
    """Operator and literal that are right for integers and floats alike.

    A literal with a fraction is cut towards zero before integers are compared with it: so above zero it stands for the
    integer below, and "greater than" or "at most" are right; below zero it stands for the one above, and "at least" or
    "less than" are. The other two are said by those with the next float in place of the bound.
    """
    number = _number(bound)
    if isinstance(number, int):
        return f"${sign}", number
    upward, inclusive = sign.startswith("gt"), sign.endswith("e")
    wants_inclusive = upward is (number < 0)
    if inclusive is wants_inclusive:
        return f"${sign}", number
    # x >= b is x > (the float before b), x < b is x <= (the float before b), and the other way round below zero.
    neighbour = math.nextafter(number, math.inf if number < 0 else -math.inf)
    return f"${sign[:2]}e" if wants_inclusive else f"${sign[:2]}", neighbour


def _size(clause: Clause) -> tuple[int, int]:
    """(comparisons, values) of a clause."""
    comparisons = values = 0
    for operand in _comparisons(clause):
        comparisons += 1
        values += len(operand) if isinstance(operand, list) else 1
    return comparisons, values


def _comparisons(clause: Clause) -> Iterator[Any]:
    for name, operand in clause.items():
        if name in {"$and", "$or"}:
            for part in operand:
                yield from _comparisons(part)
        else:
            yield from operand.values()
