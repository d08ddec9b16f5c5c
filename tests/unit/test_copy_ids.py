"""Ids on their way between stores of which one cannot hold them.

What is checked: an id that a store cannot hold is mapped, with the original in vw_id, and comes back; no record gets
the id of another; a second copy knows what it mapped.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.copying import SOURCE, TARGET, Pair, all_of, described, put, record
from tests.support.ingest import ScriptedStore

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.ingest.identity import foreign_id
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.memory import MEMORY_CAPABILITIES, MemoryStore

UUIDS = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.fixture
def origin() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def pair(origin: MemoryStore) -> Pair:
    return await Pair.make(origin, MemoryStore())


def uuids_only() -> ScriptedStore:
    return ScriptedStore(capabilities=replace(MEMORY_CAPABILITIES, id_pattern=UUIDS))


async def test_ids_that_the_store_cannot_hold_come_back_when_they_can_be_held(pair: Pair) -> None:
    records = [
        record("7", 1, {"n": 1}, "seven"),
        record("docs/a.md#0", 2),
        record(foreign_id("unrelated"), 3, {"vw_doc": "x"}),
        record("own", 4, {"vw_source": "team/a", "vw_id": "own"}),
    ]
    await put(pair.origin, SOURCE, records)
    uuids = uuids_only()
    made = await uuids.create_index(IndexDefinition(TARGET, 8, "cosine"))
    there = Pair(pair.origin, uuids, pair.origin_incarnation, made.incarnation)
    assert (await there.run()).phase is Phase.SUCCEEDED
    found = await there.copied()
    assert set(found) == {foreign_id("7"), foreign_id("docs/a.md#0"), foreign_id("unrelated"), foreign_id("own")}
    assert found[foreign_id("7")].metadata == {"n": 1, "vw_id": "7"}
    assert found[foreign_id("own")].metadata == {"vw_source": "team/a", "vw_id": "own"}
    assert (await there.run()).counts.documents_unchanged == 4

    back = Pair(uuids, MemoryStore(), made.incarnation, "")
    back.incarnation = (await back.store.create_index(IndexDefinition(SOURCE, 8, "cosine"))).incarnation
    state = await back.run(store={"index": SOURCE}, sourceStore={"index": TARGET})
    assert state.phase is Phase.SUCCEEDED
    assert described((await all_of(back.store, SOURCE)).values()) == described(records)


async def test_an_id_is_not_given_back_where_another_record_has_it(pair: Pair) -> None:
    records = [record("a", 1, {"n": 1}), record(foreign_id("a"), 2, {"n": 2, "vw_id": "a"})]
    await put(pair.origin, SOURCE, records)
    assert (await pair.run()).phase is Phase.SUCCEEDED
    assert described((await pair.copied()).values()) == described(records)


async def test_two_records_that_would_get_one_id_are_told_apart(origin: MemoryStore) -> None:
    pair = await Pair.make(origin, uuids_only())
    records = [record("a", 1, {"n": 1}), record(foreign_id("a"), 2, {"n": 2}), record("b", 3, {"vw_id": "c"})]
    await put(pair.origin, SOURCE, records)
    state = await pair.run()
    assert state.phase is Phase.SUCCEEDED_WITH_ERRORS
    assert {(one.document, one.reason) for one in state.dead_letters} == {("a", "DuplicateId"), ("b", "IdNotHeld")}
    assert set(await pair.copied()) == {foreign_id("a")}
