"""Query results agree with exact search, in every store at its defaults.

- recall@10 of at least 0.95 over 10,000 vectors of 128 dimensions of real text, with questions that are not among them
- 1.0 where the store says that its search is exact
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.contract.data import definition, record_id
from tests.contract.real_vectors import DIMENSION, STORED, real_vectors

from vectorwright.stores.base import Match, RecordBatch, Store, Vectors

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]
TOP_K = 10
LEAST = 0.95
WRITERS = 4
BYTES_A_RECORD = 4_000
"""A vector of 128 numbers as text, with its id and metadata, at most."""
TIE = 1e-5
"""Scores of float32 that differ less are equal."""


async def fill(store: Store, stored: Vectors) -> None:
    """Write all vectors in batches that the store takes."""
    limits = store.capabilities
    size = max(1, min(1_000, limits.max_batch_records, limits.max_batch_bytes // BYTES_A_RECORD))
    slots = asyncio.Semaphore(WRITERS)

    async def write(start: int) -> None:
        rows = range(start, min(start + size, len(stored)))
        async with slots:
            await store.upsert(
                "docs",
                RecordBatch(
                    [record_id(row) for row in rows],
                    stored[start : rows.stop],
                    [{"whole": row} for row in rows],
                    [None] * len(rows),
                ),
            )

    await asyncio.gather(*(write(start) for start in range(0, len(stored), size)))


def recall(found: list[list[Match]], stored: Vectors, asked: Vectors) -> float:
    """Share of the true nearest that were found. One as near as the last of them counts as one of them."""
    scores = asked.astype(np.float64) @ stored.astype(np.float64).T
    rows = {record_id(row): row for row in range(len(stored))}
    hits = 0
    for at, matches in enumerate(found):
        least = np.sort(scores[at])[-TOP_K] - TIE
        hits += len({match.record.id for match in matches[:TOP_K] if scores[at, rows[match.record.id]] >= least})
    return hits / (TOP_K * len(asked))


async def test_recall_at_the_defaults_of_a_store(store: Store) -> None:
    stored, asked = real_vectors()
    await store.create_index(definition("docs", "cosine", DIMENSION))
    await store.probe()
    await fill(store, stored)
    assert await store.count("docs") == STORED
    found = [await store.query("docs", one, TOP_K) for one in asked]
    measured = recall(found, stored, asked)
    assert measured == 1.0 if store.capabilities.exact_search else measured >= LEAST
