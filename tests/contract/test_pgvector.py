"""What is PostgreSQL's own.

- comments that people wrote, tables that are not ours, names that are no SQL
- the indexes that the statements are meant to use are used, for vectors, halves and fields
- a rebuild leaves one index and takes away what a broken one left
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from tests.contract.data import FIELDS, MARK, batch, definition, record_id, scrolled, vectors
from tests.contract.providers.pgvector import Pgvector

from vectorwright.errors import BatchRejected, NotFound, Terminal
from vectorwright.stores.base import FieldDefinition, IndexDefinition, Metadata, Store
from vectorwright.stores.filters import And, Eq, Filter, Range
from vectorwright.stores.pgvector import tables
from vectorwright.stores.pgvector.filters import condition
from vectorwright.stores.pgvector.store import PgvectorStore

pytestmark = pytest.mark.server


@pytest.fixture
def provider(request: pytest.FixtureRequest) -> Pgvector:
    return Pgvector(request)


@pytest.fixture
def raw(provider: Pgvector) -> Iterator[psycopg.Connection[Any]]:
    """A superuser in the same schema."""
    with provider.server.connect() as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [f'"{provider.schema}", public'])
        yield connection


def comment_of(raw: psycopg.Connection[Any], table: str) -> str | None:
    row = raw.execute("SELECT obj_description(%s::regclass, 'pg_class')", [table]).fetchone()
    assert row is not None
    comment: str | None = row[0]
    return comment


async def build(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the vector index of ``docs``, as if its few rows were enough."""
    with monkeypatch.context() as patch:
        patch.setattr(tables, "ENOUGH", 1)
        await store.update_index("docs", {})


def indexes_of(raw: psycopg.Connection[Any], table: str) -> list[tuple[str, bool]]:
    return raw.execute(
        "SELECT i.relname, x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
        "JOIN pg_am m ON m.oid = i.relam WHERE x.indrelid = %s::regclass AND m.amname IN ('hnsw', 'ivfflat')",
        [table],
    ).fetchall()


async def test_a_comment_of_a_person_stays_and_comes_back(docs: Store, raw: psycopg.Connection[Any]) -> None:
    raw.execute(
        "CREATE TABLE theirs (id text PRIMARY KEY, embedding vector(8) NOT NULL, text text, metadata jsonb NOT NULL)"
    )
    theirs = "Ask Größe's team; it's 100% theirs: {\"a\": 1}"
    raw.execute(sql.SQL("COMMENT ON TABLE theirs IS {}").format(sql.Literal(theirs)))
    first = (await docs.describe_index("theirs")).incarnation
    await docs.set_mark("theirs", MARK, "fp")
    seen = await docs.describe_index("theirs")
    assert (seen.mark, seen.model_fingerprint, seen.incarnation) == (MARK, "fp", first)
    assert "Größe" in (comment_of(raw, "theirs") or "")
    await docs.set_mark("theirs", None, None)
    assert comment_of(raw, "theirs") == theirs


async def test_tables_of_others_are_listed_and_tables_without_vectors_are_not(
    docs: Store, raw: psycopg.Connection[Any]
) -> None:
    raw.execute("CREATE TABLE users (id text PRIMARY KEY, metadata jsonb)")
    raw.execute("CREATE TABLE two (id int, a vector(3), b vector(3))")
    raw.execute("CREATE TABLE items (key bigint, vec vector(3))")
    raw.execute("CREATE INDEX ON items USING hnsw (vec vector_ip_ops)")
    raw.execute("CREATE TABLE loose (id text, vec vector)")
    listed = {index.name: index for index in await docs.list_indexes()}
    assert sorted(listed) == ["docs", "items", "loose"]
    items = listed["items"]
    assert (items.dimension, items.metric, items.mark, items.fields) == (3, "dotproduct", None, None)
    assert items.settings == {"hnsw.m": 16, "hnsw.ef_construction": 64}
    assert (listed["loose"].dimension, listed["loose"].metric) == (None, None)
    for call in (docs.delete_index, docs.describe_index, docs.count):
        with pytest.raises(NotFound):
            await call("users")
    assert raw.execute("SELECT count(*) FROM users").fetchone() == (0,)


async def test_a_listing_is_one_statement(docs: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        await docs.create_index(definition(f"more-{number}"))
    execute = psycopg.AsyncConnection.execute
    statements: list[object] = []

    async def counted(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        statements.append(query)
        return await execute(connection, query, *arguments, **options)

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", counted)
    assert len(await docs.list_indexes()) == 5
    assert len(statements) == 1


async def test_a_table_of_another_layout_cannot_be_taken_over(docs: Store, raw: psycopg.Connection[Any]) -> None:
    raw.execute("CREATE TABLE items (key bigint, vec vector(3))")
    with pytest.raises(Terminal) as refused:
        await docs.set_mark("items", MARK, None)
    assert refused.value.reason == "UnsupportedTable"
    assert comment_of(raw, "items") is None


async def test_a_name_that_postgres_would_cut_is_not_found(docs: Store, raw: psycopg.Connection[Any]) -> None:
    name = "n" * 63
    await docs.create_index(definition(name))
    with pytest.raises(NotFound):
        await docs.count(name + "n")
    assert await docs.count(name) == 0
    assert raw.execute("SELECT count(*) FROM pg_indexes WHERE tablename = %s", [name]).fetchone() == (7,)


async def test_names_and_values_are_never_sql(docs: Store, raw: psycopg.Connection[Any]) -> None:
    odd = "'; DROP TABLE docs; -- \" $1 %s {x}"
    await docs.upsert("docs", batch(2, metadata=[{odd: odd}, {}], texts=[odd, None]))
    assert [record.id for record in await scrolled(docs, Eq(odd, odd))] == [record_id(0)]
    assert [record.id for record in await scrolled(docs, And((Range(odd, gte=odd), Eq(odd, odd))))] == [record_id(0)]
    assert list(await docs.fetch("docs", [odd])) == []
    with pytest.raises(NotFound):
        await docs.count('docs"; DROP TABLE docs; --')
    assert await docs.count("docs") == 2


async def plan_of(raw: psycopg.Connection[Any], statement: sql.Composable) -> str:
    raw.execute("ANALYZE docs")
    raw.execute("SET enable_seqscan = off")
    return "\n".join(row[0] for row in raw.execute(sql.SQL("EXPLAIN {}").format(statement)).fetchall())


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (Eq("vw_source", "ns/job"), "docs_vw_source"),
        (Eq("vw_doc", "a.md"), "docs_vw_doc"),
        (Eq("word", "w1"), "docs_word"),
        (Eq("whole", 7), "docs_whole"),
        (Range("whole", gte=3, lt=5), "docs_whole"),
        (Eq("flag", True), "docs_flag"),
        (Range("real", gt=0.5), "docs_real"),
        (Range("seen", gte="2024-01-01T00:00:00Z"), "docs_seen"),
    ],
)
async def test_filters_use_the_indexes_of_fields(
    store: Store, raw: psycopg.Connection[Any], where: Filter, index: str
) -> None:
    await store.create_index(replace(definition(), fields=(*FIELDS, FieldDefinition("seen", "datetime"))))
    values: list[Metadata] = [
        {
            "vw_source": "ns/job",
            "vw_doc": f"{n}.md",
            "word": f"w{n}",
            "whole": n,
            "flag": n % 2 == 0,
            "real": n / 7,
            "seen": f"202{n % 9}-01-01T00:00:00Z",
        }
        for n in range(300)
    ]
    await store.upsert("docs", batch(300, metadata=values))
    plan = await plan_of(raw, sql.SQL("SELECT id FROM docs WHERE {}").format(condition(where)))
    assert index in plan


@pytest.mark.parametrize(
    ("dimension", "settings", "expected"),
    [
        (16, {}, "hnsw"),
        (16, {"hnsw.m": 8}, "hnsw"),
        (16, {"ivfflat.lists": 4}, "ivfflat"),
        (3_000, {}, "hnsw"),
        (5_000, {}, None),
    ],
)
async def test_searches_use_the_index_of_vectors(
    store: Store,
    raw: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    dimension: int,
    settings: dict[str, int],
    expected: str | None,
) -> None:
    made = await store.create_index(IndexDefinition("docs", dimension, "cosine", settings=settings))
    assert made.settings.items() >= settings.items()
    written = batch(200, dimension=dimension)
    await store.upsert("docs", written)
    await build(store, monkeypatch)
    assert isinstance(store, PgvectorStore)
    async with store._on("docs") as (link, table):
        nearest = store._nearest(link, table, "cosine", dimension, 5, sql.SQL("true"), vectors=False)
    asked = written.vectors[7]
    literal = sql.SQL("{}::vector").format(sql.Literal(str(asked.tolist())))
    statement = sql.SQL(nearest.as_string().replace("$1", literal.as_string()))
    plan = await plan_of(raw, statement)
    if expected is None:
        assert "hnsw" not in plan
        assert not indexes_of(raw, "docs")
    else:
        assert any(name in plan for name, _ in indexes_of(raw, "docs"))
        assert all(expected in name for name, _ in indexes_of(raw, "docs"))
    matches = await store.query("docs", asked, 5)
    scores = written.vectors @ asked
    assert [match.record.id for match in matches] == [record_id(int(at)) for at in np.argsort(-scores)[:5]]


async def test_halves_that_overflow_are_refused_records(store: Store) -> None:
    await store.create_index(IndexDefinition("docs", 3_000, "euclidean"))
    large = replace(batch(1, dimension=3_000), vectors=np.full((1, 3_000), 1e6, np.float32))
    with pytest.raises(BatchRejected):
        await store.upsert("docs", large)


async def test_settings_of_two_methods_or_no_numbers_are_refused(store: Store) -> None:
    for settings in ({"hnsw.m": 8, "ivfflat.lists": 4}, {"hnsw.m": "many"}, {"hnsw.m": True}):
        with pytest.raises(Terminal) as refused:
            await store.create_index(replace(definition(), settings=settings))
        assert refused.value.reason == "InvalidSetting"
    for wrong in ({"hnsw.m": 1_000}, {"hnsw.m": 64, "hnsw.ef_construction": 100}, {"ivfflat.lists": 0}):
        with pytest.raises(Terminal) as refused:
            await store.create_index(replace(definition(), settings=wrong))
        assert refused.value.reason == "InvalidSetting"
    with pytest.raises(Terminal):
        await store.create_index(replace(definition(dimension=5_000), settings={"hnsw.m": 8}))
    assert await store.list_indexes() == []


async def test_a_vector_index_is_built_when_there_are_rows_enough(docs: Store, raw: psycopg.Connection[Any]) -> None:
    settings = {"hnsw.m": 16, "hnsw.ef_construction": 64}
    await docs.upsert("docs", batch(100))
    few = await docs.describe_index("docs")
    assert (few.settings, few.unbuilt) == (settings, False)
    await docs.update_index("docs", {})
    assert indexes_of(raw, "docs") == []
    raw.execute(
        "INSERT INTO docs SELECT 'g' || n, ARRAY[n, 2, 3, 4, 5, 6, 7, 8]::real[]::vector, NULL, '{}' "
        "FROM generate_series(101, 10000) AS n"
    )
    many = await docs.describe_index("docs")
    assert (many.settings, many.unbuilt, many.count) == (settings, True, 10_000)
    await docs.update_index("docs", {})
    ((_, valid),) = indexes_of(raw, "docs")
    assert valid
    built = await docs.describe_index("docs")
    assert (built.settings, built.unbuilt, built.incarnation) == (settings, False, many.incarnation)
    # Whoever drops it by hand gets it back.
    raw.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(indexes_of(raw, "docs")[0][0])))
    assert (await docs.describe_index("docs")).unbuilt


async def test_settings_of_an_index_that_is_not_built_yet_are_kept_for_it(
    docs: Store, raw: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await docs.update_index("docs", {"hnsw.m": 8})
    assert indexes_of(raw, "docs") == []
    assert (await docs.describe_index("docs")).settings == {"hnsw.m": 8, "hnsw.ef_construction": 64}
    await docs.update_index("docs", {"ivfflat.lists": 3})
    await docs.upsert("docs", batch(20))
    await build(docs, monkeypatch)
    ((name, _),) = indexes_of(raw, "docs")
    assert "ivfflat" in name
    assert (await docs.describe_index("docs")).settings == {"ivfflat.lists": 3}


async def test_a_rebuild_leaves_one_index_and_takes_broken_ones_away(
    docs: Store, raw: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await docs.upsert("docs", batch(50))
    await build(docs, monkeypatch)
    raw.execute("CREATE INDEX broken ON docs USING hnsw (embedding vector_cosine_ops)")
    raw.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass")
    before = indexes_of(raw, "docs")
    assert len(before) == 2
    await docs.update_index("docs", {"hnsw.m": 12})
    ((name, valid),) = indexes_of(raw, "docs")
    assert valid
    assert name not in {old for old, _ in before}
    assert (await docs.describe_index("docs")).settings == {"hnsw.m": 12, "hnsw.ef_construction": 64}
    await docs.update_index("docs", {"hnsw.m": 12})
    assert indexes_of(raw, "docs") == [(name, True)]
    await docs.update_index("docs", {"ivfflat.lists": 3})
    assert (await docs.describe_index("docs")).settings == {"ivfflat.lists": 3}
    assert len(await docs.query("docs", vectors(1)[0], 50)) == 50


async def test_a_field_that_was_declared_otherwise_is_refused(docs: Store) -> None:
    with pytest.raises(Terminal) as refused:
        await docs.update_index("docs", {}, [FieldDefinition("word", "integer")])
    assert refused.value.reason == "InvalidField"


async def test_rewriting_what_is_there_writes_nothing(docs: Store, raw: psycopg.Connection[Any]) -> None:
    await docs.upsert("docs", batch(20))
    where = "SELECT ctid::text, id FROM docs ORDER BY id"
    before = raw.execute(where).fetchall()
    await docs.upsert("docs", batch(20))
    assert raw.execute(where).fetchall() == before
    await docs.upsert("docs", batch(1, metadata=[{"whole": 0.0, "word": "w0"}]))
    changed = raw.execute(where).fetchall()
    assert [old[1] for old, new in zip(before, changed, strict=True) if old != new] == [record_id(0)]


@pytest.mark.parametrize("metadata", [{"word": "a\0b"}, {"a\0b": "x"}])
async def test_nul_is_a_refused_record(docs: Store, metadata: dict[str, Any]) -> None:
    with pytest.raises(BatchRejected):
        await docs.upsert("docs", batch(1, metadata=[metadata]))
    with pytest.raises(BatchRejected):
        await docs.upsert("docs", batch(1, texts=["a\0b"]))
    assert await docs.count("docs", Eq("word", "a\0b")) == 0
    assert await docs.fetch("docs", ["a\0b", "\ud800"]) == {}
    await docs.delete("docs", ["a\0b"])


async def test_a_value_too_long_for_its_index_is_a_refused_record(docs: Store) -> None:
    noise = "".join(map(chr, np.random.default_rng(1).integers(0x4E00, 0x9FFF, 3_000)))
    with pytest.raises(BatchRejected):
        await docs.upsert("docs", batch(1, metadata=[{"whole": noise}]))
    await docs.upsert("docs", batch(1, metadata=[{"vw_doc": noise, "word": noise}]))
    assert await docs.count("docs", And((Eq("vw_doc", noise), Eq("word", noise)))) == 1


async def test_describing_counts_what_is_small(docs: Store, raw: psycopg.Connection[Any]) -> None:
    first = await docs.describe_index("docs")
    assert (first.count, first.count_exact) == (0, True)
    (listed,) = await docs.list_indexes()
    assert (listed.count, listed.count_exact) == (0, True)
    await docs.upsert("docs", batch(9))
    seen = await docs.describe_index("docs")
    assert (seen.count, seen.count_exact) == (9, True)
    await docs.delete("docs", [record_id(number) for number in range(9)])
    assert (await docs.describe_index("docs")).count == 0
    assert (await docs.list_indexes())[0].count != 0
    raw.execute("INSERT INTO docs SELECT 'g' || n, '[1,2,3,4,5,6,7,8]', NULL, '{}' FROM generate_series(1, 10500) AS n")
    large = await docs.describe_index("docs")
    assert not large.count_exact
    assert large.count is not None
    assert large.count >= 10_001
