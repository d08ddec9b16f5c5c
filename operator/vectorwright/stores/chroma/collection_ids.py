"""Collections of Chroma as indexes: what is read from one, and what is written in its metadata.

Chroma has no place of its own for an owner, so it is kept in the collection's metadata under names that begin with
``vw_``; everything else there is the user's and stays. An empty collection tells no dimension, so the declared one is
kept there too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from vectorwright.errors import Retryable

from ..base import FieldDefinition, IndexDefinition, IndexDescription, OwnershipMark, Setting
from ..http_errors import UNEXPECTED_ANSWER

SPACES: Mapping[str, str] = {"cosine": "cosine", "dotproduct": "ip", "euclidean": "l2"}
"""Metric → space."""
METRICS = {space: metric for metric, space in SPACES.items()}

MARK = "vw_mark"
FINGERPRINT = "vw_fingerprint"
DIMENSION = "vw_dimension"
FIELDS = "vw_fields"
"""JSON object of name → type: metadata of a collection holds scalars only."""

MUTABLE = ("ef_search", "num_threads")
IMMUTABLE = ("ef_construction", "max_neighbors")


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the server tells it."""

    id: str
    name: str
    dimension: int | None
    """That of its vectors, or the declared one while it holds none. None where neither is known."""
    metric: str | None
    metadata: Mapping[str, Any]
    settings: Mapping[str, Setting]

    @classmethod
    def parse(cls, body: Any) -> Collection:
        """Raises Retryable where the answer is no collection."""
        try:
            configuration = body.get("configuration_json") or {}
            # A hosted server has SPANN in place of HNSW.
            tuned = configuration.get("hnsw") or configuration.get("spann") or {}
            metadata = body.get("metadata") or {}
            dimension = body.get("dimension") or metadata.get(DIMENSION)
            return cls(
                id=str(body["id"]),
                name=str(body["name"]),
                dimension=int(dimension) if isinstance(dimension, int | float) else None,
                metric=METRICS.get(str(tuned.get("space"))),
                metadata=metadata,
                settings=_settings(configuration.get("hnsw") or {}, body.get("schema") or {}),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Retryable(
                "Chroma answered with something that is no collection: check what is behind spec.chroma.url",
                reason=UNEXPECTED_ANSWER,
            ) from None

    def describe(self) -> IndexDescription:
        """The collection as an index."""
        fingerprint = self.metadata.get(FINGERPRINT)
        mark = self.metadata.get(MARK)
        return IndexDescription(
            name=self.name,
            dimension=self.dimension,
            metric=self.metric,
            incarnation=self.id,
            fields=self.fields(),
            settings=dict(self.settings),
            mark=OwnershipMark.parse(mark) if isinstance(mark, str) else None,
            model_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        )

    def fields(self) -> tuple[FieldDefinition, ...] | None:
        """The declared fields; None where nobody declared any, since Chroma filters by every field anyway."""
        text = self.metadata.get(FIELDS)
        if not isinstance(text, str):
            return None
        try:
            declared = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(declared, dict):
            return None
        return tuple(FieldDefinition(str(name), str(kind)) for name, kind in declared.items())


def _settings(hnsw: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings by dotted name. The number of threads is told by the schema alone, and not by servers without one."""
    found = {f"hnsw.{name}": hnsw[name] for name in (*IMMUTABLE, "ef_search") if hnsw.get(name) is not None}
    vectors: Any = schema.get("keys") or {}
    for step in ("#embedding", "float_list", "vector_index", "config", "hnsw"):
        vectors = vectors.get(step) or {}
    if vectors.get("num_threads") is not None:
        found["hnsw.num_threads"] = vectors["num_threads"]
    return found


def encode_fields(fields: Iterable[FieldDefinition]) -> str:
    """Declared fields as the collection's metadata holds them."""
    return orjson.dumps({field.name: field.type for field in fields}).decode()


def creation(definition: IndexDefinition) -> dict[str, Any]:
    """The body of the request that makes a collection."""
    metadata: dict[str, Any] = {DIMENSION: definition.dimension, FIELDS: encode_fields(definition.fields)}
    if definition.mark is not None:
        metadata[MARK] = str(definition.mark)
    if definition.model_fingerprint is not None:
        metadata[FINGERPRINT] = definition.model_fingerprint
    return {
        "name": definition.name,
        "get_or_create": False,
        "metadata": metadata,
        "configuration": {"hnsw": {"space": SPACES[definition.metric]} | hnsw(definition.settings)},
    }


def hnsw(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings without their prefix."""
    return {name.removeprefix("hnsw."): value for name, value in settings.items()}
