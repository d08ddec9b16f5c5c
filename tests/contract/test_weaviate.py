"""What is Weaviate's own: names, collections of others, what other clients see, tenants, settings.

- collections that others made are listed, read, adopted and written to, and nothing of theirs is lost
- other clients see typed properties; what these cannot hold is still exact in the metadata
- a write never brings back an index that was dropped
- scrolls with a filter are whole and give each record once, however many there are
- tenants: named where there are some, refused where there are none
- settings are told back, and what a server refuses is said in its words
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from tests.contract.data import MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.fault_proxy import FaultProxy
from tests.contract.providers.weaviate import Weaviate
from tests.support.weaviate import API_KEY

from vectorwright.errors import BatchRejected, Conflict, NotFound, Terminal
from vectorwright.stores.base import FieldDefinition, Metadata, RecordBatch, Store
from vectorwright.stores.filters import And, Eq, Exists, Ne, Range
from vectorwright.stores.registry import open_store

pytestmark = pytest.mark.server


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> Weaviate:
    return Weaviate(request)


@pytest.fixture
async def api(provider: Weaviate) -> AsyncIterator[httpx.AsyncClient]:
    """Weaviate's REST API, as another client uses it."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with httpx.AsyncClient(
        base_url=f"{provider.origin()}/v1", headers=headers, timeout=30, trust_env=False
    ) as client:
        yield client


async def made_by_others(api: httpx.AsyncClient, name: str, **more: Any) -> None:
    """A collection with typed properties and a vector of the name ``default``, as Weaviate's own client makes it."""
    properties = [
        {"name": "title", "dataType": ["text"]},
        {"name": "pages", "dataType": ["int"]},
        {"name": "price", "dataType": ["number"]},
        {"name": "sold", "dataType": ["boolean"]},
        {"name": "at", "dataType": ["date"]},
        {"name": "tags", "dataType": ["text[]"]},
    ]
    vector = {"vectorConfig": {"default": {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"}}}
    body = {"class": name, "description": "Books of ours.", "properties": properties, **vector, **more}
    (
        await api.post("/schema", json={key: value for key, value in body.items() if value is not None})
    ).raise_for_status()


BOOK: Metadata = {
    "title": "Of Mice",
    "pages": 107,
    "price": 9.5,
    "sold": True,
    "at": "1937-02-06T00:00:00Z",
    "tags": ["a", "b"],
}


async def write_one(
    api: httpx.AsyncClient, name: str, number: int, *, named: bool = True, tenant: str | None = None
) -> None:
    vector = vectors(number + 1)[number].tolist()
    holder = {"vectors": {"default": vector}} if named else {"vector": vector}
    body = {"class": name, "id": record_id(number), "properties": BOOK, **holder}
    (await api.post("/objects", json=body if tenant is None else {**body, "tenant": tenant})).raise_for_status()


async def test_a_listing_is_one_request(provider: Weaviate, store: Store) -> None:
    for number in range(5):
        await store.create_index(definition(f"more-{number}"))
    with FaultProxy(provider.origin()) as proxy:
        async with open_store(provider.at(proxy.host, proxy.port, provider.grpc_port())) as behind:
            assert len(await behind.list_indexes()) == 5
        assert len(proxy.requests) == 1


async def test_names_are_those_that_weaviate_s_clients_use(store: Store, api: httpx.AsyncClient) -> None:
    await store.create_index(definition("docs-g1"))
    await store.set_alias("docs", "docs-g1")
    assert (await api.get("/aliases")).json()["aliases"] == [{"alias": "Docs", "class": "Docs__g1"}]
    with pytest.raises(Conflict) as taken:
        await store.set_alias("docs-g1", "docs")
    assert taken.value.reason == "AlreadyExists"
    with pytest.raises(Conflict):
        await store.create_index(definition("docs"))
    with pytest.raises(NotFound):
        await store.delete_index("docs")
    await store.delete_index("docs-g1")
    assert await store.aliases() == {}


async def test_names_that_differ_in_their_letters_only_are_a_conflict(docs: Store) -> None:
    with pytest.raises(Conflict) as taken:
        await docs.create_index(definition("dOCS"))
    assert taken.value.reason == "AlreadyExists"


async def test_a_collection_of_others_is_listed_and_read(store: Store, api: httpx.AsyncClient) -> None:
    await made_by_others(api, "MyBooks")
    await write_one(api, "MyBooks", 0)
    (listed,) = await store.list_indexes()
    assert listed == await store.describe_index(listed.name)
    assert (listed.name, listed.dimension, listed.metric, listed.mark) == ("myBooks", None, "cosine", None)
    assert listed.fields is not None
    assert {(one.name, one.type) for one in listed.fields} == {
        ("title", "keyword"),
        ("pages", "integer"),
        ("price", "float"),
        ("sold", "bool"),
        ("at", "datetime"),
        ("tags", "keyword"),
    }
    found = (await store.fetch("myBooks", [record_id(0)], vectors=True))[record_id(0)]
    assert found.metadata == BOOK
    np.testing.assert_allclose(found.vector, vectors(1)[0], atol=1e-6)  # type: ignore[arg-type]
    assert [record.metadata for record in await scrolled(store, name="myBooks")] == [BOOK]
    (match,) = await store.query("myBooks", vectors(1)[0], 3)
    assert match.record.metadata == BOOK
    assert match.score == pytest.approx(1.0, abs=1e-4)


async def test_a_collection_of_others_is_adopted_and_written_to(store: Store, api: httpx.AsyncClient) -> None:
    await made_by_others(api, "Books")
    await write_one(api, "Books", 0)
    before = await store.describe_index("books")
    await store.set_mark("books", MARK, "fp-1")
    after = await store.describe_index("books")
    assert (after.mark, after.model_fingerprint) == (MARK, "fp-1")
    assert replace(after, mark=None, model_fingerprint=None) == before
    assert (await api.get("/schema/Books")).json()["description"].startswith("Books of ours.\n")
    ours: Metadata = {"title": "Ours", "vw_source": "ns/job", "vw_n": 3, "more": 1.0}
    await store.upsert("books", batch(1, start=1, metadata=[ours]))
    assert {one.id: one.metadata for one in await scrolled(store, name="books")} == {
        record_id(0): BOOK,
        record_id(1): ours,
    }
    assert await store.count("books", And((Eq("vw_source", "ns/job"), Range("vw_n", gte=3)))) == 1
    assert await store.count("books", Ne("vw_source", "ns/job")) == 1
    for where in (Eq("title", "Ours"), Exists("title"), Range("pages", gt=1)):
        with pytest.raises(Terminal) as refused:
            await store.count("books", where)
        assert refused.value.reason == "UnsupportedFilter"
    await store.set_mark("books", None, None)
    assert (await api.get("/schema/Books")).json()["description"] == "Books of ours."
    await store.delete_where("books", And(()))
    assert await store.count("books") == 0


async def test_a_collection_of_the_older_form_is_read_and_written_to(store: Store, api: httpx.AsyncClient) -> None:
    await made_by_others(
        api,
        "Old",
        vectorConfig=None,
        vectorizer="none",
        vectorIndexType="hnsw",
        vectorIndexConfig={"distance": "l2-squared", "ef": 70},
    )
    await write_one(api, "Old", 0, named=False)
    described = await store.describe_index("old")
    assert (described.metric, described.settings["hnsw.ef"]) == ("euclidean", 70)
    await store.upsert("old", batch(2, start=1, metadata=[{"title": "new"}, {}]))
    found = await store.query("old", vectors(1)[0], 2, vectors=True)
    assert [match.score for match in found] == pytest.approx([0.0, 0.0], abs=1e-3)
    np.testing.assert_allclose(found[0].record.vector, vectors(1)[0], atol=1e-6)  # type: ignore[arg-type]
    await store.update_index("old", {"hnsw.ef": 90})
    assert (await store.describe_index("old")).settings["hnsw.ef"] == 90


async def test_records_that_do_not_fit_what_is_there_are_named(store: Store, api: httpx.AsyncClient) -> None:
    await made_by_others(api, "Books")
    await write_one(api, "Books", 0)
    with pytest.raises(BatchRejected) as refused:
        await store.upsert("books", batch(2, start=5, dimension=9))
    assert refused.value.reason == "DimensionMismatch"
    assert record_id(5) in refused.value.message


async def test_a_collection_with_several_vectors_is_listed_and_left_alone(store: Store, api: httpx.AsyncClient) -> None:
    one = {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw"}
    await made_by_others(api, "Two", vectorConfig={"a": one, "b": one})
    described = await store.describe_index("two")
    assert (described.dimension, described.metric) == (None, None)
    with pytest.raises(Terminal, match="several vectors"):
        await store.upsert("two", batch(1))
    with pytest.raises(Terminal, match="several vectors"):
        await store.query("two", vectors(1)[0], 3)


async def test_other_clients_see_typed_properties(docs: Store, api: httpx.AsyncClient) -> None:
    fitting: Metadata = {"word": " two words ", "whole": 7, "real": 2.0, "flag": True, "more": "x"}
    other: Metadata = {"word": ["a", "b"], "whole": 1.5, "real": "text", "flag": 1}
    large: Metadata = {"whole": 2**53 + 1, "real": 3}
    await docs.upsert("docs", batch(3, metadata=[fitting, other, large]))

    async def seen(number: int) -> dict[str, Any]:
        found = (await api.get(f"/objects/Docs/{record_id(number)}")).json()["properties"]
        return {name: value for name, value in found.items() if not name.startswith("vw_")}

    assert await seen(0) == {"word": " two words ", "whole": 7, "real": 2, "flag": True}
    assert await seen(1) == {}
    assert await seen(2) == {"real": 3}
    records = await docs.fetch("docs", [record_id(number) for number in range(3)])
    assert [records[record_id(number)].metadata for number in range(3)] == [fitting, other, large]
    assert await docs.count("docs", Range("whole", gt=2**53)) == 1
    assert await docs.count("docs", Range("whole", gte=1.5, lt=7)) == 1
    assert await docs.count("docs", Eq("word", " two words ")) == 1
    assert await docs.count("docs", Eq("word", "two words")) == 0


async def test_times_are_dates_to_other_clients_where_they_are_times(store: Store, api: httpx.AsyncClient) -> None:
    await store.create_index(replace(definition(), fields=(FieldDefinition("at", "datetime"),)))
    times = ["2024-05-01T00:00:00Z", "2024-13-01T00:00:00Z", "yesterday"]
    await store.upsert("docs", batch(3, metadata=[{"at": time} for time in times]))
    found = [(await api.get(f"/objects/Docs/{record_id(number)}")).json() for number in range(3)]
    seen = [one["properties"].get("at") for one in found]
    assert seen == ["2024-05-01T00:00:00Z", None, None]
    assert await store.count("docs", Range("at", lt="2024-12-31T00:00:00Z")) == 1


@pytest.mark.parametrize("name", ["id", "Word", "woRd", "vw_text", "wo_rd"])
async def test_fields_that_weaviate_cannot_have_are_filtered_all_the_same(store: Store, name: str) -> None:
    fields = (FieldDefinition(name, "integer"), FieldDefinition("word", "keyword"))
    await store.create_index(replace(definition(), fields=fields))
    await store.upsert("docs", batch(3, metadata=[{name: number, "word": "w"} for number in range(3)]))
    assert await store.count("docs", Range(name, gte=1)) == 2
    assert await store.count("docs", Eq(name, 1)) == 1
    assert await store.count("docs", Eq("word", "w")) == 3


async def test_a_field_that_is_declared_later_is_never_half_answered(docs: Store) -> None:
    await docs.upsert("docs", batch(2, metadata=[{"later": 1}, {"later": 2}]))
    await docs.update_index("docs", {}, [FieldDefinition("later", "integer")])
    await docs.upsert("docs", batch(1, start=2, metadata=[{"later": 3}]))
    assert await docs.count("docs", Eq("later", 1)) == 1
    assert await docs.count("docs", Eq("later", 3)) == 1
    with pytest.raises(Terminal) as refused:
        await docs.count("docs", Range("later", gte=1))
    assert refused.value.reason == "UnsupportedFilter"
    with pytest.raises(Terminal) as refused:
        await docs.update_index("docs", {}, [FieldDefinition("later", "keyword")])
    assert refused.value.reason == "InvalidField"


async def test_a_write_does_not_bring_back_what_was_dropped(docs: Store, api: httpx.AsyncClient) -> None:
    await docs.upsert("docs", batch(2))
    (await api.delete("/schema/Docs")).raise_for_status()
    for attempt in (docs.upsert("docs", batch(2)), docs.count("docs"), docs.fetch("docs", [record_id(0)])):
        with pytest.raises(NotFound):
            await attempt
    assert (await api.get("/schema")).json()["classes"] == []


@pytest.mark.parametrize(
    "name", ["00000000-0000-0000-0000-000000000000", "A" * 8 + "-0000-0000-0000-000000000001", "7"]
)
async def test_ids_are_uuids_in_small_letters(docs: Store, name: str) -> None:
    with pytest.raises(BatchRejected):
        await docs.upsert("docs", replace(batch(1), ids=[name]))
    assert await docs.fetch("docs", [name]) == {}
    await docs.delete("docs", [name])


@pytest.fixture
async def many(store: Store) -> tuple[Store, list[str]]:
    """12,000 records with random ids, 9,000 of which are even; more than a server gives or deletes at once."""
    await store.create_index(definition("docs", dimension=4))
    random = np.random.default_rng(3)
    ids = [str(uuid.UUID(int=int.from_bytes(random.bytes(16)), version=4)) for _ in range(12_000)]
    metadata: list[Metadata] = [{"word": "odd" if number % 4 == 3 else "even"} for number in range(len(ids))]
    await write(store, ids, metadata)
    return store, ids


async def write(store: Store, ids: list[str], metadata: list[Metadata]) -> None:
    """Records, in batches that the store takes."""
    rows = RecordBatch(ids, vectors(len(ids), 4), metadata, [None] * len(ids))
    for start in range(0, len(rows), 1_000):
        await store.upsert("docs", rows.part(start, start + 1_000))


async def test_more_than_a_server_gives_or_deletes_at_once(many: tuple[Store, list[str]]) -> None:
    store, ids = many
    even = sorted(one for number, one in enumerate(ids) if number % 4 != 3)
    found = [record.id for record in await scrolled(store, Eq("word", "even"), page=700)]
    assert sorted(found) == even
    everything = [record.id for record in await scrolled(store, Exists("word"), page=5_000)]
    assert sorted(everything) == sorted(ids)
    seen: list[str] = []
    async for records in store.scroll("docs", Ne("word", "odd"), metadata=False, page=500):
        seen += [record.id for record in records]
        await store.delete("docs", [record.id for record in records])
    assert sorted(seen) == even
    assert await store.count("docs") == 3_000
    await write(store, even, [{}] * len(even))
    await store.delete_where("docs", And(()))
    assert await store.count("docs") == 0


async def test_a_filtered_scroll_divides_ids_that_are_close_together(store: Store) -> None:
    await store.create_index(definition("docs", dimension=4))
    await write(store, [record_id(number) for number in range(3_500)], [{"whole": number} for number in range(3_500)])
    found = [record.id for record in await scrolled(store, Range("whole", gte=100), page=300)]
    assert sorted(found) == sorted(record_id(number) for number in range(100, 3_500))


async def test_long_texts_are_filtered_exactly_also_after_a_restart(docs: Store, provider: Weaviate) -> None:
    words = ["w" * 70_000, "w" * 70_000 + "x", "w" * 300]
    await docs.upsert(
        "docs", batch(3, metadata=[{"word": word} for word in words], texts=["a\0b", None, "t" * 200_000])
    )
    provider.restart()
    assert [record.id for record in await scrolled(docs, Eq("word", words[1]))] == [record_id(1)]
    assert await docs.count("docs", Range("word", gt=words[2], lte=words[1])) == 2
    assert await docs.count("docs", Range("word", gt=words[0])) == 1
    found = await docs.fetch("docs", [record_id(number) for number in range(3)])
    assert [found[record_id(number)].metadata for number in range(3)] == [{"word": word} for word in words]
    assert [found[record_id(number)].text for number in range(3)] == ["a\0b", None, "t" * 200_000]
