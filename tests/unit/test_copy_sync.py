"""What a copy deletes in mode Sync, and what it leaves alone.

What is checked: what is gone from the source goes from the copy, under whatever id it has there; nothing goes in mode
Upsert, after a part of the source was read only, or beyond maxDeletePercent; records of other sources, and those that
were there before, stay.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.copying import SOURCE, TARGET, Pair, put, record, some
from tests.support.ingest import ScriptedStore

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable
from vectorwright.ingest.identity import foreign_id
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.memory import MEMORY_CAPABILITIES, MemoryStore

UUIDS = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
SYNC = {"mode": "Sync"}


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def pair(store: ScriptedStore) -> Pair:
    return await Pair.make(MemoryStore(), store)


async def test_what_is_gone_from_the_source_is_deleted(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(20))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, ["r-3", "r-4"])
    state = await pair.run(sync=SYNC)
    assert (state.phase, state.verification) == (Phase.SUCCEEDED, "Exact")
    assert (state.counts.documents_deleted, state.counts.vectors_deleted) == (2, 2)
    assert set(await pair.copied()) == {f"r-{n}" for n in range(20)} - {"r-3", "r-4"}


async def test_nothing_is_deleted_in_mode_upsert(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(20))
    await pair.run()
    await pair.origin.delete(SOURCE, ["r-3"])
    assert (await pair.run()).counts.vectors_deleted == 0
    assert len(await pair.copied()) == 20


async def test_more_than_the_share_is_not_deleted(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(20))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, [f"r-{n}" for n in range(5)])
    state = await pair.run(sync=SYNC)
    assert (state.phase, state.reason, state.retryable) == (Phase.FAILED, "TooManyDeletes", False)
    assert len(await pair.copied()) == 20
    state = await pair.run(sync={**SYNC, "maxDeletePercent": 25})
    assert (state.phase, state.counts.vectors_deleted) == (Phase.SUCCEEDED, 5)


async def test_the_share_is_that_of_the_records_that_the_copy_brought(pair: Pair) -> None:
    await put(pair.store, TARGET, some(1000, source="theirs"))
    await put(pair.origin, SOURCE, some(10, source="ours"))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, [f"ours-{n}" for n in range(3)])
    assert (await pair.run(sync=SYNC)).reason == "TooManyDeletes"


async def test_records_of_other_sources_stay(pair: Pair) -> None:
    await put(pair.store, TARGET, some(5, source="theirs"))
    await put(pair.origin, SOURCE, some(10, source="ours"))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, ["ours-1"])
    await pair.run(sync=SYNC, store={"soleWriter": False})
    found = set(await pair.copied())
    assert {f"theirs-{n}" for n in range(5)} <= found
    assert len(found) == 14


@pytest.mark.parametrize("store_is", [{"madeForUs": False}, {"soleWriter": False}], ids=["adopted", "shared"])
async def test_nameless_records_stay_where_somebody_else_may_have_brought_them(
    pair: Pair, store_is: dict[str, Any]
) -> None:
    await put(pair.store, TARGET, [record("there before", 77)])
    await put(pair.origin, SOURCE, some(20))
    await pair.run(sync=SYNC, store=store_is)
    await pair.origin.delete(SOURCE, ["r-0"])
    assert (await pair.run(sync=SYNC, store=store_is)).counts.vectors_deleted == 0
    assert len(await pair.copied()) == 21


async def test_nameless_records_stay_where_the_source_has_none_of_them(pair: Pair) -> None:
    await put(pair.store, TARGET, [record("somebody's", 77)])
    await put(pair.origin, SOURCE, some(20, source="ours"))
    assert (await pair.run(sync=SYNC)).counts.vectors_deleted == 0
    assert "somebody's" in await pair.copied()


async def test_a_record_is_found_in_the_source_under_its_other_id() -> None:
    origin = MemoryStore()
    pair = await Pair.make(origin, ScriptedStore(capabilities=replace(MEMORY_CAPABILITIES, id_pattern=UUIDS)))
    await put(origin, SOURCE, some(20))
    await pair.run(sync=SYNC)
    await origin.delete(SOURCE, ["r-5"])
    assert (await pair.run(sync=SYNC)).counts.vectors_deleted == 1
    assert set(await pair.copied()) == {foreign_id(f"r-{n}") for n in range(20) if n != 5}

    there = MemoryStore()
    made = await there.create_index(IndexDefinition(SOURCE, 8, "cosine"))
    back = Pair(pair.store, there, pair.incarnation, made.incarnation)
    places: dict[str, Any] = {"store": {"index": SOURCE}, "sourceStore": {"index": TARGET}}
    await back.run(sync=SYNC, **places)
    await pair.store.delete(TARGET, [foreign_id("r-6")])
    assert (await back.run(sync=SYNC, **places)).counts.vectors_deleted == 1
    assert "r-6" not in {one.id for page in [p async for p in there.scroll(SOURCE)] for one in page}


async def test_what_could_not_be_kept_anew_is_not_deleted(pair: Pair, store: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(10))
    await pair.run(sync=SYNC)
    await put(pair.origin, SOURCE, [record("r-1", 1, {"words": ["a"]})])
    store.capabilities = replace(store.capabilities, list_metadata=False)
    state = await pair.run(sync=SYNC)
    assert (state.phase, state.counts.vectors_deleted) == (Phase.SUCCEEDED_WITH_ERRORS, 0)
    assert len(await pair.copied()) == 10


async def test_nothing_is_deleted_when_the_source_could_not_be_read_to_its_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(pair.origin, SOURCE, some(10))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, ["r-1"])
    whole = pair.origin.scroll

    async def broken(name: str, *args: Any, **options: Any) -> Any:
        async for page in whole(name, *args, **options):
            yield page[:5]
            raise Retryable("gone", reason="Unreachable")

    monkeypatch.setattr(pair.origin, "scroll", broken)
    state = await pair.run(sync=SYNC)
    assert (state.phase, state.reason) == (Phase.FAILED, "Unreachable")
    assert len(await pair.copied()) == 10


async def test_a_source_that_is_empty_deletes_nothing(pair: Pair) -> None:
    await put(pair.origin, SOURCE, some(3))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, [f"r-{n}" for n in range(3)])
    state = await pair.run(sync={**SYNC, "maxDeletePercent": 100})
    assert (state.phase, state.reason) == (Phase.FAILED, "EmptySource")
    assert len(await pair.copied()) == 3


async def test_many_ids_are_deleted_in_requests_of_a_size(pair: Pair, store: ScriptedStore) -> None:
    await put(pair.origin, SOURCE, some(1300))
    await pair.run(sync=SYNC)
    await pair.origin.delete(SOURCE, [f"r-{n}" for n in range(1100)])
    state = await pair.run(sync={**SYNC, "maxDeletePercent": 90})
    assert (state.phase, state.counts.documents_deleted) == (Phase.SUCCEEDED, 1100)
    assert [len(part) for part in store.deletes if part] == [500, 500, 100]
