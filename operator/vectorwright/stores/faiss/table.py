"""An index in memory: ids, lines, columns and vectors, all by slot. Knows neither files nor waiting.

Whoever calls holds the index's lock: alone for what changes the table, shared for what reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..base import RESERVED_FIELDS, Match, Metadata, Record, Vectors
from ..filters import Filter
from .columns import Column, Mask, select
from .records import Change, Upsert, decode_line, name_in_line
from .vectors import Inverted, Slots, VectorTable

_RECORD_BYTES = 400
"""Bytes that a record takes beside vector and line: 260 for id, dictionary and lists (CPython 3.11), and what grows by
doubling."""


class Cut:
    """The records that there were at one moment, read slice by slice while changes go on."""

    def __init__(self, slots: Slots, capacity: int) -> None:
        self.slots = slots
        self.done = 0
        self.pending: Mask = np.zeros(capacity, np.bool_)
        self.pending[slots] = True
        self.saved: dict[int, tuple[bytes, Vectors]] = {}
        """What was changed since, as it was."""


class Table:
    """All records of an index."""

    min_holes = 1024
    """Places of removed records below which the table is not packed."""

    def __init__(self, dimension: int, metric: str, fields: Iterable[str]) -> None:
        self.vectors = VectorTable(dimension, metric)
        self.slots: dict[str, int] = {}
        self.line_bytes = 0
        self._ids: list[str | None] = []
        self._lines: list[bytes | None] = []
        self._live: Mask = np.zeros(0, np.bool_)
        self._free: list[int] = []
        self._columns = {name: Column(name) for name in (*RESERVED_FIELDS, *fields)}
        self._cut: Cut | None = None
        self._dirty: set[int] | None = None
        """While another index of the vectors is built: slots that changed since."""

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about."""
        vectors = 4 * self.vectors.dimension * len(self._ids) + self.vectors.nbytes
        columns = sum(column.nbytes for column in self._columns.values())
        return vectors + columns + self.line_bytes + _RECORD_BYTES * len(self._ids)

    # --- changes -----------------------------------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Make a change. Ids within it are distinct."""
        if isinstance(change, Upsert):
            self._write(change)
        else:
            self._remove(change.ids)

    def _write(self, change: Upsert) -> None:
        known = [self.slots[record_id] for record_id in change.ids if record_id in self.slots]
        self._keep(known)
        slots = [self._slot(record_id) for record_id in change.ids]
        self._reserve(len(self._ids))
        for slot, line in zip(slots, change.lines, strict=True):
            self.line_bytes += len(line) - len(self._lines[slot] or b"")
            self._lines[slot] = line
        self._fill_columns(slots, change.metadata)
        numbers = np.array(slots, np.int64)
        self._live[numbers] = True
        self.vectors.put(numbers, change.vectors)
        if self._dirty is not None:
            self._dirty.update(slots)

    def _slot(self, record_id: str) -> int:
        slot = self.slots.get(record_id)
        if slot is None:
            if self._free:
                slot = self._free.pop()
                self._ids[slot] = record_id
            else:
                slot = len(self._ids)
                self._ids.append(record_id)
                self._lines.append(None)
            self.slots[record_id] = slot
        return slot

    def _reserve(self, slots: int) -> None:
        if slots > len(self._live):
            grown = np.zeros(max(slots, 2 * len(self._live), 64), np.bool_)
            grown[: len(self._live)] = self._live
            self._live = grown
        for column in self._columns.values():
            column.reserve(slots)

    def _fill_columns(self, slots: Sequence[int], metadata: Sequence[Metadata]) -> None:
        for name, column in self._columns.items():
            for slot, one in zip(slots, metadata, strict=True):
                column.set(slot, one.get(name))

    def _remove(self, ids: Sequence[str]) -> None:
        known = [self.slots[record_id] for record_id in dict.fromkeys(ids) if record_id in self.slots]
        if not known:
            return
        self._keep(known)
        for slot in known:
            record_id, line = self._ids[slot], self._lines[slot]
            if record_id is not None:
                del self.slots[record_id]
            self.line_bytes -= len(line or b"")
            self._ids[slot] = self._lines[slot] = None
        numbers = np.array(known, np.int64)
        self._live[numbers] = False
        for column in self._columns.values():
            column.codes[numbers] = 0
        self.vectors.remove(numbers)
        self._free += known
        if self._dirty is not None:
            self._dirty.update(known)
        self._tidy()

    def _tidy(self) -> None:
        """Give back what removed records took, where that is most of the table."""
        if self._cut is None and self._dirty is None and len(self._free) > max(self.min_holes, len(self.slots)):
            self._pack()
        for column in self._columns.values():
            column.tidy(len(self.slots))

    def _pack(self) -> None:
        slots = self.live_slots()
        self.vectors.pack(slots)
        numbers = slots.tolist()
        self._ids = [self._ids[slot] for slot in numbers]
        self._lines = [self._lines[slot] for slot in numbers]
        self.slots = {record_id: slot for slot, record_id in enumerate(self._ids) if record_id is not None}
        self._live = np.ones(len(numbers), np.bool_)
        self._free = []
        for column in self._columns.values():
            column.codes = column.codes[slots]

    def add_fields(self, names: Iterable[str]) -> None:
        """Declare fields, and fill their columns from the records that are there."""
        for name in names:
            if name in self._columns:
                continue
            column = Column(name)
            column.reserve(len(self._ids))
            for slot, line in enumerate(self._lines):
                if line is not None:
                    column.set(slot, decode_line(line)[1].get(name))
            self._columns = {**self._columns, name: column}  # whoever counts bytes holds no lock

    # --- reading -----------------------------------------------------------------------------------------------------

    def live_slots(self) -> Slots:
        """The slots that hold records."""
        return np.flatnonzero(self._live[: len(self._ids)]).astype(np.int64)

    def selected(self, where: Filter | None) -> Mask:
        """The slots whose records match."""
        live = self._live[: len(self._ids)]
        return live.copy() if where is None else select(where, live, self._columns, self._metadata)

    def _metadata(self, slot: int, name: str) -> Metadata:
        line = self._lines[slot]
        # Most records have no such field, and a look at the bytes is a twentieth of decoding them.
        return {} if line is None or name_in_line(name) not in line else decode_line(line)[1]

    def count(self, where: Filter | None) -> int:
        """Records that match."""
        return len(self.slots) if where is None else int(self.selected(where).sum())

    def ids(self, where: Filter | None) -> list[str]:
        """The ids of records that match."""
        found = (self._ids[slot] for slot in np.flatnonzero(self.selected(where)).tolist())
        return [record_id for record_id in found if record_id is not None]

    def records(self, ids: Iterable[str], *, vectors: bool, metadata: bool) -> list[Record]:
        """Those of the records that are there, each once."""
        known = [(record_id, self.slots[record_id]) for record_id in dict.fromkeys(ids) if record_id in self.slots]
        found = self.vectors.get(np.array([slot for _, slot in known], np.int64)) if vectors and known else None
        records = []
        for at, (record_id, slot) in enumerate(known):
            vector = None if found is None else found[at]
            line = self._lines[slot]
            if metadata and line is not None:
                _, values, text = decode_line(line)
                records.append(Record(record_id, values, text, vector))
            else:
                records.append(Record(record_id, vector=vector))
        return records

    def query(
        self, asked: Vectors, top_k: int, where: Filter | None, probes: Callable[[int], int], *, vectors: bool
    ) -> list[Match]:
        """The nearest, nearest first; equal scores in the order of their ids."""
        selection, available = None, len(self.slots)
        if where is not None:
            selection = self.selected(where)
            available = int(selection.sum())
        elif self._free and not isinstance(self.vectors.index, Inverted):
            selection = self._live[: len(self._ids)]
        found = self.vectors.search(asked, top_k, selection, probes, available)
        named = [(self._ids[slot] or "", score) for slot, score in found]
        named.sort(key=lambda one: (-one[1], one[0]))
        records = self.records((record_id for record_id, _ in named), vectors=vectors, metadata=True)
        return [Match(record, score) for record, (_, score) in zip(records, named, strict=True)]

    # --- a consistent copy -------------------------------------------------------------------------------------------

    def begin_cut(self) -> Cut:
        """Remember the records of this moment, until :meth:`end_cut`."""
        self._cut = Cut(self.live_slots(), len(self._ids))
        return self._cut

    def next_slice(self, cut: Cut, count: int) -> tuple[list[bytes], Vectors]:
        """The next of the records as they were at the cut: lines, and vectors of shape (n, d)."""
        part = cut.slots[cut.done : cut.done + count]
        cut.done += len(part)
        numbers = part.tolist()
        cut.pending[part] = False
        vectors = np.empty((len(part), self.vectors.dimension), np.float32)
        present = np.array([slot not in cut.saved for slot in numbers], np.bool_)
        vectors[present] = self.vectors.get(part[present])
        lines: list[bytes] = []
        for at, slot in enumerate(numbers):
            saved = cut.saved.pop(slot, None)
            if saved is not None:
                line, vectors[at] = saved
            else:
                line = self._lines[slot] or b""
            lines.append(line)
        return lines, vectors

    def end_cut(self) -> None:
        """Forget the cut."""
        self._cut = None

    def _keep(self, slots: Sequence[int]) -> None:
        """Put aside what is about to change and is still to be read from the cut."""
        cut = self._cut
        if cut is None:
            return
        kept = [slot for slot in slots if slot < len(cut.pending) and cut.pending[slot] and slot not in cut.saved]
        if kept:
            for slot, vector in zip(kept, self.vectors.get(np.array(kept, np.int64)), strict=True):
                cut.saved[slot] = (self._lines[slot] or b"", vector.copy())

    # --- an inverted file beside the index that serves ---------------------------------------------------------------

    def begin_building(self) -> Slots:
        """Begin to take note of changes; returns the slots that hold records."""
        self._dirty = set()
        return self.live_slots()

    def copy_slice(self, other: Inverted, slots: Slots) -> None:
        """Put the vectors of those slots that still hold records into another index."""
        self.vectors.copy_into(other, slots[self._live[slots]])

    def finish_building(self, other: Inverted | None) -> None:
        """Bring the other index up to date and search in it from now on; None gives up."""
        dirty, self._dirty = self._dirty, None
        if other is None:
            return
        changed = np.array(sorted(dirty or ()), np.int64)
        other.remove(changed)
        self.copy_slice(other, changed)
        self.vectors.index = other
