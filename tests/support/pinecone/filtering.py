"""Metadata filters, as the service documents and checks them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from .refusals import Refusal

MAX_LIST = 10_000
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def check(where: Any) -> None:
    """Refuse what is no filter (400)."""
    if not isinstance(where, dict):
        raise Refusal(400, "filter must be an object")
    for name, operand in where.items():
        if name in {"$and", "$or"}:
            if not isinstance(operand, list) or not operand:
                raise Refusal(400, f"{name} must be a nonempty array")
            for part in operand:
                check(part)
        elif name.startswith("$"):
            raise Refusal(400, f"{name} is not a valid operator")
        elif isinstance(operand, dict):
            for sign, value in operand.items():
                _check_operand(name, sign, value)
        elif not isinstance(operand, str | int | float | bool):
            raise Refusal(400, f"the value of {name} must be a string, number or boolean")


def _check_operand(name: str, sign: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if sign in {"$eq", "$ne"}:
        fine = isinstance(value, str | int | float | bool)
    elif sign in _COMPARISONS:
        fine = number
    elif sign in {"$in", "$nin"}:
        kinds = {isinstance(item, str) for item in value} if isinstance(value, list) else set()
        fine = (
            isinstance(value, list)
            and 0 < len(value) <= MAX_LIST
            and len(kinds) == 1
            and not any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in value)
        )
    elif sign == "$exists":
        fine = isinstance(value, bool)
    else:
        raise Refusal(400, f"{sign} is not a valid operator")
    if not fine:
        raise Refusal(400, f"illegal value of {sign} for field {name}")


def matches(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """Whether metadata, as the service holds it, matches a filter that was checked."""
    return all(_matches_one(name, operand, metadata) for name, operand in where.items())


def _matches_one(name: str, operand: Any, metadata: dict[str, Any]) -> bool:
    if name == "$and":
        return all(matches(part, metadata) for part in operand)
    if name == "$or":
        return any(matches(part, metadata) for part in operand)
    stored = metadata.get(name)
    if not isinstance(operand, dict):
        return _equal(stored, operand)
    return all(_holds(sign, stored, value) for sign, value in operand.items())


def _holds(sign: str, stored: Any, value: Any) -> bool:
    match sign:
        case "$exists":
            return (stored is not None) is value
        case "$eq":
            return _equal(stored, value)
        case "$ne":  # of records that have the field, since 2024
            return stored is not None and not _equal(stored, value)
        case "$in":
            return any(_equal(stored, item) for item in value)
        case "$nin":
            return stored is not None and not any(_equal(stored, item) for item in value)
    return isinstance(stored, float) and _COMPARISONS[sign](stored, float(value))


def _equal(stored: Any, value: Any) -> bool:
    if isinstance(stored, list):
        return value in stored if isinstance(value, str) else False
    if isinstance(stored, bool) or isinstance(value, bool):
        return isinstance(stored, bool) and isinstance(value, bool) and stored is value
    if isinstance(stored, float) and isinstance(value, int | float):
        return stored == float(value)
    return isinstance(stored, str) and stored == value
