"""Filters, in every store: a store agrees with ``filters.matches`` on everything, or says that it cannot.

- generated filters over records of all types, with fields absent, of other types, and lists
- the cases that stores get wrong, one by one
- what a store cannot express is refused by name, never ignored; which filters those are is said in ``providers``
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.conftest import StoreFactory
from tests.contract.data import batch, definition, record_id, scrolled, vectors
from tests.contract.providers import Provider

from vectorwright.errors import Terminal
from vectorwright.stores.base import Metadata, Store
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar, matches

pytestmark = pytest.mark.server

WORDS = ("a", "A", "b", "ab", "", "ü", "true", "1", "it's", "%", "2024-05-01T00:00:00Z", "2025-01-01T00:00:00Z")
WHOLES = (0, 1, -1, 2, 3, 1000, -1000, 2**53)
REALS = (0.0, 0.5, -0.5, 1.0, 1.5, -1.5, 2.75, -2.75, 1e12, 1e-9)
TAGS = ("a", "b", "ü", "1")


def _records() -> list[Metadata]:
    """One field a type, each sometimes absent, and ``any`` of every type."""
    records: list[Metadata] = [{}]
    for number in range(60):
        metadata: Metadata = {"vw_source": f"ns/job-{number % 2}", "vw_n": number % 7}
        if number % 5:
            metadata["word"] = WORDS[number % len(WORDS)]
        if number % 4:
            metadata["whole"] = WHOLES[number % len(WHOLES)]
        if number % 3:
            metadata["real"] = REALS[number % len(REALS)]
        if number % 6:
            metadata["flag"] = number % 2 == 0
        values = (*WORDS, *WHOLES, *REALS, True, False)
        metadata["any"] = values[number % len(values)]
        records.append(metadata)
    return records


RECORDS = _records()
LISTS: list[Metadata] = [{"tags": ["a"]}, {"tags": ["a", "b"]}, {"tags": ["ü", "1"]}, {"tags": "a"}, {"tags": 1}]

scalars: st.SearchStrategy[Scalar] = st.sampled_from((*WORDS, *WHOLES, *REALS, True, False, "nobody", 7, 0.25))
fields = st.sampled_from(("word", "whole", "real", "flag", "any", "vw_n", "vw_source", "absent"))
numbers = st.sampled_from((*WHOLES, *REALS, 0.25, -0.25, 1.4999999, -1.4999999))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    """A range of numbers or of strings, sometimes impossible."""
    bounds: st.SearchStrategy[float | str] = draw(st.sampled_from((numbers, numbers, st.sampled_from(WORDS))))
    signs = draw(st.lists(st.sampled_from(("gt", "gte", "lt", "lte")), min_size=1, max_size=2, unique=True))
    return Range(draw(fields), **{sign: draw(bounds) for sign in signs})


leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Eq, fields, scalars),
    st.builds(Ne, fields, scalars),
    st.builds(In, fields, st.lists(scalars, max_size=5).map(tuple)),
    ranges(),
    st.builds(Exists, fields),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


@pytest.fixture
async def filled(store: Store) -> Store:
    """A store whose index ``docs`` holds ``RECORDS``, and ``LISTS`` where it takes lists."""
    await store.create_index(definition())
    everything = expected_records(store)
    await store.upsert("docs", batch(len(everything), metadata=everything))
    return store


def expected_records(store: Store) -> list[Metadata]:
    return RECORDS + (LISTS if store.capabilities.list_metadata else [])


async def check(store: Store, provider: Provider, where: Filter) -> None:
    """The store finds what ``matches`` finds, by every way that takes a filter, or refuses where it may."""
    expected = [record_id(at) for at, metadata in enumerate(expected_records(store)) if matches(where, metadata)]
    if provider.may_refuse(where):
        with pytest.raises(Terminal) as refused:
            await scrolled(store, where)
        assert refused.value.reason == "UnsupportedFilter"
        with pytest.raises(Terminal):
            await store.delete_where("docs", where)
        return
    assert sorted(record.id for record in await scrolled(store, where)) == sorted(expected)


@given(where=filters)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_store_agrees_with_the_meaning_of_filters(filled: Store, provider: Provider, where: Filter) -> None:
    await check(filled, provider, where)


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


@given(where=filters)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_counting_and_searching_take_filters_alike(filled: Store, provider: Provider, where: Filter) -> None:
    if provider.may_refuse(where):
        for call in (filled.count("docs", where), filled.query("docs", vectors(1)[0], 100, where)):
            with pytest.raises(Terminal):
                await call
        return
    expected = sorted(record_id(at) for at, one in enumerate(expected_records(filled)) if matches(where, one))
    assert await filled.count("docs", where) == len(expected)
    found = await filled.query("docs", vectors(1)[0], 100, where)
    assert sorted(match.record.id for match in found) == expected


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
