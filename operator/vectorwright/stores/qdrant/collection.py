"""Collections of Qdrant as indexes: what is read from one, and what is written in its metadata.

A collection's metadata (Qdrant 1.16) holds the owner, the model's fingerprint and a random identity under names that
begin with ``vw_``; everything else there is the user's and stays. Older servers drop it: there, and for a collection
that somebody else made, the identity is a hash of what distinguishes it, so one that is made again alike cannot be told
from the first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..base import RESERVED_FIELDS, FieldDefinition, IndexDescription, OwnershipMark, Setting
from .messages import grpc
from .names import EXACT
from .settings import found

DISTANCES: Mapping[str, str] = {"cosine": "Cosine", "dotproduct": "Dot", "euclidean": "Euclid"}
"""Metric → distance."""
METRICS = {distance: metric for metric, distance in DISTANCES.items()}

MARK = "vw_mark"
FINGERPRINT = "vw_fingerprint"
INCARNATION = "vw_incarnation"

OWN_FIELDS: Mapping[str, str] = {**RESERVED_FIELDS, EXACT: "keyword"}
"""Fields that are indexed in every collection, and their types."""
FIELD_TYPES: Mapping[str, str] = {
    "keyword": "FieldTypeKeyword",
    "integer": "FieldTypeInteger",
    "float": "FieldTypeFloat",
    "bool": "FieldTypeBool",
    "datetime": "FieldTypeDatetime",
}
"""Type of a metadata field → type of a payload index."""
_SCHEMAS: Mapping[int, str] = {
    grpc.PayloadSchemaType.Keyword: "keyword",
    grpc.PayloadSchemaType.Uuid: "keyword",
    grpc.PayloadSchemaType.Integer: "integer",
    grpc.PayloadSchemaType.Float: "float",
    grpc.PayloadSchemaType.Bool: "bool",
    grpc.PayloadSchemaType.Datetime: "datetime",
}
_NAME = re.compile(r"[A-Za-z0-9_-]+")

READY = frozenset({grpc.CollectionStatus.Green, grpc.CollectionStatus.Yellow, grpc.CollectionStatus.Grey})
"""States in which a collection takes writes: optimising or about to do so is no obstacle."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the server tells it."""

    name: str
    info: grpc.CollectionInfo
    vector: grpc.VectorParams | None = field(init=False)
    """Its vector; None where it has several, or several a point: such a collection is listed, not written to."""
    vector_name: str | None = field(init=False)
    """None is the vector without a name."""
    types: Mapping[str, str] = field(init=False)
    """Types of the indexed payload keys, reserved ones included; those without a type of ours have theirs."""

    def __post_init__(self) -> None:
        vector, name = _vector(self.info.config.params.vectors_config)
        object.__setattr__(self, "vector", vector)
        object.__setattr__(self, "vector_name", name)
        types = {
            key: _SCHEMAS.get(schema.data_type, grpc.PayloadSchemaType.Name(schema.data_type).lower())
            for key, schema in self.info.payload_schema.items()
            if _NAME.fullmatch(key)
        }
        object.__setattr__(self, "types", types)

    @property
    def dimension(self) -> int | None:
        """Numbers in a vector."""
        return self.vector.size if self.vector is not None else None

    @property
    def metric(self) -> str | None:
        """None where it is none of ours."""
        return METRICS.get(grpc.Distance.Name(self.vector.distance)) if self.vector is not None else None

    @property
    def integers(self) -> frozenset[str]:
        """Fields that are indexed as integers."""
        return frozenset(name for name, kind in self.types.items() if kind == "integer")

    @property
    def estimate(self) -> int:
        """Points, about: while segments are rewritten, some are counted twice."""
        return self.info.points_count

    def text(self, key: str) -> str | None:
        """A text of the collection's metadata."""
        entry = self.info.config.metadata
        return entry[key].string_value or None if key in entry else None

    def describe(self, count: int | None, *, exact: bool) -> IndexDescription:
        """The collection as an index, with the number of its points."""
        return IndexDescription(
            name=self.name,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=self.text(INCARNATION) or self._likeness(),
            fields=tuple(
                FieldDefinition(name, kind)
                for name, kind in sorted(self.types.items())
                if name not in OWN_FIELDS and kind in FIELD_TYPES
            ),
            settings=self.settings(),
            mark=OwnershipMark.parse(self.text(MARK)),
            model_fingerprint=self.text(FINGERPRINT),
            count=count,
            count_exact=exact,
        )

    def settings(self) -> dict[str, Setting]:
        """Tuning settings, by dotted name."""
        return found(self.info.config, self.vector)

    def _likeness(self) -> str:
        """An identity where none was written: when it was made, where the server tells, or else its shape."""
        told = f"{self.name}\n{self.dimension}\n{self.metric}"
        if self.info.HasField("created_at"):
            told = f"{self.name}\n{self.info.created_at.ToJsonString()}"
        return f"like-{hashlib.sha256(told.encode()).hexdigest()[:32]}"


def _vector(config: grpc.VectorsConfig) -> tuple[grpc.VectorParams | None, str | None]:
    name: str | None = None
    match config.WhichOneof("config"):
        case "params":
            vector = config.params
        case "params_map" if len(config.params_map.map) == 1:
            ((name, vector),) = config.params_map.map.items()
        case _:
            return None, None
    return (None, None) if vector.HasField("multivector_config") else (vector, name or None)


def metadata_of(values: Mapping[str, str | None]) -> dict[str, grpc.Value]:
    """Metadata to merge into a collection's; None removes a key."""
    null = grpc.Value(null_value=grpc.NullValue.NULL_VALUE)
    return {key: null if value is None else grpc.Value(string_value=value) for key, value in values.items()}
