"""Declared metadata fields as columns of codes, and which slots match a filter: exactly what ``filters.matches`` says.

A column holds for every slot the code of its value in a dictionary of the values that there are. A comparison is then
decided once a value instead of once a record, by ``filters.matches`` itself, and looked up for all slots at once.
Fields that nobody declared are read from the records' lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..base import Metadata, MetadataValue
from ..filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, matches

Mask: TypeAlias = npt.NDArray[np.bool_]
"""Shape (slots,)."""

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
        self.codes = renumbered[self.codes]

    def matching(self, where: Eq | In | Range | Exists, slots: int) -> Mask:
        """The slots, of the first ``slots``, whose value matches a comparison by this field."""
        holds = np.zeros(len(self._values), np.bool_)
        for code, value in enumerate(self._values):
            holds[code] = value is not None and matches(where, {self.name: value})
        return holds[self.codes[:slots]]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, about: 150 a distinct value."""
        return self.codes.nbytes + 150 * len(self._values)


def select(where: Filter, among: Mask, columns: Mapping[str, Column], metadata: Callable[[int], Metadata]) -> Mask:
    """Those of ``among`` that match. ``metadata(slot)`` reads a record's metadata, for fields without a column."""
    match where:
        case Eq(name) | In(name) | Range(name) | Exists(name):
            column = columns.get(name)
            if column is not None:
                return among & column.matching(where, len(among))
            found = np.zeros(len(among), np.bool_)
            for slot in np.flatnonzero(among).tolist():
                found[slot] = matches(where, metadata(slot))
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
