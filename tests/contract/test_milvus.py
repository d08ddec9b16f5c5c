"""What is Milvus' own.

- names that Milvus does not take, and collections of others under the names that they have
- a namespace is a partition, and one id in two of them is two records
- declared fields in columns, with whatever a record holds in them; values that could end an expression
- a collection that is released, or whose rebuild broke off, is made whole by whoever needs it
- limits of Milvus that milvus-lite does not have
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.conftest import StoreFactory
from tests.contract.data import FIELDS, MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.providers.milvus import Milvus
from tests.support.milvus import RawMilvus, StartMilvus

from vectorwright.errors import BatchRejected, BatchTooLarge, Conflict, NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, IndexDefinition, Metadata, Store
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Range, matches
from vectorwright.stores.milvus.stubs import milvus_pb2, pairs, schema_pb2
from vectorwright.stores.registry import Connection, open_store

pytestmark = pytest.mark.server


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> Milvus:
    return Milvus(request)


@pytest.fixture
def raw(provider: Milvus) -> RawMilvus:
    return provider.raw


def names(raw: RawMilvus) -> list[str]:
    shown = raw.call("ShowCollections", milvus_pb2.ShowCollectionsRequest(), "ShowCollectionsResponse")
    return sorted(shown.collection_names)


def make_theirs(raw: RawMilvus, name: str, *, number: bool = True) -> None:
    """A collection as somebody else makes it: ids are numbers, and its columns are not ours."""
    fields = [
        schema_pb2.FieldSchema(
            name="pk",
            data_type=5 if number else 21,
            is_primary_key=True,
            type_params=pairs({} if number else {"max_length": "100"}),
        ),
        schema_pb2.FieldSchema(name="embedding", data_type=101, type_params=pairs({"dim": "4"})),
    ]
    schema = schema_pb2.CollectionSchema(name=name, fields=fields)
    raw.call(
        "CreateCollection",
        milvus_pb2.CreateCollectionRequest(collection_name=name, schema=schema.SerializeToString()),
    )
    index = pairs({"index_type": "HNSW", "metric_type": "L2", "params": '{"M": 8, "efConstruction": 40}'})
    raw.call(
        "CreateIndex",
        milvus_pb2.CreateIndexRequest(collection_name=name, field_name="embedding", extra_params=index),
    )


def properties(raw: RawMilvus, name: str) -> dict[str, str]:
    request = milvus_pb2.DescribeCollectionRequest(collection_name=name)
    answer = raw.call("DescribeCollection", request, "DescribeCollectionResponse")
    return {one.key: one.value for one in answer.properties}


async def test_names_are_written_as_milvus_takes_them(store: Store, raw: RawMilvus) -> None:
    for name in ("docs-g1", "a.b", "1st", "plain_name", "a__b"):
        await store.create_index(IndexDefinition(name, 4, "cosine"))
    assert names(raw) == ["_x31_st", "a_x2e_b", "a_x5f__x5f_b", "docs__g1", "plain_name"]
    assert [one.name for one in await store.list_indexes()] == ["1st", "a.b", "a__b", "docs-g1", "plain_name"]
    await store.set_alias("live-docs", "docs-g1")
    assert raw.call("ListAliases", milvus_pb2.ListAliasesRequest(), "ListAliasesResponse").aliases == ["live__docs"]
    assert (await store.describe_index("live-docs")).name == "docs-g1"


async def test_a_name_that_grows_too_long_is_refused(store: Store) -> None:
    with pytest.raises(Terminal) as refused:
        await store.create_index(IndexDefinition("a.b" * 60, 4, "cosine"))
    assert refused.value.reason == "InvalidName"
    assert await store.list_indexes() == []


@pytest.mark.parametrize("name", ["theirs", "_hidden", "Team__A", "a_x2d_b", "__"])
async def test_a_collection_of_others_is_told_as_it_is(store: Store, raw: RawMilvus, name: str) -> None:
    make_theirs(raw, name)
    (seen,) = await store.list_indexes()
    assert (seen.dimension, seen.metric, seen.mark, seen.fields) == (4, "euclidean", None, None)
    assert seen.settings["index_type"] == "HNSW"
    assert seen.settings["hnsw.m"] == 8
    assert await store.describe_index(seen.name) == seen
    for call in (
        store.set_mark(seen.name, MARK, None),
        store.count(seen.name),
        store.upsert(seen.name, batch(1, dimension=4)),
    ):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "UnsupportedCollection"
    assert (await store.describe_index(seen.name)).mark is None
    await store.delete_index(seen.name)
    assert names(raw) == []


async def test_what_a_user_keeps_on_a_collection_stays(docs: Store, raw: RawMilvus) -> None:
    request = milvus_pb2.AlterCollectionRequest(collection_name="docs", properties=pairs({"team": "search"}))
    raw.call("AlterCollection", request)
    await docs.set_mark("docs", None, None)
    await docs.update_index("docs", {"autoindex.level": 3}, [FieldDefinition("later", "keyword")])
    assert properties(raw, "docs")["team"] == "search"


async def test_an_alias_is_no_index_and_goes_with_its_index(docs: Store, raw: RawMilvus) -> None:
    await docs.set_alias("live", "docs")
    with pytest.raises(NotFound):
        await docs.delete_index("live")
    with pytest.raises(NotFound):
        await docs.set_mark("live", MARK, None)
    with pytest.raises(Conflict):
        await docs.create_index(definition("live"))
    with pytest.raises(Conflict):
        await docs.set_alias("docs", "docs")
    await docs.delete_index("docs")
    assert await docs.aliases() == {}
    assert names(raw) == []


async def test_a_namespace_is_a_partition_with_keys_of_its_own(
    docs: Store, provider: Milvus, open_another: StoreFactory, raw: RawMilvus
) -> None:
    tenant = open_another(replace(provider.connection(), namespace="team-a.b"))
    ids = [":colon", "plain", ":team-a.b:plain", 'q"u\\o\nte', "ü" * 100]
    for store, word in ((docs, "default"), (tenant, "tenant")):
        await store.upsert("docs", replace(batch(5, metadata=[{"word": word}] * 5), ids=ids))
    for store, word in ((docs, "default"), (tenant, "tenant")):
        found = await store.fetch("docs", ids)
        assert {one.id: one.metadata for one in found.values()} == {one: {"word": word} for one in ids}
        assert sorted(one.id for one in await scrolled(store, page=2)) == sorted(ids)
        assert {one.record.id for one in await store.query("docs", vectors(1)[0], 10)} == set(ids)
    shown = raw.call(
        "ShowPartitions", milvus_pb2.ShowPartitionsRequest(collection_name="docs"), "ShowPartitionsResponse"
    )
    assert sorted(shown.partition_names) == ["_default", "team__a_x2e_b"]
    await docs.delete_namespace("docs", "")
    assert (await docs.statistics("docs")).namespaces == {"": 0, "team-a.b": 5}


MIXED: list[Metadata] = [
    {"word": "a", "whole": 1, "real": 1.5, "flag": True},
    {"word": ["a", "b"], "whole": 2.0, "real": 3},
    {"word": 5, "whole": "a", "real": True, "flag": "yes"},
    {"word": True, "whole": 2.5, "real": "1.5", "flag": 1},
    {"word": "long", "whole": True, "real": 2**53 + 1, "flag": ["a"]},
    {"whole": 2**63 - 1, "real": 2.0**63},
    {"whole": -(2**63), "real": -(2.0**63)},
    {"whole": 2**53, "real": float(2**53)},
    {"whole": 2**53 + 1, "word": []},
    {},
]
ASKED: list[Filter] = [
    *(Eq(name, value) for name in ("word", "whole", "real", "flag") for value in ("a", 1, 2, 2.5, 1.5, True, 5)),
    *(Eq(name, value) for name in ("whole", "real", "other") for value in (2**53, 2**53 + 1, 2.0**53, 2**63 - 1)),
    *(Eq(name, value) for name in ("whole", "real", "other") for value in (-(2**63), 2**63, 2.0**63, 2**70, 10**400)),
    *(Range("whole", **{sign: bound}) for sign in ("gt", "gte", "lt", "lte") for bound in (2**53, 2.0**53, 2**53 + 1)),
    *(Range("real", **{sign: bound}) for sign in ("gt", "gte", "lt", "lte") for bound in (2**53 + 1, 1.5, 10**400)),
    *(Range("other", **{sign: bound}) for sign in ("gt", "lte") for bound in (-(2**63), 2**63 - 1, 2**53 + 1, -1.5)),
    In("whole", (-(2**63), 2, 2**53 + 1)),
    In("other", (-(2**63), 1, "a", True, 2**53 + 1)),
    *(Exists(name) for name in ("word", "flag", "other")),
    Range("word", gte="a", lt="b"),
]


async def test_fields_hold_whatever_a_record_has_in_them(store: Store) -> None:
    await store.create_index(definition())
    everything = MIXED + [{"other": value} for one in MIXED for value in one.values()]
    await store.upsert("docs", batch(len(everything), metadata=everything))
    found = await store.fetch("docs", [record_id(at) for at in range(len(everything))])
    for at, metadata in enumerate(everything):
        read = found[record_id(at)].metadata
        assert read == metadata
        assert {name: type(value) for name, value in read.items()} == {n: type(v) for n, v in metadata.items()}
    for where in [*ASKED, *(Not(one) for one in ASKED)]:
        expected = sorted(record_id(at) for at, metadata in enumerate(everything) if matches(where, metadata))
        assert sorted(one.id for one in await scrolled(store, where)) == expected, where


HOSTILE = [
    '"',
    "'",
    "\\",
    '\\"',
    '" or id != "',
    "' or true or '",
    '"] or ["',
    "line\nbreak\r\ttab",
    "\u2028\u0000\u001b",
    "漢字 🎉 \U00020000",
    "{x}",
    "%",
    "\\u0041",
    "//",
]


async def test_values_and_names_cannot_end_an_expression(store: Store) -> None:
    await store.create_index(definition())
    declared: list[Metadata] = [{"word": text} for text in HOSTILE]
    undeclared: list[Metadata] = [{"other": text} for text in HOSTILE]
    named: list[Metadata] = [{text: "x"} for text in HOSTILE]
    listed: list[Metadata] = [{"tags": [text, "b"]} for text in HOSTILE]
    everything = [*declared, *undeclared, *named, *listed]
    await store.upsert("docs", batch(len(everything), metadata=everything))
    for text in HOSTILE:
        for where in (Eq("word", text), Eq("other", text), Eq(text, "x"), Eq("tags", text), In("word", (text, "?"))):
            expected = [record_id(at) for at, one in enumerate(everything) if matches(where, one)]
            assert [one.id for one in await scrolled(store, where)] == expected, where
            assert await store.count("docs", Not(where)) == len(everything) - len(expected), where
    await store.delete_where("docs", And((Eq("word", '" or id != "'), Ne("word", "x"))))
    assert await store.count("docs") == len(everything) - 1


async def test_a_released_collection_of_ours_is_loaded_by_who_reads_it(docs: Store, raw: RawMilvus) -> None:
    await docs.upsert("docs", batch(5))
    raw.call("ReleaseCollection", milvus_pb2.ReleaseCollectionRequest(collection_name="docs"))
    assert (await docs.statistics("docs")).details["load_state"] == "Loaded"
    raw.call("ReleaseCollection", milvus_pb2.ReleaseCollectionRequest(collection_name="docs"))
    assert len(await docs.query("docs", vectors(1)[0], 3)) == 3


async def test_a_rebuild_that_broke_off_is_finished(docs: Store, raw: RawMilvus) -> None:
    await docs.update_index("docs", {"hnsw.m": 8})
    await docs.upsert("docs", batch(5))
    for _ in range(2):
        raw.call("ReleaseCollection", milvus_pb2.ReleaseCollectionRequest(collection_name="docs"))
        raw.call("DropIndex", milvus_pb2.DropIndexRequest(collection_name="docs", field_name="vector"))
        seen = await docs.describe_index("docs")
        assert (seen.metric, seen.unbuilt) == ("cosine", True)
        await docs.update_index("docs", {})
        built = await docs.describe_index("docs")
        assert (built.settings["index_type"], built.settings["hnsw.m"], built.unbuilt) == ("HNSW", 8, False)
        assert len(await docs.query("docs", vectors(1)[0], 3)) == 3


async def is_away(store: Store) -> bool:
    """Whether the server is not reached yet: the channel pauses between its tries."""
    try:
        await store.probe()
    except Retryable as error:
        return error.reason == "Unreachable"
    return False


async def test_data_and_marks_survive_a_restart(start_milvus: StartMilvus) -> None:
    server = start_milvus()
    async with open_store(Connection("milvus", {"url": server.url})) as store:
        await store.create_index(definition("docs-g1"))
        await store.set_alias("docs", "docs-g1")
        await store.upsert("docs", batch(5))
        before = await store.describe_index("docs")
        server.stop()
        with pytest.raises(Retryable) as away:
            await store.count("docs")
        assert away.value.reason in {"Unreachable", "Timeout"}  # gRPC may notice it by the deadline alone
        server.start()
        until = time.monotonic() + 60
        while await is_away(store):
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
        assert await store.count("docs") == 5
        assert await store.describe_index("docs") == before
        assert len(await store.query("docs", vectors(1)[0], 9)) == 5


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        ({}, {"hnsw.m": 8, "hnsw.ef_construction": 64}, "HNSW"),
        ({"hnsw.m": 8}, {"hnsw.m": 12}, "HNSW"),
        ({"hnsw.m": 8, "hnsw.ef": 50}, {"index_type": "FLAT"}, "FLAT"),
        ({"index_type": "FLAT"}, {"ivf.nlist": 4, "ivf.nprobe": 4}, "IVF_FLAT"),
        ({"ivf.nlist": 4}, {"index_type": "IVF_SQ8"}, "IVF_SQ8"),
    ],
)
async def test_types_of_index_are_made_and_changed(store: Store, first: Any, then: Any, kind: str) -> None:
    made = await store.create_index(replace(definition(), settings=first))
    assert made.settings.items() >= first.items()
    await store.upsert("docs", batch(60))
    await store.update_index("docs", then)
    seen = await store.describe_index("docs")
    assert seen.settings["index_type"] == kind
    assert seen.settings.items() >= then.items()
    assert (seen.mark, seen.incarnation) == (MARK, made.incarnation)
    assert len(await store.query("docs", vectors(1)[0], 5)) == 5
    assert await store.count("docs") == 60


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"hnsw.ef": 64}, "InvalidSetting"),
        ({"hnsw.m": 8, "ivf.nlist": 8}, "InvalidSetting"),
        ({"index_type": "HNSW", "ivf.nlist": 8}, "InvalidSetting"),
        ({"hnsw.m": 1}, "InvalidSetting"),
        ({"index_type": "GPU_CAGRA"}, "InvalidSetting"),
        ({"shards": 4}, "ImmutableSetting"),
        ({"consistency_level": "Eventually"}, "ImmutableSetting"),
    ],
)
async def test_settings_without_effect_or_sense_are_refused(docs: Store, settings: Any, reason: str) -> None:
    before = await docs.describe_index("docs")
    with pytest.raises(Terminal) as refused:
        await docs.update_index("docs", settings)
    assert refused.value.reason == reason
    assert await docs.describe_index("docs") == before


async def test_what_is_set_at_creation_is_told_back_and_may_be_said_again(store: Store) -> None:
    settings: Any = {"consistency_level": "Session", "shards": 2, "replicas": 1, "mmap": True, "hnsw.ef": 70}
    made = await store.create_index(replace(definition(), settings=settings))
    assert made.settings.items() >= settings.items()
    await store.update_index("docs", settings)
    assert await store.describe_index("docs") == made
    await store.update_index("docs", {"mmap": False})
    assert (await store.describe_index("docs")).settings["mmap"] is False
    assert await store.count("docs") == 0


async def test_limits_of_milvus_are_kept_where_the_server_has_none(docs: Store) -> None:
    long = replace(batch(2), texts=["fine", "ü" * 32_768])
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", long)
    assert record_id(1) in refused.value.message
    large: list[Metadata] = [{"word": "w" * 65_100}, {'"' * 200 + str(at): "x" for at in range(150)}]
    for metadata in large:
        with pytest.raises(BatchRejected) as refused:
            await docs.upsert("docs", batch(2, metadata=[{}, metadata]))
        assert record_id(1) in refused.value.message
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(2, metadata=[{}, {"vw_n": "seven"}]))
    assert "vw_n" in refused.value.message
    with pytest.raises(BatchTooLarge):
        await docs.upsert("docs", replace(batch(600), texts=["x" * 60_000] * 600))
    assert await docs.count("docs") == 0


async def test_more_fields_than_there_is_room_for_are_filtered_all_the_same(store: Store) -> None:
    fields = (*(FieldDefinition(f"f{at}", "integer") for at in range(100)), FieldDefinition("exists", "keyword"))
    await store.create_index(replace(definition(), fields=fields))
    written: list[Metadata] = [{f"f{at}": 1, "exists": f"e{at}"} for at in range(100)]
    await store.upsert("docs", batch(100, metadata=written))
    for at in (0, 52, 53, 99):
        assert [one.id for one in await scrolled(store, Eq(f"f{at}", 1))] == [record_id(at)]
        assert [one.id for one in await scrolled(store, Eq("exists", f"e{at}"))] == [record_id(at)]
    assert set((await store.describe_index("docs")).fields or ()) == set(fields)


def test_fields_of_the_suite_have_columns() -> None:
    from vectorwright.stores.milvus.schema import columns

    assert {one.name for one in FIELDS} <= set(columns(FIELDS, nullable=True))
    assert columns(FIELDS, nullable=False) == {}
