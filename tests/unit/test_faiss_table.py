"""The table of a FAISS index against a dictionary, through any order of changes.

- it holds what the dictionary holds, each record once, vectors bit by bit, and search finds all of it
- a cut gives the records of the moment that it was made, whatever is changed while it is read
- an inverted file that is filled beside the changes holds, at the end, what the table holds
- places of removed records are used again, and given back when they are many
"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.faiss import DIMENSION, batch_of, vector_of

from vectorwright.stores.faiss.records import Removal, Upsert, decode_line, upsert_of
from vectorwright.stores.faiss.table import Cut, Table
from vectorwright.stores.faiss.vectors import Inverted, Slots
from vectorwright.stores.filters import Eq, Range

LISTS = 2
names = st.lists(st.integers(0, 40).map(lambda number: f"id-{number}"), min_size=1, max_size=20, unique=True)


def change_of(ids: list[str], value: int) -> Upsert:
    batch = batch_of(ids, value)
    return upsert_of(batch, [b'{"value":%d,"word":"w%d"}' % (value, value % 3) for _ in ids])


class TableMachine(RuleBasedStateMachine):
    """Changes, cuts and building in any order."""

    @initialize(metric=st.sampled_from(("cosine", "dotproduct", "euclidean")))
    def begin(self, metric: str) -> None:
        self.table = Table(DIMENSION, metric, ["value"])
        self.table.min_holes = 4
        self.model: dict[str, int] = {}
        self.value = 0
        self.cut: Cut | None = None
        self.at_cut: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.building: Inverted | None = None
        self.left: Slots = np.empty(0, np.int64)

    @rule(ids=names)
    def write(self, ids: list[str]) -> None:
        self.value += 1
        self.table.apply(change_of(ids, self.value))
        self.model |= dict.fromkeys(ids, self.value)

    @rule(ids=names)
    def remove(self, ids: list[str]) -> None:
        self.table.apply(Removal(ids))
        self.model = {name: value for name, value in self.model.items() if name not in ids}

    @rule()
    def remove_all(self) -> None:
        self.table.apply(Removal(list(self.model)))
        self.model = {}

    @precondition(lambda self: self.cut is None)
    @rule()
    def begin_cut(self) -> None:
        self.cut, self.at_cut, self.seen = self.table.begin_cut(), dict(self.model), {}

    @precondition(lambda self: self.cut is not None)
    @rule(count=st.integers(1, 12))
    def read_slice(self, count: int) -> None:
        assert self.cut is not None
        lines, vectors = self.table.next_slice(self.cut, count)
        for line, vector in zip(lines, vectors, strict=True):
            name, metadata, _ = decode_line(line)
            assert name not in self.seen
            value = metadata["value"]
            assert isinstance(value, int)
            np.testing.assert_array_equal(vector, vector_of(name, value))
            self.seen[name] = value
        if self.cut.done == len(self.cut.slots):
            assert self.seen == self.at_cut
            self.table.end_cut()
            self.cut = None

    @precondition(lambda self: self.building is None and len(self.model) >= LISTS)
    @rule()
    def begin_building(self) -> None:
        sample = self.table.vectors.sample(self.table.live_slots(), LISTS)
        self.building = Inverted.train(sample, LISTS, self.table.vectors.metric, len(sample))
        self.left = self.table.begin_building()

    @precondition(lambda self: self.building is not None)
    @rule(count=st.integers(1, 30))
    def fill(self, count: int) -> None:
        assert self.building is not None
        part, self.left = self.left[:count], self.left[count:]
        self.table.copy_slice(self.building, part)
        if not len(self.left):
            self.table.finish_building(self.building)
            self.building = None

    @invariant()
    def it_holds_what_the_dictionary_holds(self) -> None:
        if not hasattr(self, "table"):
            return
        assert len(self.table) == len(self.model)
        assert sorted(self.table.ids(None)) == sorted(self.model)
        records = self.table.records(self.model, vectors=True, metadata=True)
        for record in records:
            assert record.metadata["value"] == self.model[record.id]
            assert record.vector is not None
            np.testing.assert_array_equal(record.vector, vector_of(record.id, self.model[record.id]))
        asked = vector_of("question", self.value)
        found = self.table.query(asked, 100, None, lambda lists: lists, vectors=False)
        assert sorted(match.record.id for match in found) == sorted(self.model)
        newest = [name for name, value in self.model.items() if value == self.value]
        for where in (Eq("value", self.value), Range("value", gte=self.value)):
            found = self.table.query(asked, 100, where, lambda lists: 1, vectors=False)
            assert sorted(match.record.id for match in found) == sorted(newest)
        assert self.table.line_bytes == sum(len(line or b"") for line in self.table._lines)


TestTable = TableMachine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
