"""How Pinecone's store says things: filters, metadata, tags, settings, and what its refusals mean.

- every filter that is translated has one literal type a clause and no operator that the service does not document
- metadata comes back from what is sent, whatever it is
- tags: texts of any length and alphabet come back, removal sends the empty text, others' tags are not sent
- statuses mean something only where the service itself says so
"""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pinecone.errors.exceptions import ApiError, PineconeTimeoutError, PineconeValueError, RateLimitError
from tests.support.pinecone import filtering
from tests.support.pinecone.writing import kept

from vectorwright.api.v1alpha1.providers.pinecone import PineconeTuning
from vectorwright.errors import BatchRejected, BatchTooLarge, Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.reconcile.index_references import flat_settings
from vectorwright.stores.base import FieldDefinition, OwnershipMark
from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range, matches
from vectorwright.stores.pinecone import tags
from vectorwright.stores.pinecone.catalog import CAPABILITIES
from vectorwright.stores.pinecone.errors import translate as translate_error
from vectorwright.stores.pinecone.filters import translate
from vectorwright.stores.pinecone.indexes import KNOWN_SETTINGS
from vectorwright.stores.pinecone.metadata import MAX_BYTES, decode, encode
from vectorwright.stores.pinecone.records import fetches

values = st.one_of(
    st.text(max_size=5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.text(max_size=3), max_size=3),
    st.sampled_from((2**53, -(2**53), 2**53 + 1, float(2**53), 1e300, -0.0, 5e-324)),
)
names = st.sampled_from(("a", "b", "c"))
small = st.one_of(st.sampled_from(("", "x", "y", 0, 1, -1, 2**53, 0.5, 1.0, True, False)), st.integers(-(2**53), 2**53))
numbers = st.one_of(st.integers(-(2**53), 2**53), st.sampled_from((0.5, -0.5, 1e30)))
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Eq, names, small),
    st.builds(Ne, names, small),
    st.builds(In, names, st.lists(small, max_size=4).map(tuple)),
    st.builds(Exists, names),
)
filters: st.SearchStrategy[Filter] = st.recursive(
    leaves | st.builds(lambda name, low: Range(name, gte=low), names, numbers),
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)), st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=5,
) | st.builds(Not, leaves)


@given(metadata=st.dictionaries(names, values, max_size=3), text=st.none() | st.text(max_size=5), whole=st.booleans())
def test_metadata_comes_back_from_what_the_service_keeps(
    metadata: dict[str, str | int | float | bool | list[str]], text: str | None, whole: bool
) -> None:
    held = kept(orjson.loads(orjson.dumps(encode(metadata, text))))
    if whole:
        held = {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in held.items()
        }
    read, read_text = decode(held)
    assert read_text == text
    assert {name: (type(value), repr(value)) for name, value in read.items()} == {
        name: (type(value), repr(value)) for name, value in metadata.items()
    }


@given(where=filters, metadata=st.dictionaries(names, values, max_size=3))
def test_a_translated_filter_means_the_same(
    where: Filter, metadata: dict[str, str | int | float | bool | list[str]]
) -> None:
    clause = translate(where)
    held = kept(orjson.loads(orjson.dumps(encode(metadata, None))))
    if isinstance(clause, bool):
        assert matches(where, metadata) is clause
        return
    filtering.check(clause)
    assert filtering.matches(clause, held) is matches(where, metadata)


@pytest.mark.parametrize(
    "where",
    [
        Range("a", gte="x"),
        Not(Range("a", gt=1)),
        Range("a"),
        Eq("a", 2**53 + 1),
        Eq("a", math.inf),
        Range("a", lt=2.0**60),
        Eq("$and", 1),
        Eq("", 1),
        Exists("vw_text"),
    ],
)
def test_filters_that_cannot_be_said(where: Filter) -> None:
    with pytest.raises(Terminal) as refused:
        translate(where)
    assert refused.value.reason == "UnsupportedFilter"


def test_many_values_are_several_clauses() -> None:
    clause = translate(In("a", tuple(range(25_000))))
    assert isinstance(clause, dict)
    assert [len(part["a"]["$in"]) for part in clause["$or"]] == [10_000, 10_000, 5_000]
    filtering.check(clause)


texts = st.text(max_size=400)


@given(mark=st.none() | st.tuples(texts, texts, texts), fingerprint=st.none() | texts)
def test_tags_hold_texts_of_any_length_and_alphabet(mark: tuple[str, str, str] | None, fingerprint: str | None) -> None:
    written = {tags.MARK: None if mark is None else "/".join(mark), tags.FINGERPRINT: fingerprint}
    sent = tags.changes({"team": "search"}, written)
    assert all(len(value) <= tags.MAX_VALUE and value.isascii() and value.isprintable() for value in sent.values())
    held = {"team": "search", **{name: value for name, value in sent.items() if value}}
    assert tags.read_fingerprint(held) == (fingerprint or None)
    expected = OwnershipMark.parse(written[tags.MARK])
    assert tags.read_mark(held) == expected
    assert tags.changes(held, {tags.MARK: None, tags.FINGERPRINT: None}) == dict.fromkeys(held.keys() - {"team"}, "")


def test_a_shorter_text_removes_what_the_longer_one_took() -> None:
    held = tags.changes({}, {tags.MARK: "x" * 300})
    assert sorted(held) == ["vw_mark", "vw_mark-2", "vw_mark-3"]
    assert tags.changes(held, {tags.MARK: "x" * 120}) == {"vw_mark-2": "", "vw_mark-3": ""}
    assert tags.changes(held, {tags.MARK: "x" * 300}) == {}


def test_fields_are_kept_whole_or_not_at_all() -> None:
    fields = tuple(
        FieldDefinition(f"field_{n}", kind) for n, kind in enumerate(("keyword", "integer", "float", "bool"))
    )
    text = tags.encode_fields(fields)
    assert tags.read_fields(tags.changes({}, {tags.FIELDS: text})) == fields
    assert tags.encode_fields(fields, taken=tags.MAX_TAGS) is None
    assert tags.encode_fields([FieldDefinition("x" * 60, "bool")] * 50) is None
    assert tags.read_fields({"vw_fields": "written:by-something-newer"}) is None


def _api_error(status: int, body: object = None, headers: dict[str, str] | None = None) -> ApiError:
    return ApiError("told secret", status, body, headers=headers)  # type: ignore[arg-type]


OWN = {"error": {"code": "X", "message": "no: secret"}, "status": 0}
DATA = {"code": 3, "message": "no: secret", "details": []}


@pytest.mark.parametrize(
    ("error", "writes", "kind", "reason"),
    [
        (_api_error(401), False, Terminal, "AccessDenied"),
        (_api_error(403, OWN), False, Terminal, "AccessDenied"),
        (_api_error(403, {"error": {"code": "QUOTA_EXCEEDED", "message": "full"}}), False, Terminal, "QuotaExceeded"),
        (_api_error(404, OWN), False, NotFound, "NotFound"),
        (_api_error(404), False, Retryable, "UnexpectedAnswer"),
        (_api_error(409, OWN), False, Conflict, "Conflict"),
        (_api_error(409), False, Retryable, "UnexpectedAnswer"),
        (_api_error(400, DATA), True, BatchRejected, "RecordRejected"),
        (_api_error(400, DATA), False, Terminal, "InvalidRequest"),
        (_api_error(400), True, Retryable, "UnexpectedAnswer"),
        (_api_error(400, {**DATA, "code": 11}), True, BatchTooLarge, "BatchTooLarge"),
        (_api_error(413), True, BatchTooLarge, "BatchTooLarge"),
        (_api_error(307), False, Terminal, "UnexpectedRedirect"),
        (_api_error(500), False, Retryable, "Unavailable"),
        (_api_error(503, headers={"retry-after": "4"}), False, Retryable, "Throttled"),
        (RateLimitError("slow", 429, headers={"Retry-After": "4"}), True, Retryable, "Throttled"),
        (PineconeTimeoutError("late"), False, Retryable, "Timeout"),
        (PineconeValueError("secret"), True, BatchRejected, "RecordRejected"),
        (PineconeValueError("secret"), False, Terminal, "InvalidRequest"),
    ],
)
def test_what_an_error_of_the_sdk_means(
    error: ApiError, writes: bool, kind: type[VectorwrightError], reason: str
) -> None:
    ours = translate_error(error, "https://api.pinecone.io", ("secret",), writes=writes)
    assert (type(ours), ours.reason) == (kind, reason)
    assert "secret" not in ours.message
    if isinstance(ours, Retryable) and reason == "Throttled":
        assert ours.after == 4.0


def test_fetches_are_cut_by_number_and_by_length() -> None:
    assert [len(some) for some in fetches([str(n) for n in range(250)])] == [100, 100, 50]
    assert max(sum(map(len, some)) for some in fetches(["x" * 512] * 100)) <= 6_000
    assert list(fetches([])) == []


def test_the_text_counts_as_metadata() -> None:
    assert len(orjson.dumps(encode({}, "x" * MAX_BYTES))) > MAX_BYTES


def test_every_setting_of_the_api_is_known_to_the_store() -> None:
    tuning = {
        "serverless": {"cloud": "aws", "region": "us-east-1"},
        "pods": {"environment": "us-east1-gcp", "podType": "p1.x1", "replicas": 2, "shards": 3},
        "readCapacity": {"mode": "Dedicated", "nodeType": "b1", "replicas": 1, "shards": 2},
        "deletionProtection": "enabled",
    }
    block = PineconeTuning.model_validate(tuning).model_dump(by_alias=True, exclude_none=True)
    assert block == tuning
    assert sorted(flat_settings(block)) == sorted(KNOWN_SETTINGS)
    assert CAPABILITIES.mutable_settings.keys() < set(KNOWN_SETTINGS)
