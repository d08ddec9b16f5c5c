"""The parts of the pgvector store that decide without a server.

- every SQLSTATE becomes the error whose recovery fits it; failed logins are read from what the server says
- a password never shows
- comments of ours and of people are told apart and kept together
- statements quote what they are given
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.errors import BatchRejected, Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.stores.base import FieldDefinition, IndexDefinition
from vectorwright.stores.filters import Eq, In, Range
from vectorwright.stores.pgvector.codec import VectorArray, _header, _vector_rows, jsonb_array, text_array
from vectorwright.stores.pgvector.errors import connection_error, statement_error
from vectorwright.stores.pgvector.filters import condition
from vectorwright.stores.pgvector.pool import version_numbers
from vectorwright.stores.pgvector.sql import create_table, field_index, index_name
from vectorwright.stores.pgvector.tables import AnnIndex, Comment, Table


def failed(state: str | None) -> psycopg.Error:
    kind = psycopg.errors.lookup(state) if state else psycopg.OperationalError
    return kind("it said so, and quoted hunter2")


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        ("08006", Retryable, "Unavailable"),
        ("22P02", Terminal, "InvalidRequest"),
        ("25006", Retryable, "Unavailable"),
        ("28P01", Terminal, "AccessDenied"),
        ("28000", Terminal, "AccessDenied"),
        ("3D000", Terminal, "DatabaseNotFound"),
        ("3F000", Terminal, "SchemaNotFound"),
        ("40P01", Retryable, "Unavailable"),
        ("42501", Terminal, "AccessDenied"),
        ("42601", Terminal, "RequestRefused"),
        ("42P01", NotFound, "NotFound"),
        ("42P07", Conflict, "AlreadyExists"),
        ("53100", Retryable, "Unavailable"),
        ("53300", Retryable, "Unavailable"),
        ("55P03", Retryable, "Unavailable"),
        ("57014", Retryable, "Timeout"),
        ("57P01", Retryable, "Unavailable"),
        ("57P03", Retryable, "Unavailable"),
        ("XX000", Retryable, "Unavailable"),
        (None, Retryable, "Unreachable"),
    ],
)
def test_sqlstates_by_recovery(state: str | None, kind: type[VectorwrightError], reason: str) -> None:
    error = statement_error(failed(state), "db:5432/x", secrets=["hunter2"])
    assert type(error) is kind
    assert error.reason == reason
    assert "db:5432/x" in error.message
    assert "hunter2" not in error.message


@pytest.mark.parametrize("state", ["22000", "22P02", "22P05", "23514", "23502", "54000"])
def test_refused_data_is_a_refused_batch_only_when_records_are_written(state: str) -> None:
    assert type(statement_error(failed(state), "db", writes=True)) is BatchRejected
    assert type(statement_error(failed(state), "db")) is Terminal


@pytest.mark.parametrize(
    ("text", "sent_password", "kind", "reason"),
    [
        ('FATAL:  password authentication failed for user "x"', True, Terminal, "AccessDenied"),
        ("FATAL:  la autentificación password falló para el usuario «x»", True, Terminal, "AccessDenied"),
        ("fe_sendauth: no password supplied", False, Terminal, "AccessDenied"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', False, Terminal, "AccessDenied"),
        ('FATAL:  role "x" does not exist', False, Terminal, "AccessDenied"),
        ('FATAL:  permission denied for database "x"', True, Terminal, "AccessDenied"),
        ('FATAL:  database "x" does not exist', True, Terminal, "DatabaseNotFound"),
        ("FATAL:  sorry, too many clients already", False, Retryable, "Unavailable"),
        ("FATAL:  remaining connection slots are reserved", True, Retryable, "Unavailable"),
        ("FATAL:  the database system is starting up", False, Retryable, "Unavailable"),
        ("FATAL:  the database system is shutting down", True, Retryable, "Unavailable"),
        ("Connection refused\n\tIs the server running?", False, Retryable, "Unreachable"),
        ("SSL error: certificate verify failed", False, Terminal, "TLSVerificationFailed"),
        ('server certificate for "a" does not match host name "b"', False, Terminal, "TLSVerificationFailed"),
        ("server does not support SSL, but SSL was required", False, Terminal, "TLSNotSupported"),
    ],
)
def test_failed_connections_by_what_is_said(
    text: str, sent_password: bool, kind: type[VectorwrightError], reason: str
) -> None:
    said = f'connection failed: connection to server at "h" failed: {text} hunter2'
    translated = connection_error(_FailedLogin(said, sent_password=sent_password), "h:1/d", ["hunter2"])
    assert type(translated) is kind
    assert translated.reason == reason
    assert "hunter2" not in translated.message
    assert "\n" not in translated.message


class _FailedLogin(psycopg.OperationalError):
    """An error as psycopg raises it when a login fails."""

    def __init__(self, said: str, *, sent_password: bool) -> None:
        super().__init__(said)
        self._sent_password = sent_password

    @property
    def pgconn(self) -> Any:
        return SimpleNamespace(used_password=self._sent_password)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_persons_comment_survives(text: str) -> None:
    theirs = Comment.parse(text)
    assert theirs.mark is None
    marked = Comment.parse(Comment(mark="a/b/c", original=theirs.original).text())
    assert (marked.mark, marked.original) == ("a/b/c", text)
    assert Comment(original=marked.original).text() == text


def test_our_comment_is_read_back() -> None:
    ours = Comment("a/b/c", "fp", "cosine", {"word": "keyword"}, "1234", {"hnsw.m": 8}, "theirs")
    assert Comment.parse(ours.text()) == ours
    assert Comment.parse(None) == Comment()
    assert Comment().text() is None
    assert Comment.parse('{"vectorwright" oops').original == '{"vectorwright" oops'


def test_an_index_without_options_has_pgvectors_own() -> None:
    found = AnnIndex.parse(
        {"name": "i", "method": "hnsw", "class": "halfvec_l2_ops", "options": ["m=8"], "valid": True}
    )
    assert found.settings == {"hnsw.m": 8, "hnsw.ef_construction": 64}
    assert found.metric == "euclidean"


@pytest.mark.parametrize(
    ("live", "activity", "planned", "size", "count", "exact"),
    [
        (7, 9, -1.0, 8192, 7, False),
        (0, 0, 120.0, 8192, 120, False),  # statistics lost in a crash
        (0, 9, 120.0, 8192, None, False),  # perhaps empty: not said
        (0, 0, -1.0, 8192, None, False),
        (0, 0, -1.0, 0, 0, True),
    ],
)
def test_a_table_is_called_empty_only_when_it_is(
    live: int, activity: int, planned: float, size: int, count: int | None, exact: bool
) -> None:
    table = Table.parse((1, "t", None, 1, 8, True, live, activity, planned, size, None))
    assert (table.count, table.count_exact) == (count, exact)


def test_statements_quote_what_they_are_given() -> None:
    bad = '"; DROP TABLE x; --'
    made = create_table(bad, IndexDefinition(bad, 3, "cosine"), "public").as_string()
    assert '"""; DROP TABLE x; --"' in made
    indexed = field_index("s", "t", FieldDefinition("it's", "keyword"), concurrently=True).as_string()
    assert "'it''s'" in indexed
    assert "'a''; --'" in condition(Range("f", gte="a'; --")).as_string()
    assert "$1" not in condition(Eq("f", 1)).as_string()


def test_names_of_indexes_differ_and_fit() -> None:
    names = {index_name(table, field) for table in ("t" * 63, "t" * 62, "u") for field in ("a" * 63, "a" * 62, "b")}
    assert len(names) == 9
    assert all(len(name) <= 63 for name in names)


@pytest.mark.parametrize(
    "where", [Eq("f", float("nan")), In("f", (1, 2**70)), Range("f"), Range("f", gt=float("inf")), Eq("a\0", 1)]
)
def test_filters_that_cannot_be_said_are_refused(where: Any) -> None:
    with pytest.raises(Terminal) as refused:
        condition(where)
    assert refused.value.reason == "UnsupportedFilter"


def test_arrays_are_as_the_server_reads_them() -> None:
    assert text_array(["ab", None]).data == bytes.fromhex(
        "0000000100000001000000190000000200000001000000026162ffffffff"
    )
    assert jsonb_array([b"{}"]).data[-7:] == bytes.fromhex("00000003017b7d")
    rows = np.array([[1.0, -2.0]], np.float32)
    assert VectorArray(rows).rows is rows
    assert _header(99, 1, nulls=False).hex() == "0000000100000000000000630000000100000001"
    assert _vector_rows(rows, with_length=True).hex() == "0000000c000200003f800000c0000000"
    assert _vector_rows(rows, with_length=False).hex() == "000200003f800000c0000000"


def test_versions_are_numbers() -> None:
    assert version_numbers("0.10.1") > version_numbers("0.8.2")
