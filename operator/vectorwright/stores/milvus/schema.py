"""The schema of a collection of ours, and a collection as the server describes it.

A record is a row of five columns, and one more for each metadata field that is declared, where the server can leave a
column empty (2.5 or newer):

=============  ============================================================================================
``id``         the primary key: see :func:`.names.to_key`
``vector``     float32
``text``       the text, "" where there is none
``metadata``   all of the metadata, exactly, as JSON grouped by type: see :mod:`.metadata`
``vw_mixed``   whether a declared field holds a value that its column cannot (a list, a word among numbers)
*a field*      its value, or null
=============  ============================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ..base import RESERVED_FIELDS, FieldDefinition, IndexDefinition, IndexDescription, OwnershipMark, Setting
from ..server_checks import MAX_ID_BYTES
from .names import from_milvus
from .settings import CONSISTENCY_LEVELS, VectorIndex
from .stubs import pairs, schema_pb2

ID, VECTOR, TEXT, METADATA, MIXED = "id", "vector", "text", "metadata", "vw_mixed"
OURS = (ID, VECTOR, TEXT, METADATA, MIXED)
MAX_VARCHAR = 65_535
"""Bytes (Milvus' documentation)."""
MAX_FIELDS = 64
"""Fields of a collection (Milvus' documentation)."""
MAX_KEY = MAX_ID_BYTES + 256
"""Bytes of a primary key: of an id, and of a namespace with its two signs."""

_BOOL, _INT64, _DOUBLE, _VARCHAR, _JSON, _FLOAT_VECTOR = 1, 5, 11, 21, 23, 101
_TYPES = {"keyword": _VARCHAR, "datetime": _VARCHAR, "integer": _INT64, "float": _DOUBLE, "bool": _BOOL}
KINDS = {_VARCHAR: "string", _INT64: "integer", _DOUBLE: "float", _BOOL: "bool"}
"""Type of a column → the kind of values in it."""
METRICS = {"cosine": "COSINE", "dotproduct": "IP", "euclidean": "L2"}
_METRICS_BACK = {theirs: ours for ours, theirs in METRICS.items()}

PREFIX = "vectorwright."
MARK, FINGERPRINT, FIELDS, IDENTITY, SETTINGS, INDEX = (
    PREFIX + name for name in ("mark", "fingerprint", "fields", "identity", "settings", "index")
)
MMAP = "mmap.enabled"

# Words of Milvus' expressions (Plan.g4 of 2.4 to 2.6) that a column cannot be named without being taken for one.
_WORD = re.compile(
    r"like|exists?|and|or|not|in|is|null|true|false|iso|interval|empty|array|threshold|minimum_should_match|(text|phrase)_match|random_sample"
    r"|(json|array)_(contains|contains_all|contains_any|length)|(st|match|element|geometry)_\w+",
    re.IGNORECASE,
)
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def columns(fields: Iterable[FieldDefinition], *, nullable: bool) -> dict[str, str]:
    """Metadata fields that get a column → their types: the reserved ones, and as many others as there is room for.

    A field without one is filtered by its place in ``metadata``: more slowly, and as exactly.
    """
    if not nullable:
        return {}
    found = dict(RESERVED_FIELDS)
    for one in fields:
        if len(OURS) + len(found) == MAX_FIELDS:
            break
        if _COLUMN.fullmatch(one.name) and one.name not in OURS and not _WORD.fullmatch(one.name):
            found[one.name] = one.type
    return found


def schema_of(definition: IndexDefinition, name: str, *, nullable: bool) -> Any:
    """The schema that an index is made with."""
    text = {"max_length": str(MAX_VARCHAR)}
    made = [
        _field(ID, _VARCHAR, {"max_length": str(MAX_KEY)}, is_primary_key=True),
        _field(VECTOR, _FLOAT_VECTOR, {"dim": str(definition.dimension)}),
        _field(TEXT, _VARCHAR, text),
        _field(METADATA, _JSON, {}),
        _field(MIXED, _BOOL, {}),
    ]
    for column, kind in columns(definition.fields, nullable=nullable).items():
        made.append(_field(column, _TYPES[kind], text if _TYPES[kind] == _VARCHAR else {}, nullable=True))
    return schema_pb2.CollectionSchema(name=name, fields=made)


def _field(name: str, kind: int, params: dict[str, str], **more: bool) -> Any:
    return schema_pb2.FieldSchema(name=name, data_type=kind, type_params=pairs(params), **more)


def _object(text: str | None) -> dict[str, Any]:
    """A property that holds a JSON object; anything else is none of ours."""
    try:
        held = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
    return held if isinstance(held, dict) else {}


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the server tells it."""

    name: str
    """Our name for it."""
    theirs: str
    """Milvus' name for it."""
    number: int
    """Its id; 0 where the server gives none, as milvus-lite."""
    dimension: int | None
    metric: str | None
    ours: bool
    """Whether it has the columns that we read and write."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Metadata field with a column → the kind of its values (:data:`KINDS`)."""
    properties: Mapping[str, str] = field(default_factory=dict)
    index: VectorIndex | None = None
    """The index of the vectors; None where there is none."""
    consistency: str | None = None
    shards: int | None = None

    @classmethod
    def parse(cls, answer: Any, indexes: Iterable[Any]) -> Collection:
        """The answers of DescribeCollection and DescribeIndex."""
        fields = {one.name: one for one in answer.schema.fields}
        vectors = [one for one in fields.values() if int(one.data_type) == _FLOAT_VECTOR]
        dimension = next(
            (int(pair.value) for one in vectors[:1] for pair in one.type_params if pair.key == "dim"), None
        )
        of_vectors = vectors[0].name if len(vectors) == 1 else None
        held = {pair.key: pair.value for one in indexes if one.field_name == of_vectors for pair in one.params}
        properties = {pair.key: pair.value for pair in answer.properties}
        recorded = _object(properties.get(INDEX))
        number = int(answer.collectionID)
        levels = CONSISTENCY_LEVELS
        return cls(
            name=from_milvus(answer.collection_name or answer.schema.name),
            theirs=answer.collection_name or answer.schema.name,
            number=number,
            dimension=dimension if of_vectors else None,
            metric=_METRICS_BACK.get((held.get("metric_type") or str(recorded.get("metric", ""))).upper()),
            ours=_is_ours(fields),
            columns={
                name: KINDS[int(one.data_type)]
                for name, one in fields.items()
                if name not in OURS and one.nullable and int(one.data_type) in KINDS
            },
            properties=properties,
            index=VectorIndex(held["index_type"], _params(held)) if "index_type" in held else None,
            # milvus-lite keeps neither, and answers with the numbers of nothing.
            consistency=levels[answer.consistency_level] if number and answer.consistency_level < len(levels) else None,
            shards=int(answer.shards_num) if number else None,
        )

    @property
    def settings(self) -> dict[str, Setting]:
        """What is set: as recorded, and as the server tells it where it does."""
        told: dict[str, Setting] = {}
        if self.index is not None:
            told |= self.index.settings()
        if self.consistency is not None:
            told["consistency_level"] = self.consistency
        if self.shards is not None:
            told["shards"] = self.shards
        if MMAP in self.properties:
            told["mmap"] = self.properties[MMAP].lower() == "true"
        return self.recorded | told

    @property
    def recorded(self) -> dict[str, Setting]:
        """Settings kept as a property."""
        return {name: value for name, value in _object(self.properties.get(SETTINGS)).items() if _is_setting(value)}

    @property
    def fields(self) -> dict[str, str] | None:
        """Declared metadata fields and their types; None where nothing was declared by us."""
        if FIELDS not in self.properties:
            return None
        return {str(name): str(kind) for name, kind in _object(self.properties[FIELDS]).items()}

    @property
    def planned(self) -> VectorIndex:
        """The index that belongs there: the one that is, or the one that a rebuild was about to make."""
        held = _object(self.properties.get(INDEX))
        params = held.get("params")
        recorded = VectorIndex(str(held.get("type", "AUTOINDEX")), params if isinstance(params, dict) else {})
        return self.index or recorded

    def same_form(self, other: Collection) -> bool:
        """Whether requests made for the one fit the other."""
        return (self.dimension, self.metric, self.ours, self.columns, self.index) == (
            other.dimension,
            other.metric,
            other.ours,
            other.columns,
            other.index,
        )

    def describe(self) -> IndexDescription:
        """The collection as an index."""
        identity = self.properties.get(IDENTITY)
        fields = self.fields
        return IndexDescription(
            name=self.name,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=str(self.number) if self.number else (identity or f"collection:{self.theirs}"),
            fields=None if fields is None else tuple(FieldDefinition(name, kind) for name, kind in fields.items()),
            settings=self.settings,
            mark=OwnershipMark.parse(self.properties.get(MARK)),
            model_fingerprint=self.properties.get(FINGERPRINT) or None,
            # A rebuild broke off between dropping the old index and making the new one.
            unbuilt=self.ours and self.index is None,
        )


def _is_ours(fields: Mapping[str, Any]) -> bool:
    kinds = {ID: _VARCHAR, VECTOR: _FLOAT_VECTOR, TEXT: _VARCHAR, METADATA: _JSON, MIXED: _BOOL}
    others = [one for name, one in fields.items() if name not in kinds]
    return (
        all(name in fields and int(fields[name].data_type) == kind for name, kind in kinds.items())
        and bool(fields[ID].is_primary_key)
        and not any(one.is_partition_key for one in fields.values())
        # A column of somebody else that must not be empty: no record of ours would be taken.
        and all(one.nullable for one in others)
    )


def _is_setting(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _params(held: Mapping[str, str]) -> dict[str, Setting]:
    """Build parameters of an index: as JSON under ``params``, or beside the type, as versions have it."""
    params = _object(held.get("params"))
    beside = {name: value for name, value in held.items() if name not in {"index_type", "metric_type", "params"}}
    return {name: _number(value) for name, value in (beside | params).items() if name in _BUILD_NAMES}


_BUILD_NAMES = frozenset({"M", "efConstruction", "nlist", "m", "nbits", "with_raw_data"})


def _number(value: Any) -> Setting:
    text = str(value)
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return int(text) if text.lstrip("-").isdigit() else text
