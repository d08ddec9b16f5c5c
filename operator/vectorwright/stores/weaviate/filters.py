"""Filters over terms and keys (see :mod:`.terms`), with the meaning of :mod:`vectorwright.stores.filters`, or refused.

A clause is a small tree of tuples; :mod:`.messages` writes it as Weaviate's protobuf.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from vectorwright.errors import Terminal

from ..base import RESERVED_FIELDS
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar
from .collection import TERMS, Collection, range_property
from .terms import AFTER_NUMBERS, BEFORE_STRINGS, EVERY_RECORD, equality, order_key, presence

Clause: TypeAlias = "tuple[str, tuple[Clause, ...]] | tuple[str, str, tuple[str, ...]]"
"""``(operator, parts)`` for and, or, not; ``(operator, property, values)`` for any, gt, gte, lt, lte."""
Translated: TypeAlias = "Clause | bool"
"""A clause, or the constant that a filter comes to."""

EVERYTHING: Clause = ("any", TERMS, (EVERY_RECORD,))
MAX_VALUES = 50_000
"""Values in one clause: each is looked up on its own. 10,000 took 0.07 s on 2 cores."""
ID = "_id"


def refused(what: str) -> Terminal:
    """The error for a filter that Weaviate cannot express."""
    return Terminal(f"Weaviate cannot filter by {what}", reason="UnsupportedFilter")


def translate(where: Filter, collection: Collection) -> Translated:
    """``where`` as a clause. Raises Terminal (``UnsupportedFilter``)."""
    match where:
        case Eq(name, value):
            return _one_of(name, (value,), collection)
        case Ne(name, value):
            return _not(_one_of(name, (value,), collection))
        case In(name, values):
            return _one_of(name, values, collection)
        case Range(name):
            return _range(name, where, collection)
        case Exists(name):
            return _terms(name, [presence(_valid(name))], collection)
        case And(parts) | Or(parts):
            operator = "and" if isinstance(where, And) else "or"
            return joined(operator, [translate(part, collection) for part in parts])
        case Not(part):
            return _not(translate(part, collection))


def joined(operator: str, clauses: Iterable[Translated]) -> Translated:
    """All (``and``) or any (``or``) of the clauses."""
    neutral = operator == "and"
    parts: list[Clause] = []
    for clause in clauses:
        if isinstance(clause, bool):
            if clause is not neutral:
                return clause
        elif clause not in parts:
            parts.append(clause)
    if not parts:
        return neutral
    return parts[0] if len(parts) == 1 else (operator, tuple(parts))


def _not(clause: Translated) -> Translated:
    if isinstance(clause, bool):
        return not clause
    if clause[0] == "not":
        return clause[1][0]  # type: ignore[return-value]
    return ("not", (clause,))


def _valid(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise refused("a name that is not valid Unicode") from None
    return name


def _one_of(name: str, values: Iterable[Scalar], collection: Collection) -> Translated:
    terms: dict[str, None] = {}
    _valid(name)
    for value in values:
        try:
            terms[equality(name, value)] = None
        except ValueError:
            continue  # no record can hold it
    if len(terms) > MAX_VALUES:
        raise refused(f"{len(terms)} values at once: it takes {MAX_VALUES}")
    return _terms(name, list(terms), collection)


def _terms(name: str, terms: list[str], collection: Collection) -> Translated:
    if not collection.own and name not in RESERVED_FIELDS:
        raise refused(
            f"the field {name[:63]!r} of an index that Vectorwright did not make: its records carry no terms of it"
        )
    if not terms or not collection.has(TERMS):
        return False
    return ("any", TERMS, tuple(terms))


def _range(name: str, where: Range, collection: Collection) -> Translated:
    bounds = {sign: bound for sign in ("gt", "gte", "lt", "lte") if (bound := getattr(where, sign)) is not None}
    if not bounds:
        raise refused(f"a range without bounds (field {name[:63]!r})")
    if name not in collection.ranged:
        raise refused(
            f"a range of the field {name[:63]!r}: only of fields that were declared when the index was made, and of "
            "vw_n and vw_count"
        )
    kinds = {isinstance(bound, str) for bound in bounds.values()}
    if len(kinds) == 2:
        return False  # nothing is a number and a string at once
    of = range_property(name)
    clauses: list[Clause] = [(sign, of, (_key(name, bound),)) for sign, bound in bounds.items()]
    if kinds == {False} and not bounds.keys() & {"lt", "lte"}:
        clauses.append(("lt", of, (AFTER_NUMBERS,)))
    if kinds == {True} and not bounds.keys() & {"gt", "gte"}:
        clauses.append(("gte", of, (BEFORE_STRINGS,)))
    return joined("and", clauses)


def _key(name: str, bound: float | str) -> str:
    try:
        key = order_key(+bound if isinstance(bound, bool) else bound) or ""
        key.encode()
    except (ValueError, OverflowError):  # a UnicodeEncodeError is a ValueError
        raise refused(f"a range up to what no record holds (field {name[:63]!r})") from None
    return key
