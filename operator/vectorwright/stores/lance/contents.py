"""What one Lance table holds, and its changes: one after the other, called by whoever owns the right to commit.

On a volume that is the committer of the table's one process; in a bucket, the holder of the table's lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from vectorwright.errors import Terminal

from ..base import FieldDefinition, IndexDescription, Setting
from ..filters import Filter
from .filters import column_name, id_list, translate
from .ids import KnownIds
from .index_state import described, serving
from .reading import IDS_A_REQUEST, Reader
from .schema import META_KEY, column_field, decode_meta, encode_meta, field_types, new_field_rows
from .settings import INDEX_TYPE, IVF_PQ
from .upkeep import Backlog, Versions, backlog_of, build_index, index_due, vector_indexes

LANCE_ERRORS = (RuntimeError, ValueError, OSError, pa.lib.ArrowException)
"""What the library raises. Their texts hold paths and addresses: they are logged or translated, never sent as they are.
"""
_IDS_A_DELETE = 10_000
_REFINE = 10
"""Times as many candidates are compared by their true vectors where an index holds compressed ones."""


def reader_of(handle: Any, description: IndexDescription, indexes: Sequence[str], *, mixed: bool) -> Reader:
    """Reads a table as ``handle`` has it."""
    return Reader(
        handle,
        description.metric or "",
        field_types(description),
        mixed,
        indexed=serving(description.settings, indexes),
        refine=_REFINE if description.settings.get(INDEX_TYPE) == IVF_PQ else None,
    )


class Contents:
    """A table that is open for changes. ``handle`` is lancedb's. Everything here raises one of LANCE_ERRORS."""

    def __init__(self, handle: Any, description: IndexDescription) -> None:
        self.handle = handle
        self.name = description.name
        self.description = description
        self.types = field_types(description)
        self.schema: pa.Schema = pa.schema([])
        self.versions = Versions()
        self.backlog = Backlog()
        self.count = 0
        self.mixed = False
        self.indexes: list[str] = []
        self._known: KnownIds | None = None

    def forget_ids(self) -> None:
        """Somebody else may have changed the table, or a change of ours broke off."""
        self._known = None

    async def load(self) -> None:
        """Read what descriptions, queries and changes need."""
        self.forget_ids()
        self.schema = await self.handle.schema()
        self.description = replace(decode_meta(self.schema) or self.description, name=self.name)
        self.types = field_types(self.description)
        self.count = await self.handle.count_rows()
        self.mixed = bool(self.count) and await self.handle.count_rows("mixed") > 0
        self.indexes = await vector_indexes(self.handle)
        self.backlog = await backlog_of(self.handle)

    @property
    def index_due(self) -> bool:
        """Whether a vector index is to be built or dropped."""
        return index_due(self.description.settings, self.indexes, self.count)

    def describe(self) -> IndexDescription:
        """The table as it is now."""
        return described(self.description, self.indexes, self.count)

    def reader(self) -> Reader:
        """Reads the table as it is now."""
        return reader_of(self.handle, self.description, self.indexes, mixed=self.mixed)

    def committed(self, result: Any) -> None:
        """Called with lancedb's result of every commit that changes records or schema."""

    async def write(self, rows: pa.Table) -> None:
        """Write rows with distinct ids, replacing those of the same id: one commit."""
        if rows.schema.names != self.schema.names:
            rows = self._completed(rows)
        ids = rows.column("id").to_pylist()
        known = await self.known_ids()
        if known is None or known.holds_any(ids):
            # No scalar index on id is kept for this search, and none would be used: with one, a merge after a
            # compaction missed rows or failed (lancedb#3177, lance#5321, lance#7803).
            merge = self.handle.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            self.committed(await merge.use_index(False).execute(rows))
            self.count = await self.handle.count_rows()
        else:
            self.committed(await self.handle.add(rows))
            self.count += rows.num_rows
        if known is not None:
            known.add(ids)
        self.mixed = self.mixed or any(rows.column("mixed").to_pylist())
        self.backlog.note(rows.num_rows)

    def _completed(self, rows: pa.Table) -> pa.Table:
        """Rows that were encoded before a field was declared: its column is empty, so their metadata has to be read."""
        for column in self.schema:
            if column.name not in rows.schema.names:
                rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
        unsure = pa.array([True] * rows.num_rows, pa.bool_())
        at = rows.schema.get_field_index("mixed")
        return rows.set_column(at, rows.schema.field(at), unsure)

    async def known_ids(self) -> KnownIds | None:
        """The ids that the table may hold, read once; None where a merge finds out cheaper."""
        if self._known is None:
            known = KnownIds()
            async for rows in await self.handle.query().select(["id"]).to_batches():
                known.add(rows.column("id").to_pylist())
            self._known = known
        return self._known

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete records by id; ids that do not exist are fine."""
        known = await self.known_ids()
        if known is not None and not known.holds_any(ids):
            return
        for start in range(0, len(ids), _IDS_A_DELETE):
            await self._delete_sql(id_list(ids[start : start + _IDS_A_DELETE]))

    async def delete_where(self, where: Filter) -> None:
        """Delete all records that match."""
        sql, exact = translate(where, self.types)
        if exact and not self.mixed:
            await self._delete_sql(sql)
            return
        found = [
            record_id
            async for rows in self.reader().matching(where, ["id"])
            for record_id in rows.column("id").to_pylist()
        ]
        for start in range(0, len(found), IDS_A_REQUEST):
            await self._delete_sql(id_list(found[start : start + IDS_A_REQUEST]))

    async def _delete_sql(self, sql: str) -> None:
        result = await self.handle.delete(sql)
        self.committed(result)
        self.count = await self.handle.count_rows()
        self.backlog.note(result.num_deleted_rows or 0)

    async def update(self, settings: Mapping[str, Setting], new_fields: Sequence[FieldDefinition]) -> None:
        """Change settings and declare fields, filled from the metadata that is there. Raises Terminal."""
        declared = {one.name: one for one in self.description.fields or ()}
        for one in new_fields:
            if declared.get(one.name, one) != one:
                raise Terminal(
                    f"index {self.name}: metadata field {one.name!r} is declared as {declared[one.name].type} already",
                    reason="InvalidField",
                )
        added = [one for one in new_fields if one.name not in declared]
        if added:
            await self._add_columns(added)
        await self.write_meta(
            replace(
                self.description,
                settings={**self.description.settings, **settings},
                fields=(*(self.description.fields or ()), *added),
            )
        )

    async def _add_columns(self, added: Sequence[FieldDefinition]) -> None:
        """Add columns and fill them from the metadata. Declared only afterwards: until then nobody reads them."""
        names = set((await self.handle.schema()).names)
        columns = [column_field(one.name, one.type) for one in added if column_name(one.name) not in names]
        if columns:
            self.committed(await self.handle.add_columns(columns))
        schema = await self.handle.schema()
        with self.versions.reading():
            scan = self.handle.query().select(["id", "metadata", "mixed"])
            async for rows in await scan.to_batches():
                filled, count = new_field_rows(rows, added, schema)
                if count:
                    merge = self.handle.merge_insert("id").when_matched_update_all()
                    self.committed(await merge.use_index(False).execute(filled))
                    self.backlog.note(count)
        self.mixed = await self.handle.count_rows("mixed") > 0

    async def write_meta(self, description: IndexDescription) -> None:
        """Write what the index is."""
        update = {"path": "id", "metadata": {META_KEY: encode_meta(description)}}
        self.committed(await self.handle.update_field_metadata(update))
        self.description = description
        self.types = field_types(description)
        self.schema = await self.handle.schema()

    async def build_index(self) -> None:
        """Make the vector index what the settings ask for."""
        shape = self.description
        await build_index(
            self.handle,
            shape.settings,
            self.indexes,
            metric=shape.metric or "",
            dimension=shape.dimension or 0,
            rows=self.count,
        )
        self.indexes = await vector_indexes(self.handle)
