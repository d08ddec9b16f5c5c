"""Checks before sending: metadata in the store's types, vectors that every store can hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from vectorwright.ingest.checks import Defect, MetadataRules, as_vector, check_sizes, check_vectors, coerce
from vectorwright.stores.memory import MEMORY_CAPABILITIES

LISTS = MEMORY_CAPABILITIES
NO_LISTS = replace(MEMORY_CAPABILITIES, list_metadata=False)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("text", "text"),
        (True, True),
        (7, 7),
        (2**70, str(2**70)),
        (1.5, 1.5),
        (float("nan"), None),
        (None, None),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (["a", "b"], ["a", "b"]),
        ([1, "b"], '[1,"b"]'),
        ([], "[]"),
        ({"a": 1}, '{"a":1}'),
        (b"bytes", None),
        ("caf\udce9", "caf?"),
    ],
)
def test_values_become_what_stores_hold(value: object, kept: object) -> None:
    cleaned = MetadataRules(LISTS, {}).clean({"field": value})
    assert cleaned == ({} if kept is None else {"field": kept})
    assert type(cleaned.get("field")) is type(kept)


def test_lists_are_text_where_the_store_has_no_lists() -> None:
    rules = MetadataRules(NO_LISTS, {})
    assert rules.clean({"tags": ["a", "b"]}) == {"tags": '["a","b"]'}
    assert "tags" in rules.notes


def test_reserved_names_are_left_out_with_a_note() -> None:
    rules = MetadataRules(LISTS, {})
    assert rules.clean({"vw_source": "evil", "vw_new": 1, "": 2, "ok": 3}) == {"ok": 3}
    assert set(rules.notes) == {"vw_source", "vw_new", ""}


@pytest.mark.parametrize(
    ("value", "declared", "kept"),
    [
        (7, "keyword", "7"),
        (True, "keyword", "true"),
        ("2024", "integer", 2024),
        (3.0, "integer", 3),
        (3.5, "integer", None),
        ("x", "integer", None),
        ("1.5", "float", 1.5),
        ("nan", "float", None),
        (True, "float", None),
        ("TRUE", "bool", True),
        ("yes", "bool", None),
        (1, "bool", None),
        ("2026-01-02T03:04:05+00:00", "datetime", "2026-01-02T03:04:05+00:00"),
        ("yesterday", "datetime", None),
        (["a"], "float", None),
        ("x", "unheard-of", "x"),
    ],
)
def test_declared_fields_get_their_type_or_nothing(value: Any, declared: str, kept: object) -> None:
    assert coerce(value, declared) == kept
    rules = MetadataRules(LISTS, {"f": declared})
    assert rules.clean({"f": value}) == ({} if kept is None else {"f": kept})
    assert bool(rules.notes) is (kept is None)


def test_sizes() -> None:
    small = replace(MEMORY_CAPABILITIES, max_metadata_bytes=10, max_text_bytes=20)
    assert check_sizes(10, 20, small) is None
    assert getattr(check_sizes(11, 0, small), "reason", None) == "MetadataTooLarge"
    assert getattr(check_sizes(0, 21, small), "reason", None) == "TextTooLarge"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0], "WrongDimension"),
        ([[1.0], [2.0], [3.0]], "InvalidVector"),
        (["a", "b", "c"], "InvalidVector"),
        ([1.0, None, 3.0], "NotFinite"),
        ([1e300, 1.0, 1.0], "NotFinite"),
    ],
)
def test_vectors_that_came_with_records(values: Any, reason: str) -> None:
    found = as_vector(values, 3)
    if not isinstance(found, Defect):
        (found,) = [defect for _, defect in check_vectors(found[None], "euclidean")]
    assert found.reason == reason


def test_rows_that_must_not_be_written_are_named() -> None:
    vectors = np.ones((6, 4), np.float32)
    vectors[1, 2] = np.nan
    vectors[2] = 0
    vectors[4, 0] = np.inf
    vectors[5] = 1e30
    assert [(row, defect.reason) for row, defect in check_vectors(vectors, "cosine")] == [
        (1, "NotFinite"),
        (2, "ZeroVector"),
        (4, "NotFinite"),
        (5, "NotFinite"),
    ]
    assert [row for row, _ in check_vectors(vectors, "dotproduct")] == [1, 4, 5]
    assert list(check_vectors(np.ones((3, 4), np.float32), "cosine")) == []
