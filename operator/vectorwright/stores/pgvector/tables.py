"""Tables as indexes: what the catalog tells of one, and the comment that says what the catalog cannot.

The comment on a table holds JSON: owner, fingerprint, metric, declared fields, an identity. A comment that was there
before stays inside and comes back when nothing of ours is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from psycopg import sql

from ..base import FieldDefinition, IndexDescription, OwnershipMark, Setting

FORMAT = 1
DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "hnsw": {"m": 16, "ef_construction": 64},
    "ivfflat": {"lists": 100},
}
"""Method → its options and pgvector's own values (its README), which the catalog does not tell."""
ENOUGH = 10_000
"""Rows from which a vector index is built. Below, to compare with every vector takes milliseconds; and rows are written
ten times as fast into a table that has none yet, and its build takes less than half of what was saved."""
METRICS = {"cosine_ops": "cosine", "ip_ops": "dotproduct", "l2_ops": "euclidean"}
"""End of the operator class's name → metric."""

_LISTING = sql.SQL("""
SELECT c.oid, c.relname, obj_description(c.oid, 'pg_class'), v.columns, v.modifier,
       (SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND NOT a.attisdropped AND (
          a.attname IN ('id', 'text') AND a.atttypid = 'text'::regtype
          OR a.attname = 'metadata' AND a.atttypid = 'jsonb'::regtype
          OR a.attname = 'embedding' AND a.atttypid = e.vector)) = 4,
       pg_stat_get_live_tuples(c.oid),
       pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_deleted(c.oid),
       c.reltuples::float8,
       pg_relation_size(c.oid),
       (SELECT jsonb_agg(jsonb_build_object(
          'name', i.relname, 'method', m.amname, 'class', o.opcname, 'options', i.reloptions, 'valid', x.indisvalid)
          ORDER BY i.oid)
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
        JOIN pg_opclass o ON o.oid = x.indclass[0]
        WHERE x.indrelid = c.oid AND m.amname IN ('hnsw', 'ivfflat'))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN (SELECT t.oid AS vector FROM pg_type t JOIN pg_extension x
      ON x.extname = 'vector' AND t.typname = 'vector' AND t.typnamespace = x.extnamespace) e ON true
JOIN LATERAL (SELECT count(*) AS columns, min(a.atttypmod) AS modifier FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.atttypid = e.vector AND NOT a.attisdropped) v ON true
WHERE n.nspname = {schema} AND c.relkind = 'r' AND {name}
  AND (v.columns = 1 OR obj_description(c.oid, 'pg_class') LIKE '{{"vectorwright"%')
ORDER BY c.relname COLLATE "C"
""")
"""Tables with our comment or exactly one column of vectors: one statement for all of a schema."""


def listing(schema: str, name: str | None = None) -> sql.Composed:
    """The statement that lists a schema's tables, or finds one."""
    only = sql.SQL("true") if name is None else sql.SQL("c.relname = {}").format(sql.Literal(name))
    return _LISTING.format(schema=sql.Literal(schema), name=only)


@dataclass(frozen=True, slots=True)
class Comment:
    """What the comment on a table says."""

    mark: str | None = None
    fingerprint: str | None = None
    metric: str | None = None
    fields: Mapping[str, str] | None = None
    """Name → type."""
    identity: str | None = None
    """Written when we make a table: object ids are used again."""
    ann: Mapping[str, Setting] | None = None
    """Settings of the vector index to build once there are rows enough; None where there is none to build."""
    original: str | None = None
    """The comment that a person wrote."""

    @classmethod
    def parse(cls, text: str | None) -> Comment:
        """Any comment; one that is not ours is a person's."""
        if text is None or not text.startswith('{"vectorwright"'):
            return cls(original=text)
        try:
            held = orjson.loads(text)
        except orjson.JSONDecodeError:
            return cls(original=text)
        fields, ann = held.get("fields"), held.get("ann")
        return cls(
            mark=held.get("mark"),
            fingerprint=held.get("fingerprint"),
            metric=held.get("metric"),
            fields={str(name): str(kind) for name, kind in fields.items()} if isinstance(fields, dict) else None,
            identity=held.get("identity"),
            ann={str(name): value for name, value in ann.items()} if isinstance(ann, dict) and ann else None,
            original=held.get("comment"),
        )

    def text(self) -> str | None:
        """The comment to write; None for none."""
        held = {
            "mark": self.mark,
            "fingerprint": self.fingerprint,
            "metric": self.metric,
            "fields": self.fields,
            "identity": self.identity,
            "ann": None if self.ann is None else dict(self.ann),
        }
        ours = {name: value for name, value in held.items() if value is not None}
        if not ours:
            return self.original
        if self.original is not None:
            ours["comment"] = self.original
        return orjson.dumps({"vectorwright": FORMAT, **ours}).decode()


@dataclass(frozen=True, slots=True)
class AnnIndex:
    """An index for approximate search."""

    name: str
    method: str
    valid: bool
    metric: str | None
    settings: Mapping[str, Setting]

    @classmethod
    def parse(cls, held: Mapping[str, Any]) -> AnnIndex:
        """As the listing tells it."""
        method = str(held["method"])
        options: dict[str, Setting] = dict(DEFAULTS.get(method, {}))
        for option in held.get("options") or ():
            name, _, value = str(option).partition("=")
            options[name] = int(value) if value.isdigit() else value
        kind = str(held["class"]).partition("_")[2]
        return cls(
            str(held["name"]),
            method,
            bool(held["valid"]),
            METRICS.get(kind),
            {f"{method}.{name}": value for name, value in options.items()},
        )


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the catalog tells it."""

    name: str
    oid: int
    dimension: int | None
    comment: Comment
    ours: bool
    """Whether it has the four columns that we read and write."""
    indexes: tuple[AnnIndex, ...] = ()
    count: int | None = None
    count_exact: bool = False

    @classmethod
    def parse(cls, row: tuple[Any, ...]) -> Table:
        """A row of the listing.

        The count is the statistics' live tuples, which follow writes within a second, or the planner's estimate after a
        crash emptied them. Only a table without a page is known to be empty; else "no rows" is not told.
        """
        oid, name, comment, columns, modifier, ours, live, activity, planned, size, indexes = row
        estimate = live if activity else max(int(planned), 0)
        return cls(
            name=name,
            oid=oid,
            dimension=modifier if columns == 1 and modifier > 0 else None,
            comment=Comment.parse(comment),
            ours=ours,
            indexes=tuple(AnnIndex.parse(held) for held in indexes or ()),
            count=0 if size == 0 else (estimate or None),
            count_exact=size == 0,
        )

    @property
    def index(self) -> AnnIndex | None:
        """The index that searches use, where there is one that is whole."""
        return next((index for index in self.indexes if index.valid), None)

    @property
    def metric(self) -> str | None:
        """As recorded, or as its index says."""
        return self.comment.metric or (self.index.metric if self.index else None)

    @property
    def settings(self) -> dict[str, Setting]:
        """Those of its vector index, or of the one that is to be built."""
        if self.index is not None:
            return dict(self.index.settings)
        return dict(self.comment.ann or {})

    @property
    def unbuilt(self) -> bool:
        """Whether its vector index is still to be built, and there are rows enough."""
        return self.index is None and self.comment.ann is not None and (self.count or 0) >= ENOUGH

    def counted(self, count: int, *, exact: bool) -> Table:
        """The same with a better count."""
        return replace(self, count=count, count_exact=exact)

    def describe(self) -> IndexDescription:
        """The table as an index."""
        fields = self.comment.fields
        identity = self.comment.identity
        return IndexDescription(
            name=self.name,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=f"{self.oid}-{identity}" if identity else str(self.oid),
            fields=None if fields is None else tuple(FieldDefinition(name, kind) for name, kind in fields.items()),
            settings=self.settings,
            mark=OwnershipMark.parse(self.comment.mark),
            model_fingerprint=self.comment.fingerprint,
            count=self.count,
            count_exact=self.count_exact,
            unbuilt=self.unbuilt,
        )
