"""Records as Chroma takes and gives them.

An upsert of Chroma merges: it keeps metadata that the new record no longer has, and the text where the new one has
none. Replacing therefore means to send ``null`` for what is stale, and a text can only be removed with its record.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from vectorwright.errors import BatchRejected, Retryable

from ..base import Match, Metadata, Record, RecordBatch, Vectors
from ..http_errors import UNEXPECTED_ANSWER

_OWN_NAMES = ("#", "$", "chroma:")
"""What begins so is Chroma's own. It refuses the first two; the third can end the server's writer for good."""
EMPTY = "vw_empty"
"""Holds the names of a record's lists that are empty: the server would forget them."""
_COLUMNS = ("ids", "embeddings", "metadatas", "documents", "distances")


def check_names(batch: RecordBatch, index: str) -> None:
    """Raises BatchRejected where a name of metadata is Chroma's own."""
    for record_id, metadata in zip(batch.ids, batch.metadata, strict=True):
        for name in metadata:
            if name == EMPTY:
                raise BatchRejected(f"index {index}, record {record_id!r}: metadata {EMPTY!r} is a name of ours")
            if name.startswith(_OWN_NAMES):
                raise BatchRejected(
                    f"index {index}, record {record_id!r}: metadata {name[:63]!r} begins like a name of Chroma's own"
                )


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Records as JSON, column by column, so that batches can be joined without being encoded again."""

    ids: list[str]
    embeddings: list[orjson.Fragment | list[float]]
    metadatas: list[orjson.Fragment | None]
    documents: list[str | None]
    size: int
    """Bytes, about."""

    def __add__(self, other: EncodedBatch) -> EncodedBatch:
        return EncodedBatch(
            self.ids + other.ids,
            self.embeddings + other.embeddings,
            self.metadatas + other.metadatas,
            self.documents + other.documents,
            self.size + other.size,
        )

    def body(self) -> bytes:
        """The body of an upsert."""
        return orjson.dumps(
            {
                "ids": self.ids,
                "embeddings": self.embeddings,
                "metadatas": self.metadatas,
                "documents": self.documents,
            }
        )


def encode_batch(
    batch: RecordBatch, encoded: Sequence[bytes], existing: Mapping[str, Record], *, as_base64: bool
) -> EncodedBatch:
    """``encoded`` is the metadata of the records as JSON, ``existing`` what the index holds under their ids."""
    metadatas = [orjson.Fragment(text) if len(text) > 2 else None for text in encoded]  # {} is refused by some servers
    for at, record_id in enumerate(batch.ids):
        written = _without_empty(batch.metadata[at])
        stale = _without_empty(existing[record_id].metadata).keys() - written.keys() if record_id in existing else None
        if stale or written is not batch.metadata[at]:
            metadatas[at] = orjson.Fragment(orjson.dumps({**written, **dict.fromkeys(stale or ())}))
    size = sum(map(len, encoded)) + sum(len(text) for text in batch.texts if text) + batch.vectors.nbytes * 4 // 3
    return EncodedBatch(batch.ids, _embeddings(batch.vectors, as_base64=as_base64), metadatas, batch.texts, size)


def _without_empty(metadata: Metadata) -> Metadata:
    """Metadata as the server keeps it; the very same where none of its lists is empty."""
    empty = [name for name, value in metadata.items() if isinstance(value, list) and not value]
    if not empty:
        return metadata
    return {**{name: value for name, value in metadata.items() if name not in empty}, EMPTY: empty}


def _with_empty(stored: Metadata) -> Metadata:
    """What :func:`_without_empty` was given."""
    empty = stored.get(EMPTY)
    if not isinstance(empty, list):
        return stored
    return {**{name: value for name, value in stored.items() if name != EMPTY}, **{name: [] for name in empty}}


def _embeddings(vectors: Vectors, *, as_base64: bool) -> list[orjson.Fragment | list[float]]:
    if not as_base64:
        return list(vectors.tolist())
    import numpy as np  # noqa: PLC0415 - the operator moves no vectors, and its memory is budgeted

    rows = np.ascontiguousarray(vectors, "<f4")
    # Base64 holds nothing that JSON escapes.
    return [orjson.Fragment(b'"%b"' % base64.b64encode(row)) for row in rows]


@contextmanager
def _understood() -> Iterator[None]:
    """An answer of another shape than Chroma's is Retryable: something else answered."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise Retryable(
            "Chroma answered a read with something that is no list of records: check what is behind spec.chroma.url",
            reason=UNEXPECTED_ANSWER,
        ) from None


def decode_ids(answer: Any) -> list[str]:
    """The ids of a ``get``."""
    with _understood():
        return [*map(str, answer["ids"])]


def decode_records(answer: Any, *, metadata: bool) -> list[Record]:
    """The records of a ``get``."""
    with _understood():
        return _records(answer, metadata=metadata)


def decode_matches(answer: Any, metric: str | None) -> list[Match]:
    """The matches of a ``query`` with one vector."""
    with _understood():
        first = {name: answer[name][0] for name in _COLUMNS if answer.get(name)}
        records = _records(first, metadata=True)
        return [
            Match(record, score(distance, metric)) for record, distance in zip(records, first["distances"], strict=True)
        ]


def _records(columns: Mapping[str, Any], *, metadata: bool) -> list[Record]:
    import numpy as np  # noqa: PLC0415 - as above

    ids = columns["ids"]
    missing = [None] * len(ids)
    embeddings = columns.get("embeddings") or missing
    metadatas: Sequence[Metadata | None] = columns.get("metadatas") or missing
    documents = columns.get("documents") or missing
    return [
        Record(
            record_id,
            _with_empty(values or {}) if metadata else {},
            text if metadata else None,
            None if vector is None else np.asarray(vector, np.float32),
        )
        for record_id, vector, values, text in zip(ids, embeddings, metadatas, documents, strict=True)
    ]


def score(distance: float | None, metric: str | None) -> float:
    """Chroma's distance as a score, higher is nearer: it gives 1 - cosine, 1 - inner product, or the squared distance.

    None, for a distance that is no number, is as far as can be.
    """
    if distance is None:
        return float("-inf")
    if metric == "euclidean":
        return -math.sqrt(max(distance, 0.0))
    return 1.0 - distance
