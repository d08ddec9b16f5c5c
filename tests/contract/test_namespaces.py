"""Statistics and namespaces, in every store.

- statistics tell what an index holds, in all its namespaces
- a store handle sees the records of its own namespace only, whatever it asks
- a namespace goes with its records, and the others stay
- where there are no namespaces, opening one is refused before any call
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import batch, definition, record_id, scrolled, vectors
from tests.contract.providers import Provider

from vectorwright.errors import NotFound, Terminal
from vectorwright.stores.base import Store
from vectorwright.stores.filters import Eq

pytestmark = pytest.mark.server


async def test_statistics_tell_how_many_records_there_are(docs: Store) -> None:
    empty = await docs.statistics("docs")
    assert (empty.count, empty.exact) == (0, docs.capabilities.exact_counts)
    await docs.upsert("docs", batch(7))
    held = await docs.statistics("docs")
    assert held.count == 7
    assert held.namespaces is None or sum(held.namespaces.values()) == 7
    assert held.storage_bytes is None or held.storage_bytes > 0


async def test_statistics_of_what_does_not_exist(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.statistics("nope")


@pytest.mark.needs(namespaces=False)
async def test_without_namespaces_none_can_be_opened_or_deleted(
    provider: Provider, docs: Store, open_another: StoreFactory
) -> None:
    with pytest.raises(Terminal) as refused:
        open_another(replace(provider.connection(), namespace="team-a"))
    assert refused.value.reason == "UnsupportedNamespace"
    assert "team-a" in refused.value.message
    with pytest.raises(Terminal) as refused:
        await docs.delete_namespace("docs", "team-a")
    assert refused.value.reason == "UnsupportedNamespace"


@pytest.mark.needs("namespaces")
@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 1000, "-a", "ü"])
async def test_a_name_that_no_namespace_can_have(provider: Provider, open_another: StoreFactory, name: str) -> None:
    if not name:
        assert (await open_another(replace(provider.connection(), namespace="")).probe()).version
        return
    with pytest.raises(Terminal) as refused:
        open_another(replace(provider.connection(), namespace=name))
    assert refused.value.reason == "UnsupportedNamespace"


@pytest.fixture
async def two(provider: Provider, store: Store, open_another: StoreFactory) -> tuple[Store, Store]:
    """Two namespaces of the index ``docs``, made for them where that is asked for at creation: records 0 to 4, 3 to 8.

    Records 3 and 4 are in both, with other words.
    """
    await store.create_index(replace(definition(), settings=provider.namespaced))
    one = open_another(replace(provider.connection(), namespace="team_a"))
    other = open_another(replace(provider.connection(), namespace="team_b"))
    await one.upsert("docs", batch(5))
    await other.upsert("docs", batch(6, start=3, seed=2, metadata=[{"word": "other"}] * 6))
    return one, other


@pytest.mark.needs("namespaces")
async def test_a_namespace_sees_its_own_records_only(two: tuple[Store, Store], store: Store) -> None:
    one, other = two
    assert (await one.count("docs"), await other.count("docs")) == (5, 6)
    assert sorted(record.id for record in await scrolled(one)) == sorted(record_id(n) for n in range(5))
    assert sorted(record.id for record in await scrolled(other)) == sorted(record_id(n) for n in range(3, 9))
    assert set(await one.fetch("docs", [record_id(n) for n in range(9)])) == {record_id(n) for n in range(5)}
    found = await one.query("docs", vectors(1)[0], 20)
    assert {match.record.id for match in found} == {record_id(n) for n in range(5)}
    assert await one.query("docs", vectors(1)[0], 20, Eq("word", "other")) == []
    held = await store.statistics("docs")
    assert held.count == 11
    assert held.namespaces is not None
    assert {name: count for name, count in held.namespaces.items() if count} == {"team_a": 5, "team_b": 6}


@pytest.mark.needs("namespaces")
async def test_deleting_in_a_namespace_leaves_the_others(two: tuple[Store, Store]) -> None:
    one, other = two
    await one.delete("docs", [record_id(n) for n in (3, 4, 5, 6)])
    assert (await one.count("docs"), await other.count("docs")) == (3, 6)
    await other.delete_where("docs", Eq("word", "w0"))
    assert (await one.count("docs"), await other.count("docs")) == (3, 6)
    await other.delete_where("docs", Eq("word", "other"))
    assert (await one.count("docs"), await other.count("docs")) == (3, 0)


@pytest.mark.needs("namespaces")
async def test_a_namespace_is_deleted_with_its_records(two: tuple[Store, Store], store: Store) -> None:
    one, other = two
    await store.delete_namespace("docs", "team_a")
    assert await other.count("docs") == 6
    assert "team_a" not in ((await store.statistics("docs")).namespaces or {})
    with pytest.raises(NotFound):
        await store.delete_namespace("docs", "team_a")
    await one.upsert("docs", batch(2))
    assert (await one.count("docs"), await other.count("docs")) == (2, 6)


@pytest.mark.needs("namespaces")
async def test_a_namespace_that_nobody_wrote_to_is_empty(
    two: tuple[Store, Store], provider: Provider, open_another: StoreFactory
) -> None:
    fresh = open_another(replace(provider.connection(), namespace="team_c"))
    assert await fresh.count("docs") == 0
    assert await scrolled(fresh) == []
    assert await fresh.query("docs", vectors(1)[0], 3) == []
    await fresh.delete("docs", [record_id(0)])
    await fresh.delete_where("docs", Eq("word", "other"))
    assert await two[0].count("docs") == 5
