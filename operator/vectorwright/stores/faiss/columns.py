"""Declared metadata fields as columns of codes, and which slots match a filter: exactly what ``filters.matches`` says.

A column holds for every slot the code of its value in a dictionary of the values that there are. A comparison is then
decided once a value instead of once a record, and looked up for all slots at once. Fields that nobody declared are read
from the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..base import Metadata, MetadataValue
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar, matches

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Shape (slots,)."""

ReadField: TypeAlias = Callable[[int, str], Metadata]
"""Slot and name of a field → the metadata of the record, or nothing where the record has no such field."""

ABSENT = 0
_SPARE = 1024


def _key(value: MetadataValue) -> tuple[object, ...]:
    """Equal for values that no filter tells apart, and for no others."""
    if isinstance(value, list):
        return ("list", *value)
    if isinstance(value, bool):
        return ("bool", value)
    return ("text", value) if isinstance(value, str) else ("number", value)


class Column:
    """One field. ``codes[slot]`` is 0 where the record has no such field, or there is no record."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.codes = np.zeros(0, np.int32)
        self._values: list[MetadataValue | None] = [None]
        self._known: dict[tuple[object, ...], int] = {}
        self._lists: list[int] = []
        """The codes of values that are lists."""

    def reserve(self, slots: int) -> None:
        """Have room for so many slots."""
        if slots > len(self.codes):
            grown = np.zeros(max(slots, 2 * len(self.codes), 64), np.int32)
            grown[: len(self.codes)] = self.codes
            self.codes = grown

    def set(self, slot: int, value: MetadataValue | None) -> None:
        """The value of a slot; None where it has none. There is room for it."""
        if value is None:
            self.codes[slot] = ABSENT
            return
        key = _key(value)
        code = self._known.get(key)
        if code is None:
            code = self._known[key] = len(self._values)
            self._values.append(value)
            if isinstance(value, list):
                self._lists.append(code)
        self.codes[slot] = code

    def tidy(self, live: int) -> None:
        """Forget values that no slot has any more, where they are many."""
        if len(self._values) <= 2 * live + _SPARE:
            return
        used = np.unique(self.codes)
        used = used[used != ABSENT]
        renumbered = np.zeros(len(self._values), np.int32)
        renumbered[used] = np.arange(1, len(used) + 1, dtype=np.int32)
        self._values = [None, *(self._values[code] for code in used.tolist())]
        self._known = {_key(value): code for code, value in enumerate(self._values) if value is not None}
        self._lists = [code for code, value in enumerate(self._values) if isinstance(value, list)]
        self.codes = renumbered[self.codes]

    def matching(self, where: Eq | In | Range | Exists, slots: int) -> Mask:
        """The slots, of the first ``slots``, whose value matches a comparison by this field."""
        codes = self.codes[:slots]
        match where:
            case Exists():
                return np.asarray(codes != ABSENT)
            case Eq(_, value):
                wanted = self._codes_of((value,))
            case In(_, values):
                wanted = self._codes_of(values)
            case Range():
                wanted = self._codes_within(where)
        if len(wanted) == 1:
            return np.asarray(codes == wanted[0])
        holds = np.zeros(len(self._values), np.bool_)
        holds[wanted] = True
        return holds[codes]

    def _codes_of(self, values: Iterable[Scalar]) -> list[int]:
        """The codes of values that equal one of these, or are lists that hold one."""
        wanted = [self._known[key] for value in values if (key := _key(value)) in self._known]
        lists = [(code, {self.name: self._values[code]}) for code in self._lists]
        return wanted + [code for code, one in lists if any(matches(Eq(self.name, value), one) for value in values)]

    def _codes_within(self, where: Range) -> list[int]:
        """The codes of values between bounds: all of one kind, or nothing is."""
        bounds = [bound for bound in (where.gt, where.gte, where.lt, where.lte) if bound is not None]
        kinds = {isinstance(bound, str) for bound in bounds}
        if len(kinds) > 1:
            return []
        kind: tuple[type, ...] = (str,) if True in kinds else (int, float)
        # Most values are of the other kind, or there are as many as records: a look at the type is a tenth of a match.
        found = [code for code, value in enumerate(self._values) if type(value) in kind]
        return [code for code in found if _within(self._values[code], where)]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, about: 150 a distinct value."""
        return self.codes.nbytes + 150 * len(self._values)


def _within(value: Any, where: Range) -> bool:
    return not (
        (where.gt is not None and not value > where.gt)
        or (where.gte is not None and not value >= where.gte)
        or (where.lt is not None and not value < where.lt)
        or (where.lte is not None and not value <= where.lte)
    )


def select(where: Filter, among: Mask, columns: Mapping[str, Column], metadata: ReadField) -> Mask:
    """Those of ``among`` that match. ``metadata`` reads a record, for fields without a column."""
    match where:
        case Eq(name) | In(name) | Range(name) | Exists(name):
            column = columns.get(name)
            if column is not None:
                return among & column.matching(where, len(among))
            found = np.zeros(len(among), np.bool_)
            for slot in np.flatnonzero(among).tolist():
                found[slot] = matches(where, metadata(slot, name))
            return found
        case Ne(name, value):
            return among & ~select(Eq(name, value), among, columns, metadata)
        case Not(part):
            return among & ~select(part, among, columns, metadata)
        case And(parts):
            for part in sorted(parts, key=lambda part: not _has_columns(part, columns)):
                among = select(part, among, columns, metadata)
            return among
        case Or(parts):
            found = np.zeros(len(among), np.bool_)
            for part in sorted(parts, key=lambda part: not _has_columns(part, columns)):
                found |= select(part, among & ~found, columns, metadata)
            return found


def _has_columns(where: Filter, columns: Mapping[str, Column]) -> bool:
    """Whether no record has to be read for this filter: such parts go first."""
    match where:
        case Eq(name) | Ne(name) | In(name) | Range(name) | Exists(name):
            return name in columns
        case Not(part):
            return _has_columns(part, columns)
        case And(parts) | Or(parts):
            return all(_has_columns(part, columns) for part in parts)
