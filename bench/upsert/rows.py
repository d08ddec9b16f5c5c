"""The rows that every contestant writes: 768 numbers, about 400 bytes of metadata, a text of 200 characters."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np

from vectorwright.stores.base import FieldDefinition, IndexDefinition, Metadata, RecordBatch, Vectors

DIMENSION = 768
FIELDS = (FieldDefinition("topic", "keyword"), FieldDefinition("year", "integer"))


@dataclass(frozen=True, slots=True)
class Rows:
    """``vectors`` has shape (n, 768), float32, of unit length; the lists have length n."""

    ids: list[str]
    vectors: Vectors
    metadata: list[Metadata]
    texts: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int) -> list[RecordBatch]:
        """The rows in batches, in order."""
        whole = RecordBatch(self.ids, self.vectors, self.metadata, [*self.texts])
        return [whole.part(start, start + size) for start in range(0, len(self), size)]


def make_rows(count: int, seed: int = 1) -> Rows:
    """``count`` rows, the same for the same seed."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Rows(
        [str(uuid.UUID(int=int.from_bytes(random.bytes(16)), version=4)) for _ in range(count)],
        np.ascontiguousarray(vectors),
        [
            {
                "topic": f"topic-{number % 17}",
                "year": 2000 + number % 26,
                "path": f"docs/section-{number % 101}/page-{number}.md",
                "heading": f"Chapter {number % 9} > Section {number % 31}",
                "summary": f"{number:06d} " + "lorem ipsum dolor sit amet " * 9,
            }
            for number in range(count)
        ],
        [f"{number:06d} " + "consectetur adipiscing elit sed do " * 6 for number in range(count)],
    )


def definition(name: str) -> IndexDefinition:
    """The index that every contestant fills: settings are the store's own."""
    return IndexDefinition(name, DIMENSION, "cosine", fields=FIELDS)
