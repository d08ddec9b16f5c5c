"""Filters, in every store: a store agrees with ``filters.matches`` on everything, or says that it cannot.

- 200 generated filters over records of all types, with fields absent, of other types, times and lists; most of them are
  answered, the others refused as the store's capabilities say
- the cases that stores get wrong, one by one
- what a store cannot express is refused by name, never ignored; which filters those are is said in ``providers``
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.conftest import StoreFactory
from tests.contract.data import FIELDS, batch, definition, record_id, scrolled, vectors
from tests.contract.generated_filters import LISTS, RECORDS, TIMES, filters
from tests.contract.providers import Provider

from vectorwright.errors import Terminal
from vectorwright.stores.base import FieldDefinition, Metadata, Store
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, matches

pytestmark = pytest.mark.server
LEAST_ANSWERED = 0.6
"""Share of the generated filters that every store answers."""


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store whose index ``docs`` holds ``RECORDS``, and ``LISTS`` and times where it takes them."""
    fields = (*FIELDS, *([FieldDefinition("when", "datetime")] if has_times(store) else []))
    await store.create_index(replace(definition(), fields=fields))
    everything = expected_records(store)
    await store.upsert("docs", batch(len(everything), metadata=everything))
    return store


def has_times(store: Store) -> bool:
    return "datetime" in store.capabilities.field_types


def expected_records(store: Store) -> list[Metadata]:
    records = RECORDS + (LISTS if store.capabilities.list_metadata else [])
    if not has_times(store):
        return records
    return [
        one if number % 4 == 0 else {**one, "when": TIMES[number % len(TIMES)]} for number, one in enumerate(records)
    ]


async def check(store: Store, provider: Provider, where: Filter) -> bool:
    """The store finds what ``matches`` finds, or refuses where it may: whether it answered."""
    if provider.may_refuse(where):
        assert store.capabilities.filter_limits, "a store that refuses filters says which"
        with pytest.raises(Terminal) as refused:
            await scrolled(store, where)
        assert refused.value.reason == "UnsupportedFilter"
        with pytest.raises(Terminal):
            await store.delete_where("docs", where)
        return False
    expected = [record_id(at) for at, metadata in enumerate(expected_records(store)) if matches(where, metadata)]
    assert sorted(record.id for record in await scrolled(store, where)) == sorted(expected)
    return True


async def generated(
    strategy: st.SearchStrategy[Filter], count: int, one: Callable[[Filter], Awaitable[bool]]
) -> list[bool]:
    """What ``one`` says of ``count`` filters, the same in every run. Hypothesis shrinks what fails in a thread."""
    loop, answered = asyncio.get_running_loop(), []

    @given(where=strategy)
    @settings(max_examples=count, deadline=None, derandomize=True, database=None)
    def every(where: Filter) -> None:
        answered.append(asyncio.run_coroutine_threadsafe(_awaited(one(where)), loop).result(60))

    await asyncio.to_thread(every)
    return answered


async def _awaited(what: Awaitable[bool]) -> bool:
    return await what


async def test_a_store_agrees_with_the_meaning_of_200_generated_filters(filled: Store, provider: Provider) -> None:
    answered = await generated(filters(times=has_times(filled)), 200, lambda where: check(filled, provider, where))
    assert len(answered) >= 200
    assert sum(answered) >= LEAST_ANSWERED * len(answered), "a store that refuses most filters proves little"


CASES: dict[str, Filter] = {
    "true is not 1": Eq("any", True),
    "1 is not true": Eq("any", 1),
    "1 is 1.0": Eq("whole", 1.0),
    "1.0 is 1": Eq("real", 1),
    "1 is not '1'": Eq("any", "1"),
    "'true' is not true": Eq("any", "true"),
    "1.5 is not 1": Eq("any", 1.5),
    "not 1.5 is still 1": Ne("any", 1.5),
    "zero": Eq("any", 0),
    "false": Eq("flag", False),
    "the empty string": Eq("word", ""),
    "case counts": Eq("word", "a"),
    "a quote": Eq("word", "it's"),
    "a percent sign": Eq("word", "%"),
    "absent is not equal": Ne("word", "a"),
    "absent everywhere": Ne("absent", "a"),
    "never there": Eq("absent", "a"),
    "one of mixed types": In("any", ("a", 1, 1.5, True)),
    "none of mixed types": Not(In("any", ("a", 1, 1.5, True))),
    "one of none": In("word", ()),
    "none of none": Not(In("word", ())),
    "fractions below zero": In("any", (-0.5, -1.5)),
    "from a fraction": Range("any", gte=0.5),
    "above a fraction": Range("any", gt=-0.5),
    "below a fraction": Range("any", lt=1.5),
    "up to a fraction": Range("any", lte=-0.5),
    "between": Range("whole", gte=-1, lt=2),
    "an empty range": Range("whole", gt=5, lt=1),
    "numbers and strings at once": Range("any", gt=1, lt="b"),
    "booleans are no numbers": Range("any", gte=0, lte=1),
    "strings by code point": Range("word", gte="A", lt="b"),
    "time": Range("word", gte="2024-01-01T00:00:00Z", lt="2024-12-31T00:00:00Z"),
    "there": Exists("word"),
    "not there": Not(Exists("flag")),
    "not a range": Not(Range("whole", gt=0)),
    "no and": And(()),
    "no or": Or(()),
    "not everything": Not(And(())),
    "twice not": Not(Not(Eq("word", "a"))),
    "not and": Not(And((Eq("word", "a"), Eq("flag", True)))),
    "not or": Not(Or((Eq("word", "a"), Eq("flag", True)))),
    "nested": And((Or((Eq("word", "a"), Eq("whole", 2))), Or((Ne("flag", True), Range("real", gt=0))), And(()))),
    "a list holds it": Eq("tags", "a"),
    "a list does not hold it": Ne("tags", "a"),
    "a list holds one of": In("tags", ("b", "ü")),
    "a list holds none of": Not(In("tags", ("b", "ü"))),
    "a list holds no number": Eq("tags", 1),
    "a list is no range": Range("tags", gte="a"),
    "reserved": And((Eq("vw_source", "ns/job-1"), Range("vw_n", gte=3))),
}


@pytest.mark.parametrize("case", list(CASES))
async def test_cases_that_stores_get_wrong(filled: Store, provider: Provider, case: str) -> None:
    await check(filled, provider, CASES[case])


async def test_counting_and_searching_take_filters_alike(filled: Store, provider: Provider) -> None:
    records = expected_records(filled)

    async def one(where: Filter) -> bool:
        if provider.may_refuse(where):
            for call in (filled.count, partial(filled.query, vector=vectors(1)[0], top_k=100)):
                with pytest.raises(Terminal) as refused:
                    await call("docs", where=where)
                assert refused.value.reason == "UnsupportedFilter"
            return False
        expected = sorted(record_id(at) for at, metadata in enumerate(records) if matches(where, metadata))
        assert await filled.count("docs", where) == len(expected)
        found = await filled.query("docs", vectors(1)[0], 100, where)
        assert sorted(match.record.id for match in found) == expected
        return True

    answered = await generated(filters(times=has_times(filled)), 40, one)
    assert sum(answered) >= LEAST_ANSWERED * len(answered)


TIME_CASES: dict[str, Filter] = {
    "an instant": Eq("when", "2024-05-01T00:00:00Z"),
    "another instant": Ne("when", "2024-05-01T00:00:00Z"),
    "one of instants": In("when", ("2024-05-01T00:00:00Z", "2025-01-01T00:00:00Z")),
    "since": Range("when", gte="2024-05-01T00:00:00Z"),
    "after": Range("when", gt="2024-05-01T00:00:00Z"),
    "before": Range("when", lt="2024-05-01T00:00:00Z"),
    "until": Range("when", lte="2024-05-01T00:00:00Z"),
    "between": Range("when", gte="2024-05-01T00:00:00Z", lt="2025-01-01T00:00:00Z"),
    "never": Range("when", gt="2025-01-01T00:00:00Z", lt="2024-05-01T00:00:00Z"),
    "not since": Not(Range("when", gte="2024-05-01T00:00:00Z")),
    "with a time": Exists("when"),
    "without a time": Not(Exists("when")),
    "since, and a word": And((Range("when", gte="2024-05-01T00:00:00Z"), Eq("word", "a"))),
}


@pytest.mark.parametrize("case", list(TIME_CASES))
async def test_points_in_time_compare_as_time(filled: Store, provider: Provider, case: str) -> None:
    if not has_times(filled):
        # Then it is refused when the index is made, and its values are text like any other.
        with pytest.raises(Terminal) as refused:
            await filled.create_index(replace(definition("times"), fields=(FieldDefinition("when", "datetime"),)))
        assert refused.value.reason == "InvalidField"
        return
    await check(filled, provider, TIME_CASES[case])


@pytest.mark.parametrize("field", ["a b", "a'b", 'a"b', "a;--", "a.b", "ключ", "x" * 63, "{}", "%s"])
async def test_odd_field_names_are_only_names(store: Store, field: str) -> None:
    await store.create_index(definition())
    await store.upsert("docs", batch(2, metadata=[{field: "yes"}, {"word": "no"}]))
    assert [record.id for record in await scrolled(store, Eq(field, "yes"))] == [record_id(0)]


async def test_many_values_at_once(docs: Store) -> None:
    await docs.upsert("docs", batch(40))
    where = In("whole", tuple(range(0, 20_000, 2)))
    assert await docs.count("docs", where) == 20


async def test_filters_by_fields_that_nobody_declared(store: Store, open_another: StoreFactory) -> None:
    await store.create_index(definition())
    await store.upsert("docs", batch(3, metadata=[{"undeclared": "x"}, {"undeclared": 5}, {}]))
    another = open_another(None)
    assert [record.id for record in await scrolled(another, Eq("undeclared", "x"))] == [record_id(0)]
    assert [record.id for record in await scrolled(another, Eq("undeclared", 5))] == [record_id(1)]
