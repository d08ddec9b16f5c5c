"""Filters as expressions of Milvus.

- what is written, for each kind of filter, with a column and without
- negation never stands before a comparison, and every negated comparison says what absence means
- literals cannot be left; numbers are written so that every version reads them
- many values make a shallow tree; what cannot be said is refused
"""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.errors import Terminal
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range
from vectorwright.stores.milvus.filters import EVERYTHING, NOTHING, expression, literal, one_of
from vectorwright.stores.milvus.metadata import key_of, name_of

COLUMNS = {"word": "string", "whole": "integer", "real": "float", "flag": "bool", "vw_n": "integer"}


def path(group: str, name: str = "x") -> str:
    return f'metadata["{group}"]["{name}"]'


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, EVERYTHING),
        (And(()), EVERYTHING),
        (Or(()), NOTHING),
        (Not(And(())), NOTHING),
        (Eq("vw_n", 3), "vw_n == 3"),
        (Ne("vw_n", 3), "(vw_n is null or vw_n != 3)"),
        (In("vw_n", (1, 2.0, "a")), "vw_n in [1, 2]"),
        (Not(In("vw_n", (1, 2))), "(vw_n is null or vw_n not in [1, 2])"),
        (Eq("vw_n", "a"), NOTHING),
        (Ne("vw_n", 1.5), EVERYTHING),
        (Range("vw_n", gt=1.5, lt=4), "(vw_n >= 2 and vw_n <= 3)"),
        (Not(Range("vw_n", gt=1.5, lt=4)), "(vw_n is null or (vw_n < 2 or vw_n > 3))"),
        (Exists("vw_n"), "vw_n is not null"),
        (Eq("x", True), f"{path('bool')} == true"),
        (Eq("x", 1), f"({path('integer')} == 1 or {path('float')} == 1.0)"),
        (Eq("x", 1.5), f"{path('float')} == 1.5"),
        (Eq("x", "a"), f'({path("string")} == "a" or json_contains_any({path("list")}, ["a"]))'),
        (Ne("x", True), f"((not (exists {path('bool')})) or {path('bool')} != true)"),
        (Range("x", gte="a"), f'{path("string")} >= "a"'),
        (Range("x", gte="a", lt=3), NOTHING),
    ],
)
def test_what_is_written(where: Filter | None, expected: str) -> None:
    assert expression(where, COLUMNS) == expected


def test_a_declared_field_is_asked_in_its_column_and_of_mixed_records_in_their_metadata() -> None:
    said = expression(Eq("flag", True), COLUMNS)
    assert said == f"((vw_mixed == false and flag == true) or (vw_mixed == true and {path('bool', 'flag')} == true))"


def test_an_empty_list_is_there() -> None:
    said = expression(Exists("x"), {})
    for group in ("string", "integer", "float", "bool", "list", "empty"):
        assert f"exists {path(group)}" in said


@pytest.mark.parametrize(
    ("where", "whole", "real"),
    [
        (Eq("x", 2**53 + 1), f"== {2**53 + 1}", None),
        (Eq("x", -(2**63)), f"< {-(2**63) + 1}", "== -9.223372036854776e+18"),
        (Eq("x", 2**63), None, "== 9.223372036854776e+18"),
        (Eq("x", 10**400), None, None),
        (Eq("x", -0.0), "== 0", "== 0.0"),
        (Range("x", gt=2**53 + 1), f">= {2**53 + 2}", f"> {float(2**53)!r}"),
        (Range("x", lte=2**53 + 1), f"<= {2**53 + 1}", f"<= {float(2**53)!r}"),
        (Range("x", gte=2**70), None, f">= {float(2**70)!r}"),
        (Range("x", lt=-(10**400)), None, None),
    ],
)
def test_numbers_meet_numbers_of_their_own_kind(where: Filter, whole: str | None, real: str | None) -> None:
    said = expression(where, {})
    assert (path("integer") in said) == (whole is not None)
    assert (path("float") in said) == (real is not None)
    for one in (whole, real):
        assert one is None or one in said


def test_the_lowest_number_is_never_written() -> None:
    for where in (Eq("x", -(2**63)), Range("x", lt=-(2**63) + 1), Range("x", gte=-(2**63)), In("x", (-(2**63), 1))):
        for asked in (where, Not(where)):
            assert str(2**63) not in re.findall(r"\d+", expression(asked, {}))


def unquoted(text: str) -> str:
    """A literal as Milvus reads it: strconv.Unquote of Go, for the escapes that are used."""
    inner = text[1:-1]
    assert not re.search(r'(?<!\\)(\\\\)*"', inner), "the literal ends before its end"
    assert not re.search(r"[\r\n]", inner)
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "r": "\r", "t": "\t"}.get(found[1], found[1]), inner)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text("\\\"'nrt\n\r\t[]", max_size=10)


@given(texts)
def test_a_literal_is_read_as_it_was_meant(text: str) -> None:
    assert unquoted(literal(text)) == text


@given(texts.filter(bool))
def test_a_key_is_plain_in_every_version_and_comes_back(name: str) -> None:
    key = key_of(name)
    assert name_of(key) == name
    assert not set(key) & set("\"'\\[]/~\n\r\t")


names = st.sampled_from(("word", "whole", "real", "flag", "vw_n", "x"))
scalars = st.sampled_from(("a", "", 1, -1, 0, 1.5, 2.0, True, False, 2**53 + 1))
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Eq, names, scalars),
    st.builds(Ne, names, scalars),
    st.builds(In, names, st.lists(scalars, max_size=4).map(tuple)),
    st.builds(Range, names, gte=st.sampled_from((1, 1.5, 2**53 + 1))),
    st.builds(Range, names, lt=st.sampled_from(("a", "b"))),
    st.builds(Exists, names),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=5,
)


@given(filters)
def test_negation_stands_before_exists_and_contains_only(where: Filter) -> None:
    said = expression(where, COLUMNS)
    assert said.count("(") == said.count(")")
    for found in re.finditer(r"\bnot\b(?! in | null)", said):
        assert re.match(r"not (\(exists metadata\[|json_contains_any\()", said[found.start() :]), said
    for found in re.finditer(r"(\S+) (!=|not in) ", said):
        place = found[1].lstrip("(")
        if place != "id":
            absent = (f"{place} is null", f"(not (exists {place}))")
            assert any(one in said[: found.start()] for one in absent), said


def test_many_values_make_a_shallow_tree() -> None:
    said = expression(In("x", tuple(range(4_000))), {})
    depth = deepest = 0
    for char in said:
        depth += {"(": 1, ")": -1}.get(char, 0)
        deepest = max(deepest, depth)
    assert deepest <= 16


@pytest.mark.parametrize(
    "where",
    [
        Eq("x", math.nan),
        Eq("x", math.inf),
        Range("x", gt=math.nan),
        Range("x"),
        Range("x", gt="\ud800"),
        Eq("x", "a" * 9_000_000),
    ],
)
def test_what_cannot_be_said_is_refused(where: Filter) -> None:
    for asked in (where, Not(where), And((Eq("y", 1), where))):
        with pytest.raises(Terminal) as refused:
            expression(asked, {})
        assert refused.value.reason == "UnsupportedFilter"


def test_text_that_no_record_can_hold_equals_nothing() -> None:
    assert expression(Eq("x", "\ud800"), {}) == NOTHING
    assert expression(Ne("\ud800", "a"), {}) == EVERYTHING


def test_keys_are_literals() -> None:
    assert one_of(['a"b', "c\\"]) == 'id in ["a\\"b", "c\\\\"]'
