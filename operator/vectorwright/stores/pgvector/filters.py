"""Filters as SQL over the ``metadata`` column, with the meaning of :mod:`vectorwright.stores.filters`.

jsonb compares as the protocol wants: 1 equals 1.0, true does not equal 1, "1" does not equal 1. Every expression here
is the one that a field's index is made on (see :mod:`.sql`), so that the planner can use it; a field without
an index is filtered, too. Strings are ordered by code point (collation "C"), numbers as decimals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import LiteralString

import orjson
from psycopg import sql
from psycopg.types.json import Jsonb

from vectorwright.errors import Terminal

from ..base import RESERVED_FIELDS
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar

_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _refused(what: str) -> Terminal:
    return Terminal(f"PostgreSQL cannot filter by {what}", reason="UnsupportedFilter")


def value_of(field: str) -> sql.Composable:
    """A field's value as jsonb: the expression that indexes are made on."""
    return sql.SQL("(metadata -> {})").format(_name(field))


def text_of(field: str) -> sql.Composable:
    """A field's value as text, ordered by code point."""
    return sql.SQL('((metadata ->> {}) COLLATE "C")').format(_name(field))


def _name(field: str) -> sql.Composable:
    if "\0" in field or not storable(field):
        raise _refused("a name with characters that it does not hold")
    return sql.Literal(field)


def condition(where: Filter | None) -> sql.Composable:  # noqa: PLR0911 - one a kind of filter
    """``where`` as an expression that is true for what matches, and false or null for the rest.

    Raises Terminal (``UnsupportedFilter``) for numbers that are not finite, and for ranges without bounds.
    """
    match where:
        case None:
            return sql.SQL("true")
        case Eq(name, value):
            return _equals(name, (value,))
        case In(name, values):
            return _equals(name, values)
        case Ne(name, value):
            return _negated(_equals(name, (value,)))
        case Range(name):
            return _range(name, where)
        case Exists(name):
            return sql.SQL("coalesce(jsonb_typeof({}) <> 'null', false)").format(value_of(name))
        case And(parts):
            return _joined(parts, " AND ", "true")
        case Or(parts):
            return _joined(parts, " OR ", "false")
        case Not(part):
            return _negated(condition(part))


def _negated(expression: sql.Composable) -> sql.Composable:
    return sql.SQL("(NOT coalesce({}, false))").format(expression)


def _joined(parts: Iterable[Filter], operator: LiteralString, empty: LiteralString) -> sql.Composable:
    expressions = [condition(part) for part in parts]
    if not expressions:
        return sql.SQL(empty)
    return sql.SQL("({})").format(sql.SQL(operator).join(expressions))


def _equals(name: str, values: Iterable[Scalar]) -> sql.Composable:
    """Strings may also be held by a list: containment finds both, and is what a keyword's index answers."""
    texts: list[Scalar] = []
    others: list[Scalar] = []
    for value in values:
        if isinstance(value, str) and not storable(value):
            continue  # no record can hold it
        (texts if isinstance(value, str) and name not in RESERVED_FIELDS else others).append(_finite(value))
    parts = [
        sql.SQL("{} {} {}").format(
            value_of(name), sql.SQL(operator), _jsonb(literals[0]) if len(literals) == 1 else _any(literals)
        )
        for operator, literals in (("@>", texts), ("=", others))
        if literals
    ]
    if not parts:
        return sql.SQL("false")
    return sql.SQL("({})").format(sql.SQL(" OR ").join(parts))


def _jsonb(value: Scalar) -> sql.Composable:
    return sql.Literal(Jsonb(value, dumps=orjson.dumps))


def _any(values: Iterable[Scalar]) -> sql.Composable:
    return sql.SQL("ANY ({})").format(sql.Literal([Jsonb(value, dumps=orjson.dumps) for value in values]))


def _finite(value: Scalar) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(f"the number {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise _refused("a number of more than 64 bits")
    return value


def storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _range(name: str, where: Range) -> sql.Composable:
    bounds = {sign: bound for sign in _COMPARISONS if (bound := getattr(where, sign)) is not None}
    kinds = {isinstance(bound, str) for bound in bounds.values()}
    if not bounds:
        raise _refused(f"a range without bounds (field {name!r})")
    if len(kinds) == 2:
        return sql.SQL("false")  # nothing is a number and a string at once
    if kinds == {True}:
        for bound in bounds.values():
            if not storable(bound):
                raise _refused(f"a range up to characters that it does not hold (field {name!r})")
        kind, value = "string", text_of(name)
        literals: dict[str, sql.Composable] = {sign: sql.Literal(bound) for sign, bound in bounds.items()}
    else:
        kind, value = "number", value_of(name)
        literals = {sign: _jsonb(_finite(+bound)) for sign, bound in bounds.items()}  # +True is 1
    comparisons = [
        sql.SQL("{} {} {}").format(value, sql.SQL(_COMPARISONS[sign]), literal) for sign, literal in literals.items()
    ]
    return sql.SQL("(jsonb_typeof({}) = {} AND {})").format(
        value_of(name), sql.Literal(kind), sql.SQL(" AND ").join(comparisons)
    )
