"""Aliases, in every store that has them; the others refuse them by name.

- an alias reads and writes like its index, and moves from one to another
- it moves in one step where the store says so: no reader finds it missing, or both, or half of one
- an alias is not an index: it is not listed as one, dropped as one, or made over one
"""

from __future__ import annotations

import asyncio

import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import batch, definition, record_id, scrolled, vectors

from vectorwright.errors import Conflict, NotFound, Terminal, VectorwrightError
from vectorwright.stores.base import Store

pytestmark = pytest.mark.server
needs_aliases = pytest.mark.needs("aliases")


@pytest.fixture
async def two(docs: Store) -> Store:
    """Two indexes: ``docs`` with one record, ``docs2`` with two."""
    await docs.create_index(definition("docs2"))
    await docs.upsert("docs", batch(1))
    await docs.upsert("docs2", batch(2, start=10))
    return docs


async def test_without_an_alias_there_is_none(docs: Store) -> None:
    assert await docs.aliases() == {}


@pytest.mark.needs(aliases=False)
async def test_a_store_without_aliases_refuses_them(docs: Store) -> None:
    with pytest.raises(Terminal) as refused:
        await docs.set_alias("live", "docs")
    assert refused.value.reason == "UnsupportedAlias"
    with pytest.raises(Terminal) as refused:
        await docs.delete_alias("live")
    assert refused.value.reason == "UnsupportedAlias"


@needs_aliases
async def test_an_alias_reads_and_writes_as_its_index(two: Store) -> None:
    await two.set_alias("live", "docs")
    await two.upsert("live", batch(3))
    assert await two.count("live") == await two.count("docs") == 3
    assert list(await two.fetch("live", [record_id(2)])) == [record_id(2)]
    assert (await two.query("live", vectors(3)[1], 1))[0].record.id == record_id(1)
    assert len(await scrolled(two, name="live")) == 3
    await two.delete("live", [record_id(0)])
    assert await two.count("docs") == 2


@needs_aliases
async def test_an_alias_moves(two: Store, open_another: StoreFactory) -> None:
    await two.set_alias("live", "docs")
    assert await two.aliases() == {"live": "docs"}
    await two.set_alias("live", "docs2")
    assert await two.aliases() == await open_another(None).aliases() == {"live": "docs2"}
    assert await two.count("live") == 2
    await two.set_alias("live", "docs2")
    assert await two.aliases() == {"live": "docs2"}


@needs_aliases
async def test_what_a_handle_remembers_of_an_alias_is_not_believed(two: Store, open_another: StoreFactory) -> None:
    await two.set_alias("live", "docs")
    reader = open_another(None)
    assert await reader.count("live") == 1
    assert len(await reader.query("live", vectors(1)[0], 5)) == 1
    await two.set_alias("live", "docs2")
    assert await reader.count("live") == 2
    assert len(await reader.query("live", vectors(1)[0], 5)) == 2
    await reader.upsert("live", batch(1, start=50))
    assert (await two.count("docs"), await two.count("docs2")) == (1, 3)


@needs_aliases
async def test_an_index_may_have_several_aliases(two: Store) -> None:
    for alias in ("one", "two", "three"):
        await two.set_alias(alias, "docs")
    assert await two.aliases() == {"one": "docs", "two": "docs", "three": "docs"}
    await two.delete_alias("two")
    assert await two.aliases() == {"one": "docs", "three": "docs"}
    assert await two.count("one") == 1


@needs_aliases
async def test_a_deleted_alias_is_gone_and_its_index_stays(two: Store) -> None:
    await two.set_alias("live", "docs")
    await two.delete_alias("live")
    assert await two.aliases() == {}
    assert await two.count("docs") == 1
    with pytest.raises(NotFound):
        await two.count("live")
    with pytest.raises(NotFound):
        await two.delete_alias("live")


@needs_aliases
async def test_an_alias_of_nothing_is_not_found(two: Store) -> None:
    with pytest.raises(NotFound):
        await two.set_alias("live", "nope")
    assert await two.aliases() == {}


@needs_aliases
async def test_an_alias_takes_no_name_of_an_index(two: Store) -> None:
    with pytest.raises(Conflict):
        await two.set_alias("docs2", "docs")
    assert await two.count("docs2") == 2


@needs_aliases
async def test_an_index_takes_no_name_of_an_alias(two: Store) -> None:
    await two.set_alias("live", "docs")
    with pytest.raises(Conflict) as refused:
        await two.create_index(definition("live"))
    assert refused.value.reason == "AlreadyExists"
    assert await two.count("live") == 1


@needs_aliases
async def test_an_alias_is_not_listed_as_an_index(two: Store) -> None:
    await two.set_alias("live", "docs")
    assert [index.name for index in await two.list_indexes()] == ["docs", "docs2"]


@needs_aliases
async def test_an_index_is_not_dropped_by_its_alias(two: Store) -> None:
    await two.set_alias("live", "docs")
    with pytest.raises(NotFound):
        await two.delete_index("live")
    assert await two.count("docs") == 1


@needs_aliases
async def test_an_index_is_dropped_with_its_aliases(two: Store) -> None:
    await two.set_alias("live", "docs")
    await two.set_alias("other", "docs2")
    await two.delete_index("docs")
    assert await two.aliases() == {"other": "docs2"}
    with pytest.raises(NotFound):
        await two.count("live")


@needs_aliases
async def test_an_odd_name_is_refused(two: Store) -> None:
    with pytest.raises(VectorwrightError) as refused:
        await two.set_alias("no spaces/or slashes", "docs")
    assert type(refused.value) is Terminal
    assert refused.value.reason == "InvalidName"


@pytest.mark.needs("aliases", "atomic_alias_swap")
async def test_an_alias_moves_in_one_step_under_load(two: Store, open_another: StoreFactory) -> None:
    await two.set_alias("live", "docs")
    done = asyncio.Event()

    async def read(reader: Store) -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(await reader.count("live"))
            counts.append(len(await reader.query("live", vectors(1)[0], 5)))
        return counts

    readers = [asyncio.create_task(read(open_another(None))) for _ in range(3)]
    for turn in range(20):
        await two.set_alias("live", "docs2" if turn % 2 == 0 else "docs")
        await asyncio.sleep(0.01)
    done.set()
    seen = [count for counts in await asyncio.gather(*readers) for count in counts]
    assert set(seen) <= {1, 2}
    assert len(seen) >= 20
