"""The life of an index, in every store.

- probing tells who is there, and the same backend to everybody
- listing tells everything, by name; describing tells one; both agree
- creating waits, tells back what was asked, and never takes over a name
- marks and fingerprints are set, changed, removed, and survive everything else
- an incarnation is of one index only
- settings change in place where the store says so, and are refused where it does not
- what does not exist is NotFound, whatever is asked of it
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import DIMENSION, FIELDS, MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.providers import Provider

from vectorwright.errors import Conflict, NotFound, Terminal
from vectorwright.stores.base import (
    ChangeClass,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    OwnershipMark,
    Store,
)
from vectorwright.stores.filters import Eq

pytestmark = pytest.mark.server
OTHER = OwnershipMark("install-2", "team-b", "other")


async def test_a_probe_tells_version_endpoint_and_capabilities(store: Store) -> None:
    info = await store.probe()
    assert info.version
    assert info.endpoint
    assert "@" not in info.endpoint
    assert info.capabilities == store.capabilities
    assert "cosine" in info.capabilities.metrics
    assert info.capabilities.max_dimension >= 1536


async def test_every_connection_to_a_backend_tells_the_same_identity(store: Store, open_another: StoreFactory) -> None:
    first = await store.probe()
    assert first.backend_id
    assert (await open_another(None).probe()).backend_id == first.backend_id


async def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert await store.list_indexes() == []


async def test_indexes_are_listed_by_name(store: Store) -> None:
    for name in ("ccc", "aaa", "bbb"):
        await store.create_index(definition(name))
    assert [index.name for index in await store.list_indexes()] == ["aaa", "bbb", "ccc"]


async def test_a_listing_tells_what_describing_tells(docs: Store) -> None:
    await docs.create_index(replace(definition("plain", "euclidean"), mark=None, model_fingerprint=None, fields=()))
    listed = {index.name: index for index in await docs.list_indexes()}
    for name in ("docs", "plain"):
        described = await docs.describe_index(name)
        assert replace(listed[name], count=None, count_exact=True) == replace(described, count=None, count_exact=True)


async def test_a_listing_tells_counts_where_the_store_says_so(docs: Store) -> None:
    await docs.upsert("docs", batch(7))
    (index,) = await docs.list_indexes()
    if not docs.capabilities.counts_in_listing:
        assert index.count is None
        return
    until = time.monotonic() + 15
    while index.count != 7 and time.monotonic() < until:
        # An estimate may lag behind; an exact count may not, and "empty" is never said of what is not.
        assert not index.count_exact
        assert index.count != 0
        await asyncio.sleep(0.2)
        (index,) = await docs.list_indexes()
    assert index.count == 7


@pytest.mark.parametrize("metric", ["cosine", "dotproduct", "euclidean"])
async def test_dimension_and_metric_are_told_back(store: Store, open_another: StoreFactory, metric: str) -> None:
    made = await store.create_index(definition("docs", metric, 24))
    assert (made.name, made.dimension, made.metric) == ("docs", 24, metric)
    seen = await open_another(None).describe_index("docs")
    assert (seen.name, seen.dimension, seen.metric) == ("docs", 24, metric)
    await store.upsert("docs", batch(3, dimension=24))
    assert (await store.describe_index("docs")).dimension == 24


async def test_creating_tells_mark_fingerprint_fields_and_incarnation(store: Store) -> None:
    made = await store.create_index(definition())
    assert made.incarnation
    assert made == replace(await store.describe_index("docs"), count=made.count, count_exact=made.count_exact)
    if store.capabilities.marks:
        assert made.mark == MARK
        assert made.model_fingerprint == "fp-1"
    if made.fields is not None:
        assert sorted(made.fields, key=lambda field: field.name) == sorted(FIELDS, key=lambda field: field.name)


async def test_creating_takes_writes_at_once(store: Store) -> None:
    await store.create_index(definition())
    await store.upsert("docs", batch(2))
    assert await store.count("docs") == 2


async def test_one_of_many_that_create_the_same_index_wins(store: Store, open_another: StoreFactory) -> None:
    handles = [open_another(None) for _ in range(5)]
    marks = [OwnershipMark("install-1", "team-a", f"docs-{number}") for number in range(5)]
    results = await asyncio.gather(
        *(handle.create_index(replace(definition(), mark=mark)) for handle, mark in zip(handles, marks, strict=True)),
        return_exceptions=True,
    )
    won = [result for result in results if isinstance(result, IndexDescription)]
    assert len(won) == 1, results
    assert all(isinstance(result, Conflict) for result in results if result is not won[0])
    seen = await store.describe_index("docs")
    assert (seen.incarnation, seen.mark) == (won[0].incarnation, won[0].mark)
    await store.upsert("docs", batch(2))
    assert await store.count("docs") == 2


async def test_many_indexes_are_made_at_once(store: Store) -> None:
    names = [f"docs{number}" for number in range(6)]
    await asyncio.gather(*(store.create_index(definition(name)) for name in names))
    await asyncio.gather(*(store.upsert(name, batch(at + 1)) for at, name in enumerate(names)))
    assert [index.name for index in await store.list_indexes()] == names
    assert [await store.count(name) for name in names] == [1, 2, 3, 4, 5, 6]


async def test_a_taken_name_is_a_conflict_and_nothing_is_touched(docs: Store) -> None:
    await docs.upsert("docs", batch(2))
    before = await docs.describe_index("docs")
    other = replace(definition("docs", "euclidean", 16), mark=OTHER)
    with pytest.raises(Conflict) as refused:
        await docs.create_index(other)
    assert refused.value.reason == "AlreadyExists"
    assert "docs" in refused.value.message
    after = await docs.describe_index("docs")
    assert replace(after, count=None) == replace(before, count=None)
    assert await docs.count("docs") == 2


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"dimension": 0}, "InvalidDimension"),
        ({"dimension": 70_000}, "InvalidDimension"),
        ({"metric": "hamming"}, "UnsupportedMetric"),
        ({"name": "no spaces/or slashes"}, "InvalidName"),
        ({"name": ""}, "InvalidName"),
        ({"settings": {"no.such.setting": 1}}, "UnsupportedSetting"),
        ({"fields": (FieldDefinition("where", "geo"),)}, "InvalidField"),
        ({"fields": (FieldDefinition("vw_source", "keyword"),)}, "InvalidField"),
    ],
)
async def test_a_bad_definition_is_terminal_and_makes_nothing(
    store: Store, wrong: dict[str, object], reason: str
) -> None:
    with pytest.raises(Terminal) as refused:
        await store.create_index(replace(definition(), **wrong))  # type: ignore[arg-type]
    assert refused.value.reason == reason
    assert await store.list_indexes() == []


async def test_an_index_without_mark_and_fields_is_possible(store: Store) -> None:
    made = await store.create_index(IndexDefinition("bare", 4, "dotproduct"))
    assert made.mark is None
    assert made.model_fingerprint is None
    assert not made.fields


async def test_deleting_removes_index_and_records(docs: Store) -> None:
    await docs.upsert("docs", batch(3))
    await docs.delete_index("docs")
    assert await docs.list_indexes() == []
    with pytest.raises(NotFound):
        await docs.describe_index("docs")
    await docs.create_index(definition())
    assert await docs.count("docs") == 0


async def test_an_incarnation_is_of_one_index_only(docs: Store, open_another: StoreFactory) -> None:
    first = (await docs.describe_index("docs")).incarnation
    await docs.upsert("docs", batch(1))
    await docs.set_mark("docs", OTHER, "fp-2")
    assert (await open_another(None).describe_index("docs")).incarnation == first
    await docs.delete_index("docs")
    second = (await docs.create_index(definition())).incarnation
    assert second != first
    assert (await docs.list_indexes())[0].incarnation == second


async def test_an_index_replaced_behind_the_back_is_seen(docs: Store, open_another: StoreFactory) -> None:
    await docs.upsert("docs", batch(2))
    first = (await docs.describe_index("docs")).incarnation
    stranger = open_another(None)
    await stranger.delete_index("docs")
    await stranger.create_index(definition("docs", dimension=16))
    seen = await docs.describe_index("docs")
    assert seen.incarnation != first
    assert seen.dimension == 16
    assert await docs.count("docs") == 0
    await docs.upsert("docs", batch(1, dimension=16))
    assert list(await stranger.fetch("docs", [record_id(0)])) == [record_id(0)]


async def test_what_is_remembered_of_an_index_refuses_nothing(docs: Store, open_another: StoreFactory) -> None:
    await docs.upsert("docs", batch(2))
    stranger = open_another(None)
    await stranger.delete_index("docs")
    await stranger.create_index(definition("docs", dimension=16))
    await docs.upsert("docs", batch(3, dimension=16))
    assert await stranger.count("docs") == 3
    await stranger.delete_index("docs")
    await stranger.create_index(definition("docs", dimension=4))
    assert await docs.query("docs", vectors(1, 4)[0], 3) == []


async def test_an_index_dropped_behind_the_back_is_not_found(docs: Store, open_another: StoreFactory) -> None:
    await docs.upsert("docs", batch(2))
    await open_another(None).delete_index("docs")
    with pytest.raises(NotFound):
        await docs.upsert("docs", batch(2))
    assert await docs.list_indexes() == []


@pytest.mark.needs("marks")
async def test_marks_are_changed_and_removed(docs: Store) -> None:
    await docs.set_mark("docs", OTHER, "fp-2")
    seen = await docs.describe_index("docs")
    assert (seen.mark, seen.model_fingerprint) == (OTHER, "fp-2")
    await docs.set_mark("docs", None, None)
    seen = await docs.describe_index("docs")
    assert (seen.mark, seen.model_fingerprint) == (None, None)
    assert (seen.dimension, seen.metric) == (DIMENSION, "cosine")
    assert (await docs.list_indexes())[0].mark is None


@pytest.mark.needs("marks")
async def test_mark_and_fingerprint_are_apart(docs: Store) -> None:
    await docs.set_mark("docs", None, "fp-3")
    seen = await docs.describe_index("docs")
    assert (seen.mark, seen.model_fingerprint) == (None, "fp-3")
    await docs.set_mark("docs", MARK, None)
    seen = await docs.describe_index("docs")
    assert (seen.mark, seen.model_fingerprint) == (MARK, None)


@pytest.mark.needs("marks")
async def test_a_mark_survives_writes_settings_and_another_connection(
    docs: Store, provider: Provider, open_another: StoreFactory
) -> None:
    await docs.upsert("docs", batch(3))
    for setting, (_, value) in provider.tuned.items():
        await docs.update_index("docs", {setting: value})
    await docs.update_index("docs", {}, [FieldDefinition("later", "keyword")])
    await docs.delete("docs", [record_id(0)])
    seen = await open_another(None).describe_index("docs")
    assert (seen.mark, seen.model_fingerprint) == (MARK, "fp-1")


async def test_settings_that_can_change_do(store: Store, provider: Provider) -> None:
    first = {setting: values[0] for setting, values in provider.tuned.items()}
    made = await store.create_index(replace(definition(), settings=first))
    assert {name: made.settings.get(name) for name in first} == first
    await store.upsert("docs", batch(20))
    incarnation = made.incarnation
    for setting, (_, value) in provider.tuned.items():
        assert store.capabilities.mutable_settings[setting] in {ChangeClass.SAFE, ChangeClass.COSTLY}
        await store.update_index("docs", {setting: value})
        assert (await store.describe_index("docs")).settings[setting] == value
    seen = await store.describe_index("docs")
    assert seen.incarnation == incarnation
    assert seen.settings.items() >= {name: values[1] for name, values in provider.tuned.items()}.items()
    assert len(await store.query("docs", vectors(1)[0], 5)) == 5
    assert await store.count("docs") == 20


async def test_settings_that_nobody_named_are_not_touched(store: Store, provider: Provider) -> None:
    first = {setting: values[0] for setting, values in provider.tuned.items()}
    await store.create_index(replace(definition(), settings=first))
    for setting, (_, value) in list(provider.tuned.items())[:1]:
        await store.update_index("docs", {setting: value})
        first[setting] = value
    assert (await store.describe_index("docs")).settings.items() >= first.items()


async def test_unknown_settings_are_refused(docs: Store) -> None:
    with pytest.raises(Terminal) as refused:
        await docs.update_index("docs", {"no.such.setting": 1})
    assert refused.value.reason == "UnsupportedSetting"
    assert "no.such.setting" in refused.value.message


async def test_fields_are_added(docs: Store) -> None:
    await docs.upsert("docs", batch(3, metadata=[{"later": "x"}, {"later": "y"}, {}]))
    await docs.update_index("docs", {}, [FieldDefinition("later", "keyword")])
    seen = await docs.describe_index("docs")
    if seen.fields is not None:
        assert set(seen.fields) == {*FIELDS, FieldDefinition("later", "keyword")}
    assert [record.id for record in await scrolled(docs, Eq("later", "x"))] == [record_id(0)]


async def test_updating_with_nothing_changes_nothing(docs: Store) -> None:
    before = await docs.describe_index("docs")
    await docs.update_index("docs", {})
    assert replace(await docs.describe_index("docs"), count=None) == replace(before, count=None)


ABSENT: dict[str, Callable[[Store], Awaitable[object]]] = {
    "describe_index": lambda store: store.describe_index("nope"),
    "update_index": lambda store: store.update_index("nope", {}, [FieldDefinition("later", "keyword")]),
    "set_mark": lambda store: store.set_mark("nope", MARK, None),
    "delete_index": lambda store: store.delete_index("nope"),
    "count": lambda store: store.count("nope"),
    "count_where": lambda store: store.count("nope", Eq("word", "a")),
    "upsert": lambda store: store.upsert("nope", batch(1)),
    "fetch": lambda store: store.fetch("nope", [record_id(0)]),
    "query": lambda store: store.query("nope", vectors(1)[0], 3),
    "delete": lambda store: store.delete("nope", [record_id(0)]),
    "delete_where": lambda store: store.delete_where("nope", Eq("word", "a")),
    "scroll": lambda store: scrolled(store, name="nope"),
    "odd name": lambda store: store.describe_index("../nope?x=1#y"),
}


@pytest.mark.parametrize("call", list(ABSENT))
async def test_what_does_not_exist_is_not_found(docs: Store, call: str) -> None:
    with pytest.raises(NotFound) as absent:
        await ABSENT[call](docs)
    assert "nope" in absent.value.message


async def test_closing_twice_is_fine(store: Store) -> None:
    await store.list_indexes()
    await store.close()
    await store.close()


async def test_opening_makes_no_request_and_closing_unused_is_fine(provider: Provider) -> None:
    from vectorwright.stores.registry import open_store

    async with open_store(provider.at("127.0.0.1", 1)) as store:
        assert store.capabilities.metrics
