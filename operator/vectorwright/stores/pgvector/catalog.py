"""The tables of one schema as indexes: found, made, changed, marked, dropped."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from vectorwright.errors import Conflict, NotFound, Terminal

from ..absent import StoreWithoutAliases, StoreWithoutNamespaces
from ..base import (
    Capabilities,
    ChangeClass,
    FieldDefinition,
    IndexDefinition,
    IndexDescription,
    OwnershipMark,
    Setting,
    StoreInfo,
)
from ..registry import Connection
from ..server_checks import check_definition, check_fields, check_settings
from .extension import backend_id, ensure_extension, server_version
from .pool import ConnectionPool, Link
from .sql import (
    KNOWN_SETTINGS,
    OPERATORS,
    ann_comment,
    ann_index,
    ann_settings,
    create_table,
    drop_index,
    field_index,
    index_name,
    reserved_indexes,
)
from .tables import ENOUGH, Comment, Table, listing

CAPABILITIES = Capabilities(
    metrics=frozenset(OPERATORS),
    max_dimension=16_000,
    # PostgreSQL keeps 63 bytes of a name and silently drops the rest.
    name_pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    mutable_settings=dict.fromkeys(KNOWN_SETTINGS, ChangeClass.COSTLY) | {"metadata_fields": ChangeClass.COSTLY},
    list_metadata=True,
    counts_in_listing=True,
    filtered_count=True,
    rotation_strategies=frozenset({"DualIdentity", "InPlace"}),
)
BUILD_SECONDS = 3_600.0
"""Seconds that an index may be built for. The server stops when we are gone (client_connection_check_interval)."""
BUILD_LOCK_SECONDS = 60
"""Seconds that a build waits for transactions that are older than it."""
BUILD_MEMORY_KIB = 256 * 1024
"""Memory that a build asks for at most, where the server's own maintenance_work_mem is less: a graph that does not fit
is built many times slower (pgvector's README)."""
GRAPH_BYTES = 6
"""Bytes a number of a vector that a graph takes while it is built: four for the number, and its share of the edges."""
SMALL = ENOUGH
"""Rows up to which describing an index counts them."""


class PgvectorCatalog(StoreWithoutAliases, StoreWithoutNamespaces):
    """What is done with tables; :class:`.pgvector.PgvectorStore` adds what is done with their rows."""

    def __init__(self, connection: Connection) -> None:
        self.capabilities = CAPABILITIES
        self._pool = ConnectionPool(connection)
        self._schema = self._pool.schema
        self._known: dict[str, Table] = {}

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._pool.close()

    async def probe(self) -> StoreInfo:
        """Versions, identity, and whether pgvector is there or can be made.

        Raises Terminal (``ExtensionMissing``, ``UnsupportedVersion``, ``AccessDenied``, ``DatabaseNotFound``,
        ``SchemaNotFound``), Retryable.
        """
        async with self._pool.link() as link:
            version = await server_version(link, self._pool.endpoint, self._schema)
            backend = await backend_id(link, f"{self._pool.host}:{self._pool.port}")
        return StoreInfo(version, f"pgvector:{backend}/{self._schema}", self._pool.endpoint, self.capabilities)

    async def list_indexes(self) -> list[IndexDescription]:
        """Every table of the schema that holds one column of vectors, in one statement. Counts are estimates."""
        async with self._pool.link() as link:
            cursor = await link.connection.execute(listing(self._schema))
            tables = [Table.parse(row) for row in await cursor.fetchall()]
        self._known = {table.name: table for table in tables}
        return [table.describe() for table in tables]

    async def describe_index(self, name: str) -> IndexDescription:
        """One table. Up to 10,000 rows are counted exactly. Raises NotFound."""
        async with self._pool.link() as link:
            return (await self._counted(link, name)).describe()

    async def _counted(self, link: Link, name: str) -> Table:
        table = await self._resolve(link, name)
        some = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS few").format(
            self._identifier(name), sql.Literal(SMALL + 1)
        )
        (count,) = await link.one(some)
        exact = count <= SMALL
        return table.counted(count if exact else max(count, table.count or 0), exact=exact)

    async def create_index(self, definition: IndexDefinition) -> IndexDescription:
        """Make a table, all or nothing; its vector index is built when it holds enough. Raises Conflict, Terminal."""
        check_definition(definition, self.capabilities, KNOWN_SETTINGS)
        ann = ann_settings(definition.settings, definition.dimension)
        comment = Comment(
            mark=None if definition.mark is None else str(definition.mark),
            fingerprint=definition.model_fingerprint,
            metric=definition.metric,
            fields={field.name: field.type for field in definition.fields},
            identity=secrets.token_hex(8),
            ann=None if ann is None else ann_comment(*ann),
        )
        await ensure_extension(self._pool)
        try:
            async with self._pool.link() as link, link.connection.transaction():
                execute = link.connection.execute
                await execute(create_table(self._schema, definition, link.schema))
                for statement in reserved_indexes(self._schema, definition.name):
                    await execute(statement)
                for field in definition.fields:
                    await execute(field_index(self._schema, definition.name, field, concurrently=False))
                await self._write_comment(link, definition.name, comment)
        except Conflict:
            raise Conflict(
                f"a table named {definition.name!r} exists already in schema {self._schema!r}", reason="AlreadyExists"
            ) from None
        return await self.describe_index(definition.name)

    def _ann_index(
        self, link: Link, definition: IndexDefinition, method: str, options: Mapping[str, int]
    ) -> sql.Composed:
        return ann_index(
            self._schema,
            definition.name,
            link.schema,
            # Another name each time: the old index stays until the new one is whole.
            name=index_name(definition.name, f"{method}_{secrets.token_hex(3)}"),
            method=method,
            options=options,
            dimension=definition.dimension,
            metric=definition.metric,
        )

    async def update_index(
        self, name: str, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition] = ()
    ) -> None:
        """Build the vector index, for the first time or anew, and indexes for fields, beside the traffic.

        Raises NotFound, Terminal.
        A build may take an hour. One that broke off leaves an index that searches do not use; the next one drops it.
        """
        check_settings(settings, KNOWN_SETTINGS)
        check_fields(new_fields, self.capabilities)
        async with self._pool.link() as link:
            table = await self._counted(link, name)
        if not settings and not new_fields and not table.unbuilt:
            return
        async with self._pool.link(seconds=BUILD_SECONDS) as link:
            await link.one(
                sql.SQL("SELECT set_config('lock_timeout', {}, false)").format(str(BUILD_LOCK_SECONDS * 1000))
            )
            await self._build(link, table, settings)
            await self._index_fields(link, table, new_fields)
        if new_fields:
            # With the patience of an ordinary request: only the build may take an hour.
            added = {field.name: field.type for field in new_fields}
            async with self._pool.link() as link:
                await self._change_comment(
                    link, name, lambda comment: replace(comment, fields={**(comment.fields or {}), **added})
                )

    async def _build(self, link: Link, table: Table, settings: Mapping[str, Setting]) -> None:
        """The vector index with these settings and, of the others, those that it has; nothing where that is so."""
        if not settings and not table.unbuilt:
            return
        if table.dimension is None or table.metric is None:
            raise Terminal(
                f"index {table.name}: its dimension or metric is not known, so no vector index can be made: say "
                "vector(n) in its column, and make the first index by hand",
                reason="UnsupportedTable",
            )
        present = table.settings
        method = next(iter(settings or present)).partition(".")[0]
        wanted = {key: value for key, value in present.items() if key.startswith(f"{method}.")} | dict(settings)
        ann = ann_settings(wanted, table.dimension)
        if ann is None or (wanted == present and not table.unbuilt):
            return
        if table.index is not None or table.unbuilt or table.comment.ann is None:
            await self._build_now(link, IndexDefinition(table.name, table.dimension, table.metric), table, *ann)
        if table.comment.ann is not None:
            await self._change_comment(link, table.name, lambda comment: replace(comment, ann=ann_comment(*ann)))

    async def _build_now(
        self, link: Link, definition: IndexDefinition, table: Table, method: str, options: Mapping[str, int]
    ) -> None:
        """A new index beside the traffic, then the old one goes; first what a build that broke off has left."""
        for broken in table.indexes:
            if not broken.valid:
                await link.connection.execute(drop_index(self._schema, broken.name))
        needed = GRAPH_BYTES * definition.dimension * max(table.count or 0, 1) >> 10
        await link.one(
            sql.SQL(
                "SELECT set_config('maintenance_work_mem', greatest(setting::bigint, least({}, {}))::text, false) "
                "FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'"
            ).format(sql.Literal(needed), sql.Literal(BUILD_MEMORY_KIB))
        )
        await link.connection.execute(self._ann_index(link, definition, method, options))
        for old in table.indexes:
            if old.valid:
                await link.connection.execute(drop_index(self._schema, old.name))

    async def _index_fields(self, link: Link, table: Table, new_fields: Sequence[FieldDefinition]) -> None:
        declared = table.comment.fields or {}
        for field in new_fields:
            if declared.get(field.name, field.type) != field.type:
                raise Terminal(
                    f"index {table.name}: metadata field {field.name!r} is declared as {declared[field.name]} already",
                    reason="InvalidField",
                )
        for field in new_fields:
            if field.name not in declared:
                # Left over from a build that broke off, if it is there.
                await link.connection.execute(drop_index(self._schema, index_name(table.name, field.name)))
                await link.connection.execute(field_index(self._schema, table.name, field, concurrently=True))

    async def set_mark(self, name: str, mark: OwnershipMark | None, model_fingerprint: str | None) -> None:
        """Write or remove mark and fingerprint in the table's comment; a person's comment stays inside.

        Raises NotFound, and Terminal (``UnsupportedTable``) for a mark on a table that is not laid out as ours are.
        """
        async with self._pool.link() as link:
            table = await self._resolve(link, name)
            if mark is not None and not table.ours:
                raise Terminal(
                    f"table {name!r} cannot be taken over: it needs the columns id text, embedding vector, text text "
                    "and metadata jsonb, and one column of vectors",
                    reason="UnsupportedTable",
                )
            written = None if mark is None else str(mark)
            if (table.comment.mark, table.comment.fingerprint) != (written, model_fingerprint):
                await self._change_comment(
                    link, name, lambda comment: replace(comment, mark=written, fingerprint=model_fingerprint)
                )

    async def _change_comment(self, link: Link, name: str, change: Callable[[Comment], Comment]) -> None:
        """Read, change and write the comment, with other writers kept out: COMMENT takes the same lock."""
        async with link.connection.transaction():
            await link.connection.execute(
                sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(self._identifier(name))
            )
            table = await self._resolve(link, name)
            await self._write_comment(link, name, change(table.comment))
        self._known.pop(name, None)

    async def _write_comment(self, link: Link, name: str, comment: Comment) -> None:
        await link.connection.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(self._identifier(name), sql.Literal(comment.text()))
        )

    async def delete_index(self, name: str) -> None:
        """Drop a table. Raises NotFound, also for a table that holds no vectors."""
        async with self._pool.link() as link:
            await self._resolve(link, name)
            await link.connection.execute(sql.SQL("DROP TABLE {}").format(self._identifier(name)))
        self._known.pop(name, None)

    def _identifier(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._schema, name)

    def _forget_unless(self, name: str, dimension: int) -> None:
        """Look a table up again where it is remembered with another dimension: it may have been made again."""
        known = self._known.get(name)
        if known is not None and known.dimension != dimension:
            del self._known[name]

    async def _resolve(self, link: Link, name: str) -> Table:
        """The table as it is now. Raises NotFound, also for a name that PostgreSQL would cut short."""
        self._known.pop(name, None)
        if re.fullmatch(self.capabilities.name_pattern, name) is not None:
            row = await (await link.connection.execute(listing(self._schema, name))).fetchone()
            if row is not None:
                table = self._known[name] = Table.parse(row)
                return table
        raise absent(name)


def absent(name: str) -> NotFound:
    """The error for an index that is not there."""
    return NotFound(f"index {name[:200]!r} does not exist in this store")
