"""Filters as boolean expressions of Milvus, with the meaning of :mod:`vectorwright.stores.filters`.

Three rules make an expression mean the same in milvus-lite and in every version of Milvus:

- A comparison is only made with values of its own type: with a column, or with a path of :mod:`.metadata`.
- ``not`` stands before ``exists`` and ``json_contains`` only. Negation is pushed down to the comparisons, and each says
  of absence what it means: three-valued logic, which versions treat differently, never matters.
- Values are literals with everything escaped that could end them. milvus-lite ignores template parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vectorwright.errors import Terminal

from ..base import RESERVED_FIELDS
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar
from .metadata import EMPTY, LISTS, SCALARS, key_of
from .schema import ID, METADATA, MIXED

EVERYTHING, NOTHING = f'{ID} != ""', f'{ID} == ""'
"""No record has an empty id. An expression of Milvus is never a mere constant."""
MAX_EXPRESSION = 8 * 2**20
"""Characters. A limit of ours: what Milvus cannot parse in time would come back as a time-out."""
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _refused(what: str) -> Terminal:
    return Terminal(f"Milvus cannot filter by {what}", reason="UnsupportedFilter")


def literal(text: str) -> str:
    """A string in an expression."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


def _storable(text: str) -> bool:
    """Whether any record can hold the text: a lone half of a surrogate pair cannot be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Operand:
    """A place where values of one kind are: a column, or a path in ``metadata``."""

    text: str
    kind: str
    column: bool

    @property
    def present(self) -> str:
        return f"{self.text} is not null" if self.column else f"exists {self.text}"

    @property
    def absent(self) -> str:
        return f"{self.text} is null" if self.column else f"(not (exists {self.text}))"


def expression(where: Filter | None, columns: Mapping[str, str]) -> str:
    """``where`` as an expression; ``columns`` are the fields that have a column, with the kind of its values.

    Columns are asked of records whose every declared field is in its column, ``metadata`` of the others: see
    ``vw_mixed`` in :mod:`.schema`. Raises Terminal (``UnsupportedFilter``).
    """
    if where is None:
        return EVERYTHING
    reserved = {name: kind for name, kind in columns.items() if name in RESERVED_FIELDS}
    said = _Translation(reserved).said(where, negated=False)
    if any(name in columns and name not in reserved for name in _names(where)):
        fast = _Translation(columns).said(where, negated=False)
        said = f"(({MIXED} == false and {fast}) or ({MIXED} == true and {said}))"
    if len(said) > MAX_EXPRESSION:
        raise _refused(f"so much at once: the expression would have {len(said)} characters, {MAX_EXPRESSION} are taken")
    return said


def one_of(keys: Iterable[str]) -> str:
    """The expression for records by primary key."""
    return f"{ID} in [{', '.join(literal(key) for key in keys)}]"


def _names(where: Filter) -> set[str]:
    match where:
        case And(parts) | Or(parts):
            return {name for part in parts for name in _names(part)}
        case Not(part):
            return _names(part)
        case _:
            return {where.field}


class _Translation:
    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns

    def said(self, where: Filter, *, negated: bool) -> str:
        match where:
            case And(parts):
                return _joined([self.said(part, negated=negated) for part in parts], all_of=not negated)
            case Or(parts):
                return _joined([self.said(part, negated=negated) for part in parts], all_of=negated)
            case Not(part):
                return self.said(part, negated=not negated)
            case Ne(name, value):
                return self.said(Eq(name, value), negated=not negated)
            case Eq(name, value):
                return self._tested(name, lambda one: _equal(one, (value,)), negated=negated)
            case In(name, values):
                return self._tested(name, lambda one: _equal(one, values), negated=negated)
            case Range(name):
                return self._tested(name, _range(where), negated=negated)
            case Exists(name):
                places = self._places(name, (*SCALARS, LISTS, EMPTY))
                return _joined([one.absent if negated else one.present for one in places], all_of=negated)

    def _places(self, name: str, groups: Sequence[str]) -> list[_Operand]:
        if name in self._columns:
            return [_Operand(name, self._columns[name], column=True)]
        if not _storable(name):
            return []
        return [
            _Operand(f"{METADATA}[{literal(group)}][{literal(key_of(name))}]", group, column=False) for group in groups
        ]

    def _tested(self, name: str, test: _Test, *, negated: bool) -> str:
        """One of the places holds a value that passes the test, or none does."""
        parts: list[str] = []
        for place in self._places(name, (*SCALARS, LISTS)):
            passed = test(place)
            if passed is None:
                continue
            parts.append(_joined([place.absent, passed.no], all_of=False) if negated else passed.yes)
        return _joined(parts, all_of=negated)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What a test asks of a value that is there: expressions for passing and for failing it."""

    yes: str
    no: str


_Test = Callable[[_Operand], _Comparison | None]
"""None where no value of the operand's kind passes."""


def _joined(parts: Sequence[str], *, all_of: bool) -> str:
    """All of the parts, or one of them: without those that change nothing."""
    neutral, absorbing = (EVERYTHING, NOTHING) if all_of else (NOTHING, EVERYTHING)
    if absorbing in parts:
        return absorbing
    said = [part for part in parts if part != neutral]
    return _tree(said, " and " if all_of else " or ") if said else neutral


def _tree(parts: Sequence[str], sign: str) -> str:
    """As a balanced tree: servers walk expressions recursively, and there may be thousands of parts."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_tree(parts[:middle], sign)}{sign}{_tree(parts[middle:], sign)})"


def _equal(place: _Operand, values: Iterable[Scalar]) -> _Comparison | None:
    wanted = list(dict.fromkeys(said for value in values if (said := _value(place.kind, value)) is not None))
    if place.kind == "integer" and str(_INT_MIN) in wanted:
        # The lowest number has no literal: a minus and a number that is too large are two words.
        wanted.remove(str(_INT_MIN))
        lowest = _Comparison(f"{place.text} < {_INT_MIN + 1}", f"{place.text} >= {_INT_MIN + 1}")
        return _either(_equal_to(place, wanted), lowest)
    return _equal_to(place, wanted)


def _either(one: _Comparison | None, other: _Comparison) -> _Comparison:
    if one is None:
        return other
    return _Comparison(f"({one.yes} or {other.yes})", f"({one.no} and {other.no})")


def _equal_to(place: _Operand, values: list[str]) -> _Comparison | None:
    if not values:
        return None
    if place.kind == LISTS:
        held = f"json_contains_any({place.text}, [{', '.join(values)}])"
        return _Comparison(held, f"(not {held})")
    if place.column and len(values) > 1:
        listed = f"[{', '.join(values)}]"
        return _Comparison(f"{place.text} in {listed}", f"{place.text} not in {listed}")
    # milvus-lite has no "in" for a path.
    return _Comparison(
        _joined([f"{place.text} == {value}" for value in values], all_of=False),
        _joined([f"{place.text} != {value}" for value in values], all_of=True),
    )


def _value(kind: str, value: Scalar) -> str | None:
    """``value`` as a literal of the kind; None where no value of that kind equals it."""
    if isinstance(value, str):
        return literal(value) if kind in {"string", LISTS} and _storable(value) else None
    if isinstance(value, bool):
        return ("true" if value else "false") if kind == "bool" else None
    _check_finite(value)
    if kind == "integer":
        whole = int(value) == value and _INT_MIN <= value <= _INT_MAX
        return str(int(value)) if whole else None
    return _float_literal(float(value)) if kind == "float" and _is_float(value) else None


def _check_finite(value: float) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(f"the number {value}")


def _is_float(value: float) -> bool:
    """Whether a 64-bit float holds the number exactly."""
    try:
        return float(value) == value
    except OverflowError:
        return False


def _float_literal(value: float) -> str:
    return repr(value + 0.0)  # not "-0.0"


def _range(where: Range) -> _Test:
    bounds = {sign: bound for sign in ("gt", "gte", "lt", "lte") if (bound := getattr(where, sign)) is not None}
    if not bounds:
        raise _refused(f"a range without bounds (field {where.field[:100]!r})")
    if {isinstance(bound, str) for bound in bounds.values()} == {True, False}:
        return lambda _: None  # nothing is a number and a string at once
    if any(isinstance(bound, str) for bound in bounds.values()):
        if not all(_storable(bound) for bound in bounds.values()):
            raise _refused(f"a range up to characters that it does not hold (field {where.field[:100]!r})")
        return lambda place: (
            _between(place, {sign: literal(bound) for sign, bound in bounds.items()})
            if place.kind == "string"
            else None
        )
    for bound in bounds.values():
        _check_finite(bound)

    def numbers(place: _Operand) -> _Comparison | None:
        if place.kind == "integer":
            return _whole_numbers(place, bounds)
        return _floats(place, bounds) if place.kind == "float" else None

    return numbers


_SIGNS = {"gt": (">", "<="), "gte": (">=", "<"), "lt": ("<", ">="), "lte": ("<=", ">")}


def _between(place: _Operand, literals: Mapping[str, str]) -> _Comparison:
    return _Comparison(
        _joined([f"{place.text} {_SIGNS[sign][0]} {said}" for sign, said in literals.items()], all_of=True),
        _joined([f"{place.text} {_SIGNS[sign][1]} {said}" for sign, said in literals.items()], all_of=False),
    )


def _whole_numbers(place: _Operand, bounds: Mapping[str, float]) -> _Comparison | None:
    """Bounds as the whole numbers next to them, so that whole numbers meet nothing else."""
    low, high = _INT_MIN, _INT_MAX
    for sign, bound in bounds.items():
        match sign:
            case "gt":
                low = max(low, math.floor(bound) + 1)
            case "gte":
                low = max(low, math.ceil(bound))
            case "lt":
                high = min(high, math.ceil(bound) - 1)
            case _:
                high = min(high, math.floor(bound))
    if low > high:
        return None
    literals: dict[str, str] = {}
    if low > _INT_MIN:
        literals["gte"] = str(low)
    if high == _INT_MIN:
        literals["lt"] = str(high + 1)  # the lowest number itself has no literal
    elif high < _INT_MAX:
        literals["lte"] = str(high)
    return _between(place, literals) if literals else _Comparison(place.present, NOTHING)


def _floats(place: _Operand, bounds: Mapping[str, float]) -> _Comparison | None:
    """Bounds as floats. A whole number that none holds is replaced by one beside it, with the same floats above."""
    literals: dict[str, str] = {}
    for sign, bound in bounds.items():
        if _is_float(bound):
            literals[sign] = _float_literal(float(bound))
            continue
        upward = bound > 0
        try:
            near = float(bound)
        except OverflowError:
            if upward == (sign in {"gt", "gte"}):
                return None
            continue
        below = near if near < bound else math.nextafter(near, -math.inf)
        # Between `below` and the float after it there is no float: "> bound" is "> below", "< bound" is "<= below".
        literals["gt" if sign in {"gt", "gte"} else "lte"] = _float_literal(below)
    return _between(place, literals) if literals else _Comparison(place.present, NOTHING)
