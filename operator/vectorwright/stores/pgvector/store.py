"""PostgreSQL with pgvector: an index is a table, and rows are written in batches of one statement.

How values travel is said in :mod:`.codec`; tables and their indexes are made in :mod:`.sql` and read
in :mod:`.tables`; filters are SQL over jsonb, in :mod:`.filters`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from psycopg import sql

from vectorwright.errors import BatchRejected, NotFound, Terminal

from ..base import IndexStatistics, Match, Record, RecordBatch, Store, Vectors
from ..filters import Filter
from ..registry import Connection
from ..server_checks import check_batch, check_query
from .catalog import PgvectorCatalog, absent
from .codec import VectorArray, VectorValue, jsonb_array, text_array
from .filters import condition, storable
from .pool import EF_SEARCH, Link
from .sql import MAX_INDEXED, MAX_INDEXED_HALF, OPERATORS, halves
from .tables import Table

RECORDS_PAGE = 2_000
"""Rows of one statement that reads."""
DELETE_PAGE = 20_000
"""Rows of one statement that deletes by a filter."""
MAX_EF_SEARCH = 1_000
"""The most that pgvector takes (its README)."""
MAX_HALF = 65_504
"""The largest number in half precision (IEEE 754)."""
RERANKED = 3
"""How many times the rows asked for are ranked again where the index holds halves: those round to 11 bits."""


class PgvectorStore(PgvectorCatalog):
    """One schema of a PostgreSQL database, 14 or newer, with pgvector 0.7 or newer."""

    @asynccontextmanager
    async def _on(self, name: str, *, writes: bool = False) -> AsyncIterator[tuple[Link, Table]]:
        """A connection and what is known of a table. Raises NotFound where it is gone."""
        try:
            async with self._pool.link(writes=writes) as link:
                yield link, self._known.get(name) or await self._resolve(link, name)
        except NotFound:
            self._known.pop(name, None)
            raise absent(name) from None

    async def statistics(self, name: str) -> IndexStatistics:
        """What an index holds, exactly, and the bytes of its table with all its indexes. Raises NotFound."""
        async with self._on(name) as (link, _):
            table = self._identifier(name)
            statement = sql.SQL("SELECT count(*), pg_total_relation_size({}::regclass) FROM {}").format(
                sql.Literal(table.as_string(link.connection)), table
            )
            count, storage_bytes = await link.one(statement)
            return IndexStatistics(int(count), storage_bytes=int(storage_bytes))

    async def count(self, name: str, where: Filter | None = None) -> int:
        """Exact number of rows, of those that match. Raises NotFound, Terminal."""
        expression = condition(where)
        async with self._on(name) as (link, _):
            statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._identifier(name), expression)
            return int((await link.one(statement))[0])

    async def upsert(self, name: str, batch: RecordBatch) -> None:
        """Write rows, all or none. Raises BatchRejected, BatchTooLarge, Retryable, NotFound."""
        if batch.vectors.ndim == 2:
            self._forget_unless(name, batch.vectors.shape[1])
        async with self._on(name, writes=True) as (link, table):
            encoded = check_batch(
                batch,
                index=name,
                dimension=table.dimension or (batch.vectors.shape[1] if batch.vectors.ndim == 2 else 0),
                metric=table.metric or "",
                capabilities=self.capabilities,
            )
            if not batch.ids:
                return
            _check_texts(batch, encoded, name)
            _check_halves(batch, name)
            # Always in the order of ids: writers of the same rows then wait for each other, and never in a circle.
            order = sorted(range(len(batch)), key=batch.ids.__getitem__)
            await link.connection.execute(
                _UPSERT.format(table=self._identifier(name), equal=link.operator("=")),
                [
                    text_array(batch.ids[at] for at in order),
                    VectorArray(batch.vectors[order]),
                    text_array(batch.texts[at] for at in order),
                    jsonb_array(encoded[at] for at in order),
                ],
            )

    async def fetch(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, metadata: bool = True
    ) -> dict[str, Record]:
        """The rows that exist, by id. Raises NotFound for the index."""
        found: dict[str, Record] = {}
        async with self._on(name) as (link, _):
            statement = sql.SQL("SELECT {} FROM {} WHERE id = ANY ($1)").format(
                _columns(vectors=vectors, metadata=metadata), self._identifier(name)
            )
            wanted = [record_id for record_id in ids if storable(record_id)]
            for start in range(0, len(wanted), RECORDS_PAGE):
                part = text_array(wanted[start : start + RECORDS_PAGE])
                cursor = await link.connection.execute(statement, [part], binary=True)
                found |= {row[0]: _record(row) for row in await cursor.fetchall()}
        return found

    async def query(
        self, name: str, vector: Vectors, top_k: int, where: Filter | None = None, *, vectors: bool = False
    ) -> list[Match]:
        """The nearest: by the vector index, hence approximate, where PostgreSQL finds that cheaper than comparing all.

        Raises NotFound, Terminal (``InvalidQuery``, ``UnsupportedFilter``, ``UnsupportedTable``).
        """
        expression = condition(where)
        asked = np.ascontiguousarray(vector, np.float32)
        self._forget_unless(name, len(asked))
        async with self._on(name) as (link, table):
            metric = table.metric
            if metric is None or not table.ours:
                raise Terminal(
                    f"table {name!r} has another layout than ours, or no metric is known for it: it cannot be searched",
                    reason="UnsupportedTable",
                )
            dimension = table.dimension or len(asked)
            check_query(asked, top_k, index=name, dimension=dimension, metric=metric)
            statement = self._nearest(link, table, metric, dimension, top_k, expression, vectors=vectors)
            async with link.connection.transaction():
                if top_k > EF_SEARCH:
                    effort = str(min(MAX_EF_SEARCH, 2 * top_k))
                    await link.connection.execute("SELECT set_config('hnsw.ef_search', $1, true)", [effort])
                cursor = await link.connection.execute(statement, [VectorValue(asked)], binary=True)
                rows = await cursor.fetchall()
        return [Match(_record(row[:-1]), _score(row[-1], metric)) for row in rows]

    def _nearest(
        self,
        link: Link,
        table: Table,
        metric: str,
        dimension: int,
        top_k: int,
        expression: sql.Composable,
        *,
        vectors: bool,
    ) -> sql.Composed:
        """The inner part is what the index answers; the outer part ranks its rows by the exact distance."""
        operator = link.operator(OPERATORS[metric])
        exact = sql.SQL("embedding {} $1").format(operator)
        order, limit = exact, top_k
        if MAX_INDEXED < dimension <= MAX_INDEXED_HALF:
            half = sql.SQL("$1::{}({})").format(sql.Identifier(link.schema, "halfvec"), sql.Literal(dimension))
            order, limit = sql.SQL("{} {} {}").format(halves(link.schema, dimension), operator, half), RERANKED * top_k
        return sql.SQL(
            "SELECT * FROM (SELECT {columns}, {exact} AS distance FROM {table} WHERE {where} ORDER BY {order} "
            "LIMIT {limit}) AS nearest ORDER BY distance, id LIMIT {top_k}"
        ).format(
            columns=_columns(vectors=vectors, metadata=True),
            exact=exact,
            table=self._identifier(table.name),
            where=expression,
            order=order,
            limit=sql.Literal(limit),
            top_k=sql.Literal(top_k),
        )

    async def delete(self, name: str, ids: Sequence[str]) -> None:
        """Delete rows. Raises NotFound for the index."""
        async with self._on(name) as (link, _):
            # Rows are locked in the order of their ids, as writing does: else the two wait for each other.
            statement = sql.SQL(
                "DELETE FROM {0} WHERE id = ANY (ARRAY(SELECT id FROM {0} WHERE id = ANY ($1) ORDER BY id FOR UPDATE))"
            ).format(self._identifier(name))
            wanted = sorted(record_id for record_id in ids if storable(record_id))
            for start in range(0, len(wanted), DELETE_PAGE):
                await link.connection.execute(statement, [text_array(wanted[start : start + DELETE_PAGE])])

    async def delete_where(self, name: str, where: Filter) -> None:
        """Delete all rows that match, 20,000 at a time. Raises NotFound for the index, Terminal."""
        statement = sql.SQL(
            "DELETE FROM {0} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {0} WHERE {1} LIMIT {2}))"
        ).format(self._identifier(name), condition(where), sql.Literal(DELETE_PAGE))
        deleted = DELETE_PAGE
        while deleted >= DELETE_PAGE:
            async with self._on(name) as (link, _):
                deleted = (await link.connection.execute(statement)).rowcount

    async def scroll(
        self, name: str, where: Filter | None = None, *, vectors: bool = False, metadata: bool = True, page: int = 1000
    ) -> AsyncIterator[list[Record]]:
        """Rows that match, in the order of their ids, in pages; no connection is held between them.

        Raises NotFound, Terminal.
        """
        expression = condition(where)
        size = max(1, min(page, RECORDS_PAGE))
        after = ""  # no id is empty
        while True:
            async with self._on(name) as (link, _):
                statement = sql.SQL(
                    "SELECT {columns} FROM {table} WHERE id > {after} AND {where} ORDER BY id LIMIT {size}"
                ).format(
                    columns=_columns(vectors=vectors, metadata=metadata),
                    table=self._identifier(name),
                    after=sql.Literal(after),
                    where=expression,
                    size=sql.Literal(size),
                )
                rows = await (await link.connection.execute(statement, binary=True)).fetchall()
            if rows:
                yield [_record(row) for row in rows]
            if len(rows) < size:
                return
            after = rows[-1][0]


_UPSERT = sql.SQL("""
INSERT INTO {table} AS stored (id, embedding, text, metadata)
SELECT * FROM unnest($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding, text = excluded.text, metadata = excluded.metadata
WHERE NOT (stored.embedding {equal} excluded.embedding) OR stored.text IS DISTINCT FROM excluded.text
   OR stored.metadata::text <> excluded.metadata::text
""")
"""A row that is there already is left alone: writing it again would also write it into the vector index again."""


_NULL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The null character in JSON: an escape that is not itself escaped."""


def _check_texts(batch: RecordBatch, encoded: Sequence[bytes], index: str) -> None:
    """Raises BatchRejected for the one character that no text of PostgreSQL holds."""
    for record_id, metadata, text in zip(batch.ids, encoded, batch.texts, strict=True):
        if "\0" in record_id or (text is not None and "\0" in text) or _NULL.search(metadata):
            raise BatchRejected(
                f"index {index}, record {record_id!r}: its id, text or metadata holds the null character (U+0000), "
                "which PostgreSQL does not keep"
            )


def _check_halves(batch: RecordBatch, index: str) -> None:
    """Raises BatchRejected for numbers that the index could not hold: it may be built long after they were written."""
    if not MAX_INDEXED < batch.vectors.shape[1] <= MAX_INDEXED_HALF:
        return
    beyond = np.flatnonzero(np.abs(batch.vectors).max(axis=1) > MAX_HALF)
    if len(beyond):
        raise BatchRejected(
            f"index {index}, record {batch.ids[int(beyond[0])]!r}: a number is beyond {MAX_HALF:,}, the largest that "
            f"an index of more than {MAX_INDEXED:,} dimensions holds"
        )


def _columns(*, vectors: bool, metadata: bool) -> sql.Composed:
    """Four columns, always: what is not asked for is null."""
    return sql.SQL("id, {}, {}, {}").format(
        sql.SQL("metadata" if metadata else "NULL"),
        sql.SQL("text" if metadata else "NULL"),
        sql.SQL("embedding" if vectors else "NULL"),
    )


def _record(row: tuple[Any, ...]) -> Record:
    record_id, metadata, text, vector = row
    return Record(record_id, metadata or {}, text, vector)


def _score(distance: float, metric: str) -> float:
    """pgvector's distance as a score, higher is nearer. One that is no number (a zero vector) is as far as can be."""
    if np.isnan(distance):
        return float("-inf")
    return 1.0 - distance if metric == "cosine" else -distance


def open_store(connection: Connection) -> Store:
    """A schema of a PostgreSQL database; no connection is made yet.

    Raises Terminal where the CA bundle is none, or the credentials name no user.
    """
    return PgvectorStore(connection)
