"""Searching, in every store: at this size the answer is that of comparing with everything.

- the nearest come first, in the order of exact search
- scores are what the protocol says for each metric: higher is nearer
- filters hold while searching, and a rare match is still found
- questions that make no sense are refused
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from tests.contract.data import DIMENSION, batch, definition, record_id, vectors

from vectorwright.errors import Terminal
from vectorwright.stores.base import Store, Vectors
from vectorwright.stores.filters import And, Eq, Ne, Or, Range

pytestmark = pytest.mark.server
METRICS = ("cosine", "dotproduct", "euclidean")
COUNT = 60


def exact(stored: Vectors, asked: Vectors, metric: str) -> npt.NDArray[np.float64]:
    """Scores by definition, shape (n,)."""
    rows, one = stored.astype(np.float64), asked.astype(np.float64)
    match metric:
        case "cosine":
            return np.asarray(rows @ one / (np.linalg.norm(rows, axis=1) * np.linalg.norm(one)))
        case "dotproduct":
            return np.asarray(rows @ one)
        case _:
            return np.asarray(-np.linalg.norm(rows - one, axis=1))


def stretched(count: int, seed: int = 1) -> Vectors:
    """Vectors of different lengths, so that the three metrics order them differently."""
    return np.ascontiguousarray(vectors(count, seed=seed) * np.linspace(0.5, 4, count, dtype=np.float32)[:, None])


@pytest.mark.parametrize("metric", METRICS)
async def test_order_and_scores_are_those_of_exact_search(store: Store, metric: str) -> None:
    await store.create_index(definition("docs", metric))
    written = replace(batch(COUNT), vectors=stretched(COUNT))
    await store.upsert("docs", written)
    for asked in stretched(5, seed=9):
        scores = exact(written.vectors, asked, metric)
        matches = await store.query("docs", asked, 10)
        assert [match.record.id for match in matches] == [record_id(int(at)) for at in np.argsort(-scores)[:10]]
        np.testing.assert_allclose([match.score for match in matches], np.sort(scores)[::-1][:10], rtol=1e-3, atol=1e-4)


async def test_matches_carry_metadata_text_and_the_vector_when_asked(docs: Store) -> None:
    written = batch(3)
    await docs.upsert("docs", written)
    (match,) = await docs.query("docs", written.vectors[1], 1)
    assert match.record.id == record_id(1)
    assert match.record.metadata == written.metadata[1]
    assert match.record.text == "text 1"
    assert match.record.vector is None
    (match,) = await docs.query("docs", written.vectors[1], 1, vectors=True)
    np.testing.assert_allclose(match.record.vector, written.vectors[1], atol=1e-6)  # type: ignore[arg-type]
    assert match.score == pytest.approx(1.0, abs=1e-4)


async def test_the_length_of_the_question_does_not_matter_to_cosine(docs: Store) -> None:
    await docs.upsert("docs", batch(5))
    short, long = vectors(1, seed=4)[0], np.ascontiguousarray(vectors(1, seed=4)[0] * np.float32(20))
    one, other = await docs.query("docs", short, 5), await docs.query("docs", long, 5)
    assert [match.record.id for match in one] == [match.record.id for match in other]
    np.testing.assert_allclose([match.score for match in one], [match.score for match in other], atol=1e-4)


async def test_more_asked_than_there_are(docs: Store) -> None:
    await docs.upsert("docs", batch(4))
    assert len(await docs.query("docs", vectors(1)[0], 100)) == 4


async def test_an_empty_index_has_no_matches(docs: Store) -> None:
    assert await docs.query("docs", vectors(1)[0], 10) == []


@pytest.mark.parametrize("metric", METRICS)
async def test_filters_hold_while_searching(store: Store, metric: str) -> None:
    await store.create_index(definition("docs", metric))
    written = replace(batch(COUNT), vectors=stretched(COUNT))
    await store.upsert("docs", written)
    where = And((Ne("word", "w1"), Range("whole", gte=10)))
    allowed = [n for n in range(COUNT) if n % 3 != 1 and n >= 10]
    asked = stretched(1, seed=9)[0]
    scores = exact(written.vectors, asked, metric)
    expected = sorted(allowed, key=lambda n: -scores[n])[:10]
    matches = await store.query("docs", asked, 10, where)
    assert [match.record.id for match in matches] == [record_id(n) for n in expected]


async def test_a_rare_match_is_found_among_many(store: Store) -> None:
    await store.create_index(definition("docs"))
    for start in range(0, 4_000, 1_000):
        await store.upsert("docs", batch(1_000, start=start, seed=start))
    matches = await store.query("docs", vectors(1, seed=77)[0], 5, Eq("whole", 3_210))
    assert [match.record.id for match in matches] == [record_id(3_210)]
    assert len(await store.query("docs", vectors(1, seed=77)[0], 300)) == 300


async def test_a_filter_that_nothing_matches(docs: Store) -> None:
    await docs.upsert("docs", batch(4))
    assert await docs.query("docs", vectors(1)[0], 10, Eq("word", "nobody")) == []
    assert await docs.query("docs", vectors(1)[0], 10, Or(())) == []
    assert len(await docs.query("docs", vectors(1)[0], 10, And(()))) == 4


async def test_a_record_is_found_where_it_was_last_written(docs: Store) -> None:
    await docs.upsert("docs", batch(30))
    moved = vectors(30, seed=5)
    await docs.upsert("docs", replace(batch(30), vectors=moved))
    for at in (0, 13, 29):
        (match,) = await docs.query("docs", moved[at], 1)
        assert match.record.id == record_id(at)
        assert match.score == pytest.approx(1.0, abs=1e-4)
    assert all(match.score < 0.999 for match in await docs.query("docs", vectors(30)[7], 30))


async def test_a_deleted_record_is_never_found(docs: Store) -> None:
    await docs.upsert("docs", batch(30))
    await docs.delete("docs", [record_id(number) for number in range(0, 30, 2)])
    found = {match.record.id for match in await docs.query("docs", vectors(1)[0], 30)}
    assert found == {record_id(number) for number in range(1, 30, 2)}


async def test_records_at_the_same_place_are_all_found(docs: Store) -> None:
    same = np.ascontiguousarray(np.repeat(vectors(1), 12, axis=0))
    await docs.upsert("docs", replace(batch(12), vectors=same))
    found = await docs.query("docs", same[0], 12)
    assert sorted(match.record.id for match in found) == [record_id(number) for number in range(12)]
    np.testing.assert_allclose([match.score for match in found], 1.0, atol=1e-4)


async def test_searches_at_once_agree(docs: Store) -> None:
    await docs.upsert("docs", batch(COUNT))
    asked = vectors(8, seed=3)
    alone = [[match.record.id for match in await docs.query("docs", one, 10)] for one in asked]
    together = await asyncio.gather(*(docs.query("docs", one, 10) for one in asked))
    assert [[match.record.id for match in matches] for matches in together] == alone


@pytest.mark.parametrize("wrong", ["dimension", "nan", "zero", "top_k"])
async def test_questions_without_sense_are_terminal(docs: Store, wrong: str) -> None:
    await docs.upsert("docs", batch(4))
    asked, top_k = vectors(1)[0].copy(), 3
    match wrong:
        case "dimension":
            asked = vectors(1, DIMENSION + 1)[0]
        case "nan":
            asked[0] = np.nan
        case "zero":
            asked[:] = 0
        case _:
            top_k = 0
    with pytest.raises(Terminal) as refused:
        await docs.query("docs", asked, top_k)
    assert refused.value.reason == "InvalidQuery"
