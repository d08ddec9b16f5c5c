"""Records as Pinecone takes and gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import orjson
from pinecone.models.vectors.vector import ScoredVector, Vector

from vectorwright.errors import BatchRejected, BatchTooLarge

from ..base import Match, Record, RecordBatch
from .metadata import decode, encode_all

MAX_REQUEST_BYTES = 2 * 2**20
MAX_ID_LENGTH = 512
IDS_A_FETCH = 100
URL_BYTES_A_FETCH = 6_000
"""A fetch carries its ids in the address, and servers and proxies take addresses of about 8 KB."""


def check_ids(ids: Iterable[str], index: str) -> None:
    """Raise BatchRejected where an id is none that Pinecone takes."""
    for record_id in ids:
        if not possible_id(record_id):
            raise BatchRejected(
                f"index {index}: id {record_id[:64]!r} is not one that Pinecone takes: 1 to {MAX_ID_LENGTH} ASCII "
                "characters, none of them NUL"
            )


def possible_id(record_id: str) -> bool:
    """Whether a record can have the id at all."""
    return 0 < len(record_id) <= MAX_ID_LENGTH and record_id.isascii() and "\0" not in record_id


def encode_batch(batch: RecordBatch, index: str, namespace: str) -> bytes:
    """The body of an upsert: numbers of a vector as short as float32 allows, half of what a list of floats takes.

    Raises BatchRejected, which names the record, and BatchTooLarge.
    """
    check_ids(batch.ids, index)
    metadata = encode_all(batch, index)
    body: dict[str, object] = {
        "vectors": [
            {"id": record_id, "values": vector, "metadata": orjson.Fragment(held)}
            if held != b"{}"
            else {"id": record_id, "values": vector}
            for record_id, vector, held in zip(batch.ids, batch.vectors, metadata, strict=True)
        ]
    }
    if namespace:
        body["namespace"] = namespace
    encoded = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(encoded) > MAX_REQUEST_BYTES:
        raise BatchTooLarge(
            f"index {index}: {len(encoded)} bytes in one write as JSON; Pinecone takes {MAX_REQUEST_BYTES}"
        )
    return encoded


def fetches(ids: Sequence[str]) -> Iterator[list[str]]:
    """The ids of the requests that fetch them."""
    some: list[str] = []
    size = 0
    for record_id in ids:
        bytes_in_url = 3 * len(record_id) + len("&ids=")  # as if every character had to be escaped
        if some and (len(some) == IDS_A_FETCH or size + bytes_in_url > 3 * URL_BYTES_A_FETCH):
            yield some
            some, size = [], 0
        some.append(record_id)
        size += bytes_in_url
    if some:
        yield some


def read_record(found: Vector | ScoredVector, *, vectors: bool, metadata: bool) -> Record:
    """A record as it was asked for."""
    import numpy as np  # noqa: PLC0415 - the operator moves no vectors, and its memory is budgeted

    held, text = decode(found.metadata) if metadata else ({}, None)
    return Record(found.id, held, text, np.asarray(found.values, np.float32) if vectors else None)


def read_match(found: ScoredVector, metric: str | None, *, vectors: bool) -> Match:
    """A match; the score of Pinecone's euclidean metric is the squared distance."""
    score = -math.sqrt(max(found.score, 0.0)) if metric == "euclidean" else found.score
    return Match(read_record(found, vectors=vectors, metadata=True), score)
