"""Records of all types and filters about them, for checks that compare a store with ``filters.matches``."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vectorwright.stores.base import Metadata
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, Scalar

WORDS = ("a", "A", "b", "ab", "", "ü", "true", "1", "it's", "%", "2024-05-01T00:00:00Z", "2025-01-01T00:00:00Z")
WHOLES = (0, 1, -1, 2, 3, 1000, -1000, 2**53)
REALS = (0.0, 0.5, -0.5, 1.0, 1.5, -1.5, 2.75, -2.75, 1e12, 1e-9)
TIMES = (
    "2023-12-31T23:59:59Z",
    "2024-05-01T00:00:00Z",
    "2024-05-01T00:00:01Z",
    "2024-12-31T12:30:00Z",
    "2025-01-01T00:00:00Z",
)
"""Of the one form that a declared datetime field holds."""


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

_SCALARS: st.SearchStrategy[Scalar] = st.sampled_from((*WORDS, *WHOLES, *REALS, True, False, "nobody", 7, 0.25))
_FIELDS = st.sampled_from(("word", "whole", "real", "flag", "any", "vw_n", "vw_source", "absent"))
_NUMBERS = st.sampled_from((*WHOLES, *REALS, 0.25, -0.25, 1.4999999, -1.4999999))
_SIGNS = st.lists(st.sampled_from(("gt", "gte", "lt", "lte")), min_size=1, max_size=2, unique=True)


def _ranges(fields: st.SearchStrategy[str], bounds: st.SearchStrategy[Any]) -> st.SearchStrategy[Filter]:
    """Ranges with one bound or two, some of them impossible."""

    @st.composite
    def draw_range(draw: st.DrawFn) -> Filter:
        return Range(draw(fields), **{sign: draw(bounds) for sign in draw(_SIGNS)})

    return draw_range()


def _comparisons(fields: st.SearchStrategy[str], values: st.SearchStrategy[Scalar]) -> list[st.SearchStrategy[Filter]]:
    return [
        st.builds(Eq, fields, values),
        st.builds(Ne, fields, values),
        st.builds(In, fields, st.lists(values, max_size=5).map(tuple)),
    ]


def filters(*, times: bool) -> st.SearchStrategy[Filter]:
    """Filters of up to four comparisons; with ``times`` some are about the datetime field ``when``.

    What some stores cannot say (ranges of strings, whether a field exists) is one comparison in ten or so: a filter
    with one such part is refused as a whole.
    """
    moment: st.SearchStrategy[Any] = st.sampled_from(TIMES)
    when = st.just("when")
    everywhere = st.one_of(*_comparisons(_FIELDS, _SCALARS))
    numbers = _ranges(_FIELDS, _NUMBERS)
    instants = st.one_of(*_comparisons(when, moment), _ranges(when, moment)) if times else everywhere
    rare = st.one_of(_ranges(_FIELDS, st.sampled_from(WORDS)), st.builds(Exists, _FIELDS))
    kinds = [*[everywhere] * 11, *[numbers] * 4, *[instants] * 3, *[rare] * 2]
    leaves = st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(And, st.lists(inner, max_size=3).map(tuple)),
            st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
            st.builds(Not, inner),
        ),
        max_leaves=4,
    )
