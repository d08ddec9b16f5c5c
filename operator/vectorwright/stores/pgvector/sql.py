"""The statements that make tables and their indexes.

A table has four columns: ``id``, ``embedding``, ``text`` and ``metadata`` (jsonb). Fields are indexed where they are,
by an index on the very expression that filters use: a column of its own for each would have to be written twice, and to
add one would rewrite the table under an exclusive lock, where an index is built beside the traffic.

- reserved fields: ``vw_source`` (btree: few values, many rows) and ``vw_doc`` (hash: names of any length)
- keyword: GIN, which finds a string alone and in a list; integer, float, bool: btree on the value
- datetime: btree on the text by code point, which is the order of RFC 3339 in UTC

Vectors: HNSW unless IVFFlat is asked for, built once there are rows enough (:data:`.tables.ENOUGH`). pgvector indexes
``vector`` up to 2,000 dimensions, ``halfvec`` up to 4,000; between the two the index is made on the halves and the
nearest are ranked again by the whole. Above, search is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import LiteralString

from psycopg import sql

from vectorwright.errors import Terminal

from ..base import FieldDefinition, IndexDefinition, Setting
from .filters import text_of, value_of
from .tables import DEFAULTS

MAX_INDEXED = 2_000
MAX_INDEXED_HALF = 4_000
"""Dimensions that pgvector indexes as ``vector`` and as ``halfvec`` (its README)."""
OPERATORS: Mapping[str, LiteralString] = {"cosine": "<=>", "dotproduct": "<#>", "euclidean": "<->"}
"""Metric → operator, whose value is smaller for what is nearer: 1 - cosine, minus the inner product, the distance."""
BOUNDS: Mapping[str, tuple[int, int]] = {
    "hnsw.m": (2, 100),
    "hnsw.ef_construction": (4, 1_000),
    "ivfflat.lists": (1, 32_768),
}
"""What pgvector takes (its README). Checked before there is an index: it may be built days later."""
_CLASSES: Mapping[str, str] = {"cosine": "cosine_ops", "dotproduct": "ip_ops", "euclidean": "l2_ops"}


def index_name(table: str, what: str) -> str:
    """A name for an index, unique in the schema and at most 63 characters, which is all that PostgreSQL keeps."""
    digest = hashlib.sha256(f"{table}\0{what}".encode()).hexdigest()[:10]
    return f"{table[:30]}_{what[:20]}_{digest}"


def create_table(schema: str, definition: IndexDefinition, extension_schema: str) -> sql.Composed:
    """The table without its indexes."""
    return sql.SQL(
        'CREATE TABLE {table} (id text COLLATE pg_catalog."C" PRIMARY KEY, embedding {vector}({dimension}) NOT NULL, '
        "text text, metadata jsonb NOT NULL)"
    ).format(
        table=sql.Identifier(schema, definition.name),
        vector=sql.Identifier(extension_schema, "vector"),
        dimension=sql.Literal(definition.dimension),
    )


def reserved_indexes(schema: str, table: str) -> Iterable[sql.Composed]:
    """Indexes of the reserved fields that are looked up."""
    for field, method in (("vw_source", sql.SQL("btree")), ("vw_doc", sql.SQL("hash"))):
        yield sql.SQL("CREATE INDEX {} ON {} USING {} ({})").format(
            sql.Identifier(index_name(table, field)), sql.Identifier(schema, table), method, value_of(field)
        )


def field_index(schema: str, table: str, field: FieldDefinition, *, concurrently: bool) -> sql.Composed:
    """The index of a declared field."""
    match field.type:
        case "keyword":
            target = sql.SQL("USING gin ({} jsonb_path_ops)").format(value_of(field.name))
        case "datetime":
            target = sql.SQL("USING btree ({})").format(text_of(field.name))
        case _:
            target = sql.SQL("USING btree ({})").format(value_of(field.name))
    return sql.SQL("CREATE INDEX {} {} ON {} {}").format(
        sql.SQL("CONCURRENTLY" if concurrently else ""),
        sql.Identifier(index_name(table, field.name)),
        sql.Identifier(schema, table),
        target,
    )


def drop_index(schema: str, name: str) -> sql.Composed:
    """Drop an index beside the traffic."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name))


def ann_settings(settings: Mapping[str, Setting], dimension: int) -> tuple[str, dict[str, int]] | None:
    """(method, options) of the vector index that settings ask for; None where there can be none.

    Raises Terminal (``InvalidSetting``) for two methods at once, for a value that is no integer, and for settings of an
    index that the dimension rules out.
    """
    methods = {name.partition(".")[0] for name in settings} or {"hnsw"}
    if len(methods) > 1:
        raise Terminal("an index is either hnsw or ivfflat: set one of the two blocks", reason="InvalidSetting")
    method = methods.pop()
    if dimension > MAX_INDEXED_HALF:
        if settings:
            raise Terminal(
                f"pgvector indexes up to {MAX_INDEXED_HALF} dimensions and this index has {dimension}: leave out "
                f"{', '.join(sorted(settings))}; search is exact",
                reason="InvalidSetting",
            )
        return None
    options: dict[str, int] = {}
    for name, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise Terminal(f"setting {name} must be an integer, not {value!r}", reason="InvalidSetting")
        least, most = BOUNDS[name]
        if not least <= value <= most:
            raise Terminal(f"setting {name} must be from {least} to {most}, not {value}", reason="InvalidSetting")
        options[name.partition(".")[2]] = value
    effective = {**DEFAULTS[method], **options}
    if method == "hnsw" and effective["ef_construction"] < 2 * effective["m"]:
        raise Terminal(
            f"setting hnsw.ef_construction must be at least twice hnsw.m ({effective['m']}), not "
            f"{effective['ef_construction']}",
            reason="InvalidSetting",
        )
    return method, options


def ann_comment(method: str, options: Mapping[str, int]) -> dict[str, Setting]:
    """Settings in full, as :attr:`.tables.Comment.ann` keeps them: of a method whose options are ``options``."""
    return {f"{method}.{name}": value for name, value in {**DEFAULTS[method], **options}.items()}


def ann_index(
    schema: str,
    table: str,
    extension_schema: str,
    *,
    name: str,
    method: str,
    options: Mapping[str, int],
    dimension: int,
    metric: str,
) -> sql.Composed:
    """The index of the vectors, made beside the traffic. ``options`` that are left out are pgvector's to choose."""
    half = dimension > MAX_INDEXED
    with_options = sql.SQL("")
    if options:
        pairs = [sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in options.items()]
        with_options = sql.SQL("WITH ({})").format(sql.SQL(", ").join(pairs))  # type: ignore[assignment]
    return sql.SQL("CREATE INDEX CONCURRENTLY {name} ON {table} USING {method} ({target} {kind}) {options}").format(
        name=sql.Identifier(name),
        table=sql.Identifier(schema, table),
        method=sql.Identifier(method),
        target=halves(extension_schema, dimension) if half else sql.SQL("embedding"),
        kind=sql.Identifier(extension_schema, ("halfvec_" if half else "vector_") + _CLASSES[metric]),
        options=with_options,
    )


def halves(extension_schema: str, dimension: int) -> sql.Composed:
    """The vectors in half precision: the expression that their index is made on."""
    return sql.SQL("(embedding::{}({}))").format(sql.Identifier(extension_schema, "halfvec"), sql.Literal(dimension))


KNOWN_SETTINGS = tuple(f"{method}.{option}" for method, options in DEFAULTS.items() for option in options)
