"""Filters as SQL over the typed columns of a Lance table.

A table has one typed column for each declared and each reserved metadata field. A record's value is in its column where
it has the column's type; a record with a value that has not (a number in a keyword field, a list) is *mixed*, its
columns say nothing of such a field, and it is judged by :func:`vectorwright.stores.filters.matches` from its metadata.
So is every record where a filter asks for a field that is not declared. What is written here is exact for all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..base import RESERVED_FIELDS
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar

MAX_DEPTH = 8
MAX_NODES = 256
"""Larger filters are not written as SQL: its parser and planner recurse."""
TRUE, FALSE = "true", "false"
_INT64 = (-(2**63), 2**63 - 1)
_STRINGS = ("keyword", "datetime")


class _Inexpressible(Exception):  # noqa: N818 - a signal inside this module, not an error
    """There is no SQL that means exactly this."""


def column_name(field: str) -> str:
    """The column of a declared field. Reserved fields keep their names, the others cannot collide with our columns."""
    return field if field in RESERVED_FIELDS else f"f_{field}"


def translate(where: Filter, types: Mapping[str, str]) -> tuple[str, bool]:
    """SQL that is true for every record that matches and is not mixed, and whether for no other of these.

    ``types`` tells the type of every declared field. The SQL is never NULL.
    """
    if _size(where, 0) <= MAX_NODES:
        try:
            return _sql(where, types), True
        except _Inexpressible:
            pass
    if isinstance(where, And):
        parts = [translate(part, types)[0] for part in where.parts[:MAX_NODES]]
        return _joined(" AND ", [part for part in parts if part != TRUE], TRUE), False
    return TRUE, False


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def id_list(ids: Sequence[str]) -> str:
    """The condition that a record is one of these."""
    return f"id IN ({', '.join(map(quoted, ids))})"


def _size(where: Filter, depth: int) -> int:
    if depth > MAX_DEPTH:
        return MAX_NODES + 1
    match where:
        case And(parts) | Or(parts):
            total = 1
            for part in parts:
                total += _size(part, depth + 1)
                if total > MAX_NODES:
                    break
            return total
        case Not(part):
            return 1 + _size(part, depth + 1)
    return 1


def _sql(where: Filter, types: Mapping[str, str]) -> str:
    match where:
        case And(parts):
            return _joined(" AND ", [_sql(part, types) for part in parts], TRUE)
        case Or(parts):
            return _joined(" OR ", [_sql(part, types) for part in parts], FALSE)
        case Not(part):
            return f"(NOT {_sql(part, types)})"
        case Ne(name, value):
            return f"(NOT {_in(name, (value,), types)})"
        case Eq(name, value):
            return _in(name, (value,), types)
        case In(name, values):
            return _in(name, values, types)
        case Exists(name):
            return f"(`{_declared(name, types)}` IS NOT NULL)"
        case Range(name):
            return _range(where, types)


def _declared(name: str, types: Mapping[str, str]) -> str:
    if name not in types:
        raise _Inexpressible
    return column_name(name)


def _joined(operator: str, parts: Sequence[str], empty: str) -> str:
    """Parts joined two by two: the planner recurses as deep as the tree, which is then only their logarithm."""
    if len(parts) <= 1:
        return parts[0] if parts else empty
    middle = len(parts) // 2
    return f"({_joined(operator, parts[:middle], empty)}{operator}{_joined(operator, parts[middle:], empty)})"


def _in(name: str, values: Sequence[Scalar], types: Mapping[str, str]) -> str:
    column = _declared(name, types)
    literals = [literal for value in values if (literal := _equal_literal(value, types[name])) is not None]
    if not literals:
        return FALSE
    test = f"= {literals[0]}" if len(literals) == 1 else f"IN ({', '.join(literals)})"
    return f"(`{column}` IS NOT NULL AND `{column}` {test})"


def _equal_literal(value: Scalar, kind: str) -> str | None:
    """The literal that a column of this type can equal; None where it can equal none."""
    if kind in _STRINGS:
        return quoted(value) if isinstance(value, str) else None
    if kind == "bool":
        return (TRUE if value else FALSE) if isinstance(value, bool) else None
    if isinstance(value, str | bool) or not math.isfinite(value):
        return None
    if kind == "integer":
        whole = int(value)
        return _integer(whole) if whole == value and _INT64[0] <= whole <= _INT64[1] else None
    return _float(value)


def _integer(value: int) -> str:
    if value == _INT64[0]:
        raise _Inexpressible  # parsed as the negative of a number that is too large
    return str(value)


def _float(value: float) -> str | None:
    """The literal of a finite number; None for a whole number that no float equals."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return repr(number + 0.0) if number == value else None  # + 0.0: minus zero is another value to the engine


def _range(where: Range, types: Mapping[str, str]) -> str:
    column, kind = _declared(where.field, types), types[where.field]
    bounds = [
        (sign, bound)
        for sign, bound in ((">", where.gt), (">=", where.gte), ("<", where.lt), ("<=", where.lte))
        if bound is not None
    ]
    if kind == "bool" or any(isinstance(bound, str) is not (kind in _STRINGS) for _, bound in bounds):
        return FALSE
    tests = []
    for sign, bound in bounds:
        if isinstance(bound, str):
            tests.append(f"`{column}` {sign} {quoted(bound)}")
        elif math.isnan(bound):
            return FALSE
        elif math.isinf(bound):
            if (bound > 0) is sign.startswith(">"):
                return FALSE
        elif kind == "integer":
            test = _integer_test(sign, bound)
            if test == FALSE:
                return FALSE
            tests.extend([f"`{column}` {test}"] if test != TRUE else [])
        else:
            literal = _float(bound)
            if literal is None:
                raise _Inexpressible
            tests.append(f"`{column}` {sign} {literal}")
    return "(" + " AND ".join([f"`{column}` IS NOT NULL", *tests]) + ")"


def _integer_test(sign: str, bound: float) -> str:
    """A comparison of whole numbers that means the same as one with a fraction."""
    upwards = sign in (">=", "<")
    whole = math.ceil(bound) if upwards else math.floor(bound)
    if whole < _INT64[0]:
        return TRUE if sign.startswith(">") else FALSE
    if whole > _INT64[1]:
        return FALSE if sign.startswith(">") else TRUE
    return f"{sign} {_integer(whole)}"
