"""Records for the contract suite."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from vectorwright.stores.base import (
    FieldDefinition,
    IndexDefinition,
    Metadata,
    OwnershipMark,
    Record,
    RecordBatch,
    Store,
    Vectors,
)
from vectorwright.stores.filters import Filter

DIMENSION = 8
MARK = OwnershipMark("install-1", "team-a", "docs")
FIELDS = (
    FieldDefinition("word", "keyword"),
    FieldDefinition("whole", "integer"),
    FieldDefinition("real", "float"),
    FieldDefinition("flag", "bool"),
)


def definition(name: str = "docs", metric: str = "cosine", dimension: int = DIMENSION) -> IndexDefinition:
    """An index with a mark and fields of every type that all stores have."""
    return IndexDefinition(name, dimension, metric, fields=FIELDS, mark=MARK, model_fingerprint="fp-1")


def vectors(count: int, dimension: int = DIMENSION, seed: int = 1) -> Vectors:
    """Random vectors of unit length, shape (count, dimension): they survive stores that normalise."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return np.ascontiguousarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def record_id(number: int) -> str:
    """A UUID, as ingestion makes: every store takes those."""
    return str(uuid.UUID(int=number + 1))


def batch(
    count: int,
    *,
    start: int = 0,
    metadata: Sequence[Metadata] | None = None,
    texts: Sequence[str | None] | None = None,
    seed: int = 1,
    dimension: int = DIMENSION,
) -> RecordBatch:
    """``count`` records with the ids from ``start``."""
    numbers = range(start, start + count)
    return RecordBatch(
        [record_id(number) for number in numbers],
        vectors(count, dimension, seed),
        [*(metadata or ({"word": f"w{number % 3}", "whole": number} for number in numbers))],
        [*(texts or (f"text {number}" for number in numbers))],
    )


async def scrolled(store: Store, where: Filter | None = None, *, page: int = 1000, name: str = "docs") -> list[Record]:
    """Everything that a scroll gives."""
    return [record async for records in store.scroll(name, where, page=page) for record in records]
