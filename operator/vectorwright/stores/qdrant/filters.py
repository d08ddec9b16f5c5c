"""Filters as Qdrant's, with the meaning of :mod:`vectorwright.stores.filters`, or refused.

What the server does, and what follows from it:

- Each condition on a list is true where one item fulfils it, and ``must_not`` is plain negation, absence included.
- A match of an integer leaves out 1.0; a range compares all numbers as floats, so equality of numbers is a range of one
  value. Beyond 2^53 that takes in neighbouring integers, which are taken out again by name.
- In a field that is declared as integer all numbers are integers (:mod:`.payload`): a match finds them, by the index.
- It may read a float as its neighbour (:mod:`.floats`): those near a bound are found by their text in ``vw_exact``.
- Strings have no order, instants do: of them only declared datetime fields have ranges, from 2024-05-01T00:00:00Z on.
- ``is_empty`` takes an empty list for absence: the text in ``vw_exact`` tells them apart.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError

from vectorwright.errors import Terminal

from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar
from .floats import as_stored, confused, integers_that_round_to
from .messages import grpc
from .names import EXACT, key_of, path_of
from .payload import EMPTY_LIST, exact_entry

Translated = grpc.Filter | bool
"""A filter, or the constant that it comes to."""
_Condition = grpc.Condition | bool

MAX_CONDITIONS = 20_000
"""Conditions of a filter: each is asked of every point."""
MAX_DEPTH = 40
"""Filters within filters: the server reads no message deeper than 100, and a filter in a condition is two."""
FILTER_LIMITS = (
    "It has no ranges of strings, but for bounds such as 2024-05-01T00:00:00Z on declared datetime fields.",
    "Bounds of ranges are smaller than 2^53.",
    "A filter has at most 20,000 conditions, and 40 levels.",
)

_EXACT_INTEGER = 2**53
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_SIGNS = ("gt", "gte", "lt", "lte")


def refused(what: str) -> Terminal:
    """The error for a filter that Qdrant cannot express."""
    return Terminal(f"Qdrant cannot filter by {what}", reason="UnsupportedFilter")


def translate(where: Filter, fields: Mapping[str, str]) -> Translated:
    """``where`` as Qdrant says it. ``fields`` are the types that metadata fields are indexed as.

    Raises Terminal (``UnsupportedFilter``), also where it is too large.
    """
    too_deep = refused(f"more than {MAX_DEPTH} levels at once")
    try:
        found = _Translation(fields).of(where)
    except (DecodeError, RecursionError):  # no message is made that is too deep to be read
        raise too_deep from None
    if isinstance(found, bool):
        return found
    whole = found.filter if found.HasField("filter") else grpc.Filter(must=[found])
    if _depth(whole) > MAX_DEPTH:
        raise too_deep
    return whole


class _Translation:
    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._conditions = 0

    def of(self, where: Filter) -> _Condition:  # noqa: PLR0911 - one kind after the other
        match where:
            case Eq(name, value):
                return self._one_of(name, (value,))
            case Ne(name, value):
                return _not(self._one_of(name, (value,)))
            case In(name, values):
                return self._one_of(name, values)
            case Range(name):
                return self._range(name, where)
            case Exists(name):
                if not _possible(name):
                    return False
                empty = grpc.Condition(is_empty=grpc.IsEmptyCondition(key=path_of(key_of(name))))
                return _any([_not(empty), self._written_as(name, [EMPTY_LIST])])
            case And(parts):
                # Each is translated, also where one of them decides: what cannot be said is refused wherever it stands.
                return _all([self.of(part) for part in parts])
            case Or(parts):
                return _any([self.of(part) for part in parts])
            case Not(part):
                return _not(self.of(part))

    def _field(self, name: str, **condition: grpc.Match | grpc.Range | grpc.DatetimeRange) -> grpc.Condition:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise refused(f"more than {MAX_CONDITIONS} conditions at once")
        return grpc.Condition(field=grpc.FieldCondition(key=path_of(key_of(name)), **condition))

    def _written_as(self, name: str, values: Iterable[str]) -> _Condition:
        entries = [exact_entry(name, value) for value in values]
        if not entries:
            return False
        match = grpc.Match(keywords=grpc.RepeatedStrings(strings=entries))
        return grpc.Condition(field=grpc.FieldCondition(key=EXACT, match=match))

    def _one_of(self, name: str, values: Iterable[Scalar]) -> _Condition:
        if not _possible(name):
            return False
        texts: dict[str, None] = {}
        flags: dict[bool, None] = {}
        numbers: dict[float, None] = {}
        for value in values:
            if isinstance(value, str):
                texts[value] = None
            elif isinstance(value, bool):
                flags[value] = None
            elif math.isfinite(value):
                numbers[value] = None
        found: list[_Condition] = []
        if texts:
            # As a list also where it is one: an index of numbers takes a single UUID for a number.
            found.append(self._field(name, match=grpc.Match(keywords=grpc.RepeatedStrings(strings=_encodable(texts)))))
        found += [self._field(name, match=grpc.Match(boolean=flag)) for flag in flags]
        if numbers:
            found.append(self._numbers(name, [*numbers]))
        return _any(found)

    def _numbers(self, name: str, numbers: Sequence[float]) -> _Condition:
        wholes = [int(number) for number in numbers if _is_whole(number)]
        integers = [number for number in wholes if _fits(number)]
        if self._fields.get(name) == "integer":
            return self._integers(name, integers)
        found: list[_Condition] = [self._integers(name, [number for number in integers if _is_large(number)])]
        for number in numbers:
            if not _is_whole(number) or not _is_large(int(number)):
                found.append(self._between(name, gte=float(number), lte=float(number)))
            elif _is_float(int(number)):
                others = [other for other in integers_that_round_to(float(number)) if other != int(number)]
                near = self._between(name, gte=float(number), lte=float(number))
                found.append(_all([near, _not(self._integers(name, others))]))
        return _any(found)

    def _integers(self, name: str, numbers: Sequence[int]) -> _Condition:
        if not numbers:
            return False
        return self._field(name, match=grpc.Match(integers=grpc.RepeatedIntegers(integers=numbers)))

    def _between(self, name: str, **bounds: float) -> _Condition:
        """Numbers within bounds, all of which are floats. What the server confuses is told by its text."""

        def fits(value: float) -> bool:
            return all(_holds(value, sign, bound) for sign, bound in bounds.items())

        near = sorted({value for bound in bounds.values() for value in confused(bound)})
        lost = [repr(value) for value in near if fits(value) and not fits(as_stored(value))]
        wrong = [repr(value) for value in near if not fits(value) and fits(as_stored(value))]
        within = self._field(name, range=grpc.Range(**bounds))
        return _any([_all([within, _not(self._written_as(name, wrong))]), self._written_as(name, lost)])

    def _range(self, name: str, where: Range) -> _Condition:
        bounds = {sign: bound for sign in _SIGNS if (bound := getattr(where, sign)) is not None}
        kinds = {isinstance(bound, str) for bound in bounds.values()}
        if len(kinds) == 2 or not _possible(name):
            return False  # nothing is a number and a string at once
        if not bounds:
            raise refused(f"a range without bounds (field {name[:63]!r})")
        bounds = _strictest(bounds)
        if kinds == {True}:
            return self._instants(name, bounds)
        for bound in bounds.values():
            if not abs(bound) < _EXACT_INTEGER:
                raise refused(f"a range up to {bound} (field {name[:63]!r}): its bounds are smaller than 2^53")
        if self._fields.get(name) != "integer":
            return self._between(name, **{sign: float(bound) for sign, bound in bounds.items()})
        whole: dict[str, float] = {}
        for sign, bound in bounds.items():
            # An index of integers may cut the fraction of a bound off: the integer that means the same has none.
            if sign.startswith("gt"):
                whole["gte"] = float(math.ceil(bound) if sign == "gte" else math.floor(bound) + 1)
            else:
                whole["lte"] = float(math.floor(bound) if sign == "lte" else math.ceil(bound) - 1)
        return self._field(name, range=grpc.Range(**whole))

    def _instants(self, name: str, bounds: Mapping[str, str]) -> _Condition:
        if self._fields.get(name) != "datetime":
            raise refused(f"a range of strings (field {name[:63]!r}): it orders numbers, and declared datetime fields")
        found = grpc.DatetimeRange()
        for sign, bound in bounds.items():
            getattr(found, sign).FromDatetime(_instant(bound, name))
        return self._field(name, datetime_range=found)


def _strictest(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """One lower bound and one upper bound at most: of two an index looks at one only."""
    found = dict(bounds)
    if "gt" in found and "gte" in found:
        del found["gte" if found["gt"] >= found["gte"] else "gt"]
    if "lt" in found and "lte" in found:
        del found["lte" if found["lt"] <= found["lte"] else "lt"]
    return found


def _instant(bound: str, name: str) -> datetime:
    if _INSTANT.fullmatch(bound):
        try:
            return datetime.fromisoformat(bound).astimezone(UTC).replace(tzinfo=None)
        except ValueError:
            pass
    raise refused(
        f"the bound {bound[:63]!r} (field {name[:63]!r}): datetime fields take bounds as 2024-05-01T00:00:00Z"
    )


def _possible(name: str) -> bool:
    """Whether a field can have the name."""
    return bool(name) and bool(_encodable([name]))


def _encodable(texts: Iterable[str]) -> list[str]:
    """Without what is no Unicode: no record holds that either."""
    return [text for text in texts if text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)]


def _holds(value: float, sign: str, bound: float) -> bool:
    match sign:
        case "gt":
            return value > bound
        case "gte":
            return value >= bound
        case "lt":
            return value < bound
    return value <= bound


def _is_whole(number: float) -> bool:
    return isinstance(number, int) or number.is_integer()


def _is_large(number: int) -> bool:
    return abs(number) >= _EXACT_INTEGER


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


def _is_float(number: int) -> bool:
    """Whether a float equals it."""
    return abs(number) < 2**1023 and int(float(number)) == number


def _all(conditions: Iterable[_Condition]) -> _Condition:
    return _joined(conditions, "must", neutral=True)


def _any(conditions: Iterable[_Condition]) -> _Condition:
    return _joined(conditions, "should", neutral=False)


def _joined(conditions: Iterable[_Condition], clause: str, *, neutral: bool) -> _Condition:
    joined = grpc.Filter()
    parts = getattr(joined, clause)
    for one in conditions:
        if isinstance(one, bool):
            if one is not neutral:
                return one
        elif clause == "must" and _has_only(one, {"must", "must_not"}):
            joined.must.extend(one.filter.must)  # flat, since depth is limited
            joined.must_not.extend(one.filter.must_not)
        elif clause == "should" and _has_only(one, {"should"}):
            joined.should.extend(one.filter.should)
        else:
            parts.append(one)
    if not joined.ByteSize():
        return neutral
    if len(parts) == 1 and not joined.must_not:
        only: grpc.Condition = parts[0]
        return only
    return grpc.Condition(filter=joined)


def _not(condition: _Condition) -> _Condition:
    if isinstance(condition, bool):
        return not condition
    if _has_only(condition, {"must_not"}) and len(condition.filter.must_not) == 1:
        only: grpc.Condition = condition.filter.must_not[0]
        return only
    return grpc.Condition(filter=grpc.Filter(must_not=[condition]))


def _has_only(condition: grpc.Condition, clauses: set[str]) -> bool:
    """Whether it is a filter with these clauses and no other."""
    return condition.HasField("filter") and {field.name for field, _ in condition.filter.ListFields()} <= clauses


def _depth(where: grpc.Filter) -> int:
    inner = (one.filter for clause in (where.must, where.should, where.must_not) for one in clause)
    return 1 + max((_depth(one) for one in inner if one.ByteSize()), default=0)
