"""What is Pinecone's own about records, on the double of its service.

- metadata is exact however the service writes its numbers; what cannot be held is refused by its record
- requests stay within the limits of the service, and of servers before it
- reads wait for this session's own writes where that is asked for
- counts may be old, and say so
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from tests.contract.data import batch, definition, record_id, scrolled, vectors
from tests.contract.pinecone_project import connection, project_double
from tests.support.pinecone import PineconeDouble

from vectorwright.errors import BatchRejected, BatchTooLarge, Terminal
from vectorwright.stores.base import Metadata, Store
from vectorwright.stores.filters import And, Eq, Exists, In, Not, Range
from vectorwright.stores.registry import open_store

pytestmark = pytest.mark.server


@pytest.fixture
def double() -> Iterator[PineconeDouble]:
    with project_double() as double:
        yield double


@pytest.fixture
async def store(double: PineconeDouble) -> AsyncIterator[Store]:
    async with open_store(connection(double)) as store:
        yield store


@pytest.mark.parametrize("whole_numbers", [True, False])
async def test_metadata_is_exact_however_numbers_are_written(
    docs: Store, double: PineconeDouble, whole_numbers: bool
) -> None:
    double.knobs.whole_numbers = whole_numbers
    written: list[Metadata] = [
        {"a": 1, "b": 1.0, "c": -0.0, "d": 2**53, "e": float(2**53), "f": 2**53 + 1, "g": 1e18, "h": 10**18},
        {"a": -(2**63), "b": 1e300, "c": 0, "d": 0.1, "e": -7.0, "f": [], "g": ["x"], "h": True},
    ]
    await docs.upsert("docs", batch(2, metadata=written))
    found = await docs.fetch("docs", [record_id(0), record_id(1)])
    for at, expected in enumerate(written):
        read = found[record_id(at)].metadata
        assert {name: (type(value), str(value)) for name, value in read.items()} == {
            name: (type(value), str(value)) for name, value in expected.items()
        }


async def test_large_integers_are_filtered_by_exactly_or_not_at_all(docs: Store) -> None:
    numbers = [2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**53) - 1]
    await docs.upsert("docs", batch(5, metadata=[{"n": number} for number in numbers]))

    async def found(where: Eq | Range | In) -> list[int]:
        return sorted(int(str(record.metadata["n"])) for record in await scrolled(docs, where))

    assert await found(Eq("n", 2**53)) == [2**53]
    assert await found(Range("n", gt=2**53)) == [2**53 + 1, 2**63 - 1]
    assert await found(Range("n", lt=-(2**53))) == [-(2**53) - 1]
    assert await found(Range("n", lte=1e30)) == sorted(numbers)
    for where in (Eq("n", 2**53 + 1), Range("n", lt=2**63), In("n", (1, -(2**60))), Eq("n", 10**400)):
        with pytest.raises(Terminal) as refused:
            await found(where)
        assert refused.value.reason == "UnsupportedFilter"


async def test_an_empty_list_is_there(docs: Store) -> None:
    await docs.upsert("docs", batch(3, metadata=[{"tags": [], "others": []}, {"tags": ["a"]}, {}]))
    there = [record.id for record in await scrolled(docs, Exists("tags"))]
    assert sorted(there) == [record_id(0), record_id(1)]
    assert [record.id for record in await scrolled(docs, Not(Exists("tags")))] == [record_id(2)]
    assert await docs.count("docs", Not(Eq("tags", "a"))) == 2


@pytest.mark.parametrize(
    ("metadata", "text", "says"),
    [
        ({"$in": "x"}, None, "$in"),
        ({"vw_text": "x"}, None, "vw_text"),
        ({"word": "ü" * 15_000}, "y" * 15_000, "40960"),
    ],
)
async def test_what_cannot_be_held_is_refused_by_its_record(
    docs: Store, double: PineconeDouble, metadata: Metadata, text: str | None, says: str
) -> None:
    asked = len(double.requests)
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(2, metadata=[{}, metadata], texts=[None, text]))
    assert not isinstance(refused.value, BatchTooLarge)
    assert record_id(1) in refused.value.message
    assert says in refused.value.message
    assert len(double.requests) == asked


@pytest.mark.parametrize("odd", ["ü", "a\0b", "x" * 513])
async def test_ids_that_no_record_has(docs: Store, odd: str) -> None:
    with pytest.raises(BatchRejected):
        await docs.upsert("docs", replace(batch(1), ids=[odd]))
    assert await docs.fetch("docs", [odd]) == {}
    await docs.delete("docs", [odd])


async def test_long_ids_are_fetched_in_requests_of_a_bearable_length(docs: Store, double: PineconeDouble) -> None:
    ids = [f"{number:04}{'é'.encode().hex() * 100}/?&#" for number in range(150)]
    await docs.upsert("docs", replace(batch(150), ids=ids))
    assert list(await docs.fetch("docs", ids)) == ids
    assert max(len(request.path) for request in double.requests) < 8_000


async def test_a_request_that_is_too_large_is_never_sent(docs: Store, double: PineconeDouble) -> None:
    asked = len(double.requests)
    with pytest.raises(BatchTooLarge):
        await docs.upsert("docs", batch(100, texts=["x" * 30_000] * 100))
    assert len(double.requests) == asked


async def test_reads_wait_for_what_the_session_wrote_where_that_is_asked_for(
    docs: Store, double: PineconeDouble
) -> None:
    double.knobs.visible_after = 60.0
    await docs.upsert("docs", batch(3))
    assert await docs.query("docs", vectors(1)[0], 3) == []
    double.knobs.clock.advance(60)
    double.knobs.visible_after = 0.5
    async with open_store(connection(double, freshnessTimeoutSeconds=30)) as fresh:
        await fresh.upsert("docs", batch(5))
        assert len(await fresh.query("docs", vectors(1)[0], 10)) == 5
        await fresh.delete("docs", [record_id(0)])
        assert await fresh.count("docs") == 4
        await fresh.delete_where("docs", Eq("word", "w1"))
        assert sorted(record.id for record in await scrolled(fresh)) == [record_id(2), record_id(3)]
    double.knobs.visible_after = 600.0
    async with open_store(connection(double, freshnessTimeoutSeconds=1)) as fresh:
        await fresh.upsert("docs", batch(5))
        started = time.monotonic()
        assert len(await fresh.query("docs", vectors(1)[0], 10)) == 2
        assert time.monotonic() - started >= 1


async def test_many_matches_are_fetched_after_they_are_ranked(store: Store, double: PineconeDouble) -> None:
    await store.create_index(definition("docs", dimension=4))
    for start in (0, 1_000):
        await store.upsert("docs", batch(1_000, start=start, dimension=4))
    found = await store.query("docs", vectors(1, 4)[0], 1_500)
    assert len(found) == 1_500
    assert found[0].record.metadata
    assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)
    queries = [request for request in double.requests if request.path.endswith("/query")]
    assert b'"includeMetadata":false' in queries[-1].body


async def test_a_key_that_may_only_read_counts_page_by_page(docs: Store, double: PineconeDouble) -> None:
    await docs.upsert("docs", batch(250))
    before = len(double.requests)
    assert await docs.count("docs", Eq("word", "w0")) == 84
    assert len(double.requests) == before + 1
    double.issue("reader", "p1a2b3c", "DataPlaneViewer", "ControlPlaneViewer")
    async with open_store(connection(double, "reader")) as reader:
        assert await reader.count("docs", And((Eq("word", "w0"), Range("whole", lt=200)))) == 67
        assert await reader.count("docs", Range("whole", gte=10)) == 240
        for call in (
            reader.upsert("docs", batch(1)),
            reader.delete("docs", [record_id(0)]),
            reader.delete_index("docs"),
        ):
            with pytest.raises(Terminal) as refused:
                await call
            assert refused.value.reason == "AccessDenied"


async def test_counts_and_statistics_may_be_old_and_say_so(docs: Store, double: PineconeDouble) -> None:
    assert await docs.count("docs") == 0
    double.knobs.stale_counts = 30.0
    await docs.upsert("docs", batch(3))
    held = await docs.statistics("docs")
    assert (held.count, held.exact) == (0, False)
    assert not docs.capabilities.exact_counts
    assert not docs.capabilities.read_after_write


async def test_a_scroll_that_is_left_early_leaves_nothing_under_way(docs: Store, double: PineconeDouble) -> None:
    for start in range(0, 900, 300):
        await docs.upsert("docs", batch(300, start=start))
    before = asyncio.all_tasks()
    async with aclosing(docs.scroll("docs")) as pages:  # type: ignore[type-var]
        async for records in pages:
            assert len(records) == 100
            break
    assert asyncio.all_tasks() == before
    await asyncio.sleep(0.5)  # what was on its way arrives
    asked = len(double.requests)
    await asyncio.sleep(0.2)
    assert len(double.requests) == asked


async def test_pages_of_large_vectors_are_short(store: Store, double: PineconeDouble) -> None:
    await store.create_index(definition("docs", dimension=20_000))
    for number in range(3):
        await store.upsert("docs", batch(8, start=8 * number, dimension=20_000))
    pages = [page async for page in store.scroll("docs", vectors=True)]
    assert sorted(record.id for page in pages for record in page) == sorted(record_id(n) for n in range(24))
    assert max(map(len, pages)) == 20


async def test_reads_wait_for_what_another_handle_of_the_process_wrote(store: Store, double: PineconeDouble) -> None:
    await store.create_index(definition())
    double.knobs.visible_after = 0.4
    async with open_store(connection(double, namespace="team_a")) as writer:
        await writer.upsert("docs", batch(3))
    async with open_store(connection(double, namespace="team_a", freshnessTimeoutSeconds=30)) as reader:
        assert len(await reader.fetch("docs", [record_id(n) for n in range(3)])) == 3
    await store.delete_index("docs")
    await store.create_index(definition())
    async with open_store(connection(double, namespace="team_a", freshnessTimeoutSeconds=600)) as reader:
        # Another index under the same name numbers its writes anew: there is nothing to wait for.
        assert await asyncio.wait_for(reader.count("docs"), 30) == 0
