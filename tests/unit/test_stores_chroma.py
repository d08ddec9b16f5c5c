"""The parts of the Chroma store that decide without a server.

- literals and operators that make a clause mean what the filter means, to a server that compares as Chroma does
- size limits of clauses
- a list that moves while it is read is read again, and given up in the end
- waiting batches join within bounds; one that is refused is told alone; a cancelled one leaves the others
- distances as scores; answers that are no records
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.errors import BatchRejected, Retryable, Terminal
from vectorwright.stores.base import RecordBatch
from vectorwright.stores.chroma.collection_ids import Collection
from vectorwright.stores.chroma.filters import MAX_COMPARISONS, MAX_VALUES, translate
from vectorwright.stores.chroma.listing import snapshot
from vectorwright.stores.chroma.records import EncodedBatch, decode_matches, decode_records, encode_batch, score
from vectorwright.stores.chroma.writer import CombiningWriter
from vectorwright.stores.filters import And, Eq, Filter, In, Not, Or, Range, matches
from vectorwright.stores.http_client import normalised

numbers = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.sampled_from([0.5, -0.5, 1.0000000000000002, 0.9999999999999999, 5e-324, -5e-324, -0.0]),
)


def as_chroma_compares(clause: Any, stored: float) -> bool:
    """Whether a number matches, with Chroma's habit of cutting a literal to an integer for integers."""
    if isinstance(clause, bool):
        return clause
    ((key, operand),) = clause.items()
    if key in {"$and", "$or"}:
        return (all if key == "$and" else any)(as_chroma_compares(part, stored) for part in operand)
    ((operator, literal),) = operand.items()
    literal = orjson.loads(orjson.dumps(literal))
    literals = [
        math.trunc(one) if isinstance(stored, int) else one
        for one in (literal if isinstance(literal, list) else [literal])
    ]
    compare: dict[str, Callable[[], bool]] = {
        "$eq": lambda: stored == literals[0],
        "$ne": lambda: stored != literals[0],
        "$in": lambda: stored in literals,
        "$nin": lambda: stored not in literals,
        "$gt": lambda: stored > literals[0],
        "$gte": lambda: stored >= literals[0],
        "$lt": lambda: stored < literals[0],
        "$lte": lambda: stored <= literals[0],
    }
    return compare[operator]()


@given(stored=numbers, bound=numbers, sign=st.sampled_from(["gt", "gte", "lt", "lte"]))
def test_ranges_hold_for_integers_and_floats(stored: float, bound: float, sign: str) -> None:
    where = Range("f", **{sign: bound})
    assert as_chroma_compares(translate(where), stored) == matches(where, {"f": stored})


@given(stored=numbers, values=st.lists(numbers, max_size=4), negated=st.booleans())
def test_equality_holds_for_integers_and_floats(stored: float, values: list[float], negated: bool) -> None:
    where: Filter = In("f", (*values, math.trunc(stored)))
    where = Not(where) if negated else where
    assert as_chroma_compares(translate(where), stored) == matches(where, {"f": stored})


@pytest.mark.parametrize(
    ("where", "clause"),
    [
        (Eq("vw_source", "a"), {"vw_source": {"$eq": "a"}}),
        (Eq("flag", True), {"flag": {"$eq": True}}),
        (Eq("n", 2.0), {"n": {"$eq": 2}}),
        (Eq("word", "a"), {"$or": [{"word": {"$eq": "a"}}, {"word": {"$contains": "a"}}]}),
        (In("n", ()), False),
        (Not(In("n", ())), True),
        (
            And((Eq("n", 1), And((Eq("m", 2), Eq("k", 3))))),
            {"$and": [{"n": {"$eq": 1}}, {"m": {"$eq": 2}}, {"k": {"$eq": 3}}]},
        ),
        (And((Eq("n", 1), Or(()))), False),
        (Or((Eq("n", 1), And(()))), True),
        (Range("n", gt=1, lt="a"), False),
    ],
)
def test_clauses_are_as_small_as_they_can_be(where: Filter, clause: object) -> None:
    assert translate(where) == clause


def test_clauses_that_the_server_would_choke_on_are_refused() -> None:
    for where in (
        Or(tuple(Range("n", gt=n) for n in range(MAX_COMPARISONS + 1))),
        In("n", tuple(range(MAX_VALUES + 1))),
    ):
        with pytest.raises(Terminal) as refused:
            translate(where)
        assert refused.value.reason == "UnsupportedFilter"
    nested: Filter = Range("n", gt=0)
    for n in range(300):
        nested = And((nested, Range("n", gt=n)))
    assert "$and" in str(translate(nested))


async def test_a_list_that_moves_is_read_again() -> None:
    items = list(range(10))
    asked: list[int] = []

    async def page(limit: int, offset: int) -> list[int]:
        asked.append(offset)
        found = items[offset : offset + limit]
        if len(asked) == 2:
            items.remove(0)
        return found

    assert await snapshot(page, 4, key=lambda one: one) == list(range(1, 10))
    asked.clear()
    assert await snapshot(page, 100, key=lambda one: one) == list(range(1, 10))
    assert asked == [0]


async def test_a_list_that_never_stands_still_is_given_up() -> None:
    items = list(range(1_000))

    async def page(limit: int, offset: int) -> list[int]:
        items.pop(0)
        return items[offset : offset + limit]

    with pytest.raises(Retryable) as moving:
        await snapshot(page, 4, key=lambda one: one)
    assert moving.value.reason == "ListingChanged"


def encoded(*ids: str, size: int = 10) -> EncodedBatch:
    count = len(ids)
    return EncodedBatch(list(ids), [[1.0]] * count, [None] * count, [None] * count, size)


class Server:
    """Takes batches one after the other, and refuses those with a bad id."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.open = asyncio.Event()

    async def send(self, batch: EncodedBatch) -> None:
        await self.open.wait()
        self.sent.append(batch.ids)
        await asyncio.sleep(0)
        if "bad" in batch.ids:
            raise BatchRejected("no")
        if "down" in batch.ids:
            raise Retryable("down")


async def joined(*batches: EncodedBatch, max_records: int = 100, max_bytes: int = 1_000) -> tuple[Server, list[Any]]:
    """Write batches that all come while the first is under way."""
    server = Server()
    writer = CombiningWriter(server.send, max_records, max_bytes, asyncio.Lock())
    tasks = [asyncio.create_task(writer.write(batch)) for batch in batches]
    await asyncio.sleep(0)
    server.open.set()
    return server, await asyncio.gather(*tasks, return_exceptions=True)


async def test_waiting_batches_are_joined_within_bounds() -> None:
    server, results = await joined(*(encoded(f"a{n}", f"b{n}") for n in range(6)), max_records=6)
    assert results == [None] * 6
    assert max(map(len, server.sent)) == 6
    assert sorted(record_id for ids in server.sent for record_id in ids) == sorted(
        f"{x}{n}" for n in range(6) for x in "ab"
    )
    server, results = await joined(*(encoded(f"a{n}", size=400) for n in range(4)))
    assert max(map(len, server.sent)) == 2


async def test_batches_that_share_an_id_go_in_their_order() -> None:
    server, results = await joined(encoded("x"), encoded("a", "same"), encoded("same", "b"), encoded("c"))
    assert results == [None] * 4
    first = next(at for at, ids in enumerate(server.sent) if "a" in ids)
    second = next(at for at, ids in enumerate(server.sent) if "b" in ids)
    assert first < second


async def test_a_refusal_is_told_to_its_batch_alone() -> None:
    server, results = await joined(encoded("x"), encoded("a"), encoded("bad"), encoded("b"))
    assert [type(result) for result in results] == [type(None), type(None), BatchRejected, type(None)]
    assert ["a"] in server.sent
    assert ["b"] in server.sent


async def test_a_server_that_is_down_is_told_to_all_that_were_sent_together() -> None:
    _, results = await joined(encoded("x"), encoded("down"), encoded("a"))
    assert [type(result) for result in results] == [type(None), Retryable, Retryable]


async def test_a_cancelled_write_leaves_the_others_to_be_sent() -> None:
    server = Server()
    writer = CombiningWriter(server.send, 100, 1_000, asyncio.Lock())
    tasks = [asyncio.create_task(writer.write(encoded(one))) for one in ("a", "b", "c")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.sleep(0)
    server.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1] is None
    assert any("b" in ids for ids in server.sent)
    await writer.write(encoded("d"))


@pytest.mark.parametrize(
    ("metric", "distance", "expected"),
    [
        ("cosine", 0.25, 0.75),
        ("dotproduct", -3.0, 4.0),
        ("euclidean", 9.0, -3.0),
        ("euclidean", -1e-9, 0.0),
        ("cosine", None, -math.inf),
    ],
)
def test_distances_become_scores(metric: str, distance: float | None, expected: float) -> None:
    assert score(distance, metric) == expected


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, "x", {"ids": 7}, {"ids": ["a"], "metadatas": [{}, {}]}, {"ids": ["a"], "embeddings": [["x"]]}],
)
def test_answers_that_are_no_records_are_retryable(answer: Any) -> None:
    with pytest.raises(Retryable) as raised:
        decode_records(answer, metadata=True)
    assert raised.value.reason == "UnexpectedAnswer"
    with pytest.raises(Retryable):
        decode_matches(answer, "cosine")


@pytest.mark.parametrize("answer", [None, [], {}, {"id": "a"}, {"id": "a", "name": "b", "metadata": 5}, "x"])
def test_answers_that_are_no_collections_are_retryable(answer: Any) -> None:
    with pytest.raises(Retryable):
        Collection.parse(answer)


def test_what_is_stale_is_sent_as_null() -> None:
    from vectorwright.stores.base import Record

    batch = RecordBatch(["a", "b"], np.ones((2, 2), np.float32), [{"x": 1}, {}], [None, "t"])
    sent = encode_batch(batch, [b'{"x":1}', b"{}"], {"a": Record("a", {"x": 2, "y": ["z"]})}, as_base64=True)
    body = orjson.loads(sent.body())
    assert body == {
        "ids": ["a", "b"],
        "embeddings": ["AACAPwAAgD8=", "AACAPwAAgD8="],
        "metadatas": [{"x": 1, "y": None}, None],
        "documents": [None, "t"],
    }


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://Chroma.Example:80/", "http://chroma.example"),
        ("https://chroma.example:443", "https://chroma.example"),
        ("https://chroma.example:8443/Base/", "https://chroma.example:8443/Base"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://user:pass@chroma.example/?token=x", "http://chroma.example"),
    ],
)
def test_one_server_has_one_address(url: str, endpoint: str) -> None:
    assert normalised(url) == endpoint
