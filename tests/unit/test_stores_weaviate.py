"""What the Weaviate store decides without a server.

- every name has one collection and every collection one name
- terms are equal exactly where values are; keys sort exactly as values do
- settings that contradict each other are refused, and those that are left out are not sent
- every setting of the API is one that the store knows
- what people wrote in a description stays
- failures of gRPC are of the right kind, and show no credential
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.api.v1alpha1.providers.weaviate import WeaviateTuning
from vectorwright.errors import BatchTooLarge, Retryable, Terminal
from vectorwright.reconcile.index_references import flat_settings
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.filters import Eq, matches
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store
from vectorwright.stores.weaviate.channel import Declined, NoSuchCollection, NoSuchTenant, WeaviateGrpc
from vectorwright.stores.weaviate.collection import MARKER, Collection
from vectorwright.stores.weaviate.names import collection_name, index_name
from vectorwright.stores.weaviate.settings import KNOWN, creation_settings
from vectorwright.stores.weaviate.terms import AFTER_NUMBERS, BEFORE_STRINGS, equality, order_key, presence, terms

TOKEN = "token-that-never-shows"
texts = st.text(st.characters(codec="utf-8"), max_size=12)
whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(texts, whole, real, st.booleans(), st.sampled_from((0, 1, 0.0, -0.0, 1.0, True, "1", "true")))


@pytest.mark.parametrize(
    ("index", "collection"),
    [("docs", "Docs"), ("docs-g1", "Docs__g1"), ("myDocs", "MyDocs"), ("my_docs", "My_docs"), ("a--b", "A____b")],
)
def test_a_name_is_recognised_in_its_collection(index: str, collection: str) -> None:
    assert collection_name(index) == collection
    assert index_name(collection) == index


@given(st.from_regex(r"\A[A-Z][A-Za-z0-9_]{0,30}\Z"))
def test_every_collection_is_found_by_the_name_that_it_is_listed_under(collection: str) -> None:
    assert collection_name(index_name(collection)) == collection


@given(st.from_regex(r"\A[a-z][a-z0-9_-]{0,30}\Z"))
def test_no_two_names_are_one_collection(index: str) -> None:
    collection = collection_name(index)
    assert collection is None or index_name(collection) == index


@pytest.mark.parametrize("name", ["Docs", "", "1docs", "a.b", "a__b", "a_-b", "a b", "ü", "../x"])
def test_names_that_could_not_be_told_back_are_no_collections(name: str) -> None:
    assert collection_name(name) is None


@given(scalars, scalars)
def test_terms_are_equal_where_values_are(one: Any, other: Any) -> None:
    assert (equality("f", one) == equality("f", other)) is matches(Eq("f", one), {"f": other})


@given(texts, texts, scalars)
def test_a_term_is_of_one_field(one: str, other: str, value: Any) -> None:
    assert (equality(one, value) == equality(other, value)) is (one == other)
    assert presence(one) != equality(one, value)
    assert presence(one) != presence(other) or one == other


def test_long_terms_are_short_and_still_differ() -> None:
    long = [equality("f", "w" * 5_000 + end) for end in ("", "a", "b")]
    assert len(set(long)) == 3
    assert all(len(term) < 300 for term in long)
    assert equality("n" * 500, 1) != presence("n" * 500)


def test_a_record_carries_the_terms_of_lists_and_of_presence() -> None:
    assert terms({"tags": ["a", "b", "a"], "n": 1}) == [
        "[]",
        '["tags"]',
        '["tags","a"]',
        '["tags","b"]',
        '["n"]',
        '["n",1]',
    ]
    assert terms({}) == ["[]"]


@given(st.one_of(st.tuples(whole | real, whole | real), st.tuples(texts, texts)))
def test_keys_sort_as_values_do(pair: tuple[Any, Any]) -> None:
    one, other = pair
    keys = [order_key(one), order_key(other)]
    assert keys[0] is not None
    assert keys[1] is not None
    assert (keys[0] < keys[1], keys[0] == keys[1]) == (one < other, one == other)
    assert (keys[0].encode() < keys[1].encode()) is (one < other)
    assert (keys[0] >= BEFORE_STRINGS) is isinstance(one, str)
    assert (keys[0] < AFTER_NUMBERS) is not isinstance(one, str)


@given(st.integers(-(10**300), 10**300), whole | real)
def test_bounds_beyond_64_bits_keep_their_side(bound: int, stored: float) -> None:
    key, other = order_key(bound), order_key(stored)
    assert key is not None
    assert other is not None
    assert (key < other, key > other) == (bound < stored, bound > stored)


def test_keys_around_the_last_exact_double() -> None:
    values = [2**53 - 1, 2**53, 2**53 + 1, 2**53 + 2, float(2**53 + 4), 2**53 + 5, 2**63 - 1, float(2**63)]
    keys = [order_key(value) for value in values]
    assert keys == sorted(keys)  # type: ignore[type-var]
    assert len(set(keys)) == len(keys)


def test_what_has_no_order_has_no_key() -> None:
    assert order_key(True) is None
    assert order_key(["a"]) is None
    with pytest.raises(ValueError, match="NaN"):
        order_key(math.nan)
    with pytest.raises(OverflowError):
        order_key(10**400)


def definition(**settings: Any) -> IndexDefinition:
    return IndexDefinition(
        "docs", 8, "cosine", settings={name.replace("__", "."): one for name, one in settings.items()}
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"index_type": "btree"}, "none of hnsw, flat, dynamic"),
        ({"index_type": "flat", "hnsw__ef": 10}, "which has no graph"),
        ({"dynamic__threshold": 10}, "indexType is hnsw"),
        ({"quantizer__rescore_limit": 10}, "there is no quantizer"),
        ({"quantizer__type": "zip"}, "none of pq, bq, sq, rq, none"),
        ({"multi_tenancy": True, "shards": 2}, "every tenant is one shard"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Terminal, match=says) as refused:
        creation_settings(definition(**settings))
    assert refused.value.reason == "InvalidSetting"


def test_settings_that_are_left_out_are_not_sent() -> None:
    assert creation_settings(definition()) == ("hnsw", {"distance": "cosine"}, {})
    kind, config, rest = creation_settings(definition(quantizer__type="none", hnsw__ef=5, replication_factor=3))
    assert (kind, config) == ("hnsw", {"distance": "cosine", "ef": 5, "skipDefaultQuantization": True})
    assert rest == {"replicationConfig": {"factor": 3}}
    _, config, _ = creation_settings(definition(index_type="dynamic", dynamic__threshold=9, hnsw__ef=5))
    assert config == {"distance": "cosine", "threshold": 9, "hnsw": {"distance": "cosine", "ef": 5}}


def test_every_setting_of_the_api_is_known_to_the_store() -> None:
    tuning = WeaviateTuning.model_validate(
        {
            "indexType": "dynamic",
            "hnsw": {
                "ef": 1,
                "efConstruction": 64,
                "maxConnections": 16,
                "dynamicEfMin": 1,
                "dynamicEfMax": 1,
                "dynamicEfFactor": 1,
                "flatSearchCutoff": 1,
                "filterStrategy": "acorn",
            },
            "dynamic": {"threshold": 1},
            "quantizer": {"type": "pq", "rescoreLimit": 1, "trainingLimit": 1, "segments": 1, "bits": 8},
            "multiTenancy": False,
            "replicationFactor": 1,
            "shards": 1,
        }
    )
    assert sorted(flat_settings(tuning.dump())) == sorted(KNOWN)


def collection(description: str) -> Collection:
    return Collection.parse({"class": "Docs", "description": description, "properties": None, "vectorConfig": {}})


@pytest.mark.parametrize("told", ["", "Our handbook.", "Two\nlines", "vectorwright: is what made it"])
def test_what_people_wrote_in_a_description_stays(told: str) -> None:
    marked = collection(told).description_with({"mark": "i/n/x", "model": None})
    assert marked.startswith(told)
    assert MARKER in marked
    again = collection(marked)
    assert dict(again.ours) == {"mark": "i/n/x"}
    assert str(again.describe().mark) == "i/n/x"
    assert again.description_with({"mark": None}) == told


def test_a_collection_in_another_form_is_an_unexpected_answer() -> None:
    for body in ("text", {}, {"class": "Docs", "properties": [1]}, None):
        with pytest.raises(Retryable) as refused:
            Collection.parse(body)
        assert refused.value.reason == "UnexpectedAnswer"


class Failure:
    """What a call over gRPC raises, as far as it is looked at."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = lambda: trailers


def told(code: str, details: str, *, writes: bool = False) -> Exception:
    connection = Connection("weaviate", {"url": "http://w:1", "grpcPort": 2}, credentials=StoreCredentials(token=TOKEN))
    failure = Failure(grpc.StatusCode[code], f"{details} {TOKEN}", (("retry-after", "7"),))
    return WeaviateGrpc(connection, asyncio.Semaphore())._refusal(failure, writes=writes)


@pytest.mark.parametrize(
    ("code", "details", "kind", "reason"),
    [
        ("UNKNOWN", "extract auth: unauthorized: invalid api key", Terminal, "AccessDenied"),
        ("UNKNOWN", "rbac: authorization, forbidden action: user", Terminal, "AccessDenied"),
        ("PERMISSION_DENIED", "", Terminal, "AccessDenied"),
        ("DEADLINE_EXCEEDED", "", Retryable, "Timeout"),
        ("UNAVAILABLE", "failed to connect to all addresses", Retryable, "Unreachable"),
        ("UNAVAILABLE", "server is in maintenance mode", Retryable, "Unavailable"),
        ("UNAVAILABLE", "Received http2 header with status: 429", Retryable, "Throttled"),
        ("UNKNOWN", "Received http2 header with status: 500", Retryable, "UnexpectedAnswer"),
        ("UNIMPLEMENTED", "", Retryable, "UnexpectedAnswer"),
        ("UNKNOWN", "put batch objects: store is read-only due to: disk usage too high", Retryable, "Unavailable"),
        ("UNKNOWN", "cannot process batch: not enough memory", Retryable, "Unavailable"),
        ("UNKNOWN", "broadcast: dial tcp 10.0.0.7:7001: connect: connection refused", Retryable, "Unavailable"),
    ],
)
def test_failures_over_grpc_are_told_by_what_can_be_done(code: str, details: str, kind: type, reason: str) -> None:
    error = told(code, details)
    assert type(error) is kind
    assert isinstance(error, Terminal | Retryable)
    assert error.reason == reason
    assert TOKEN not in str(error)
    if reason == "Throttled":
        assert isinstance(error, Retryable)
        assert error.after == 7.0


def test_what_is_absent_and_what_is_declined_is_for_the_caller_to_judge() -> None:
    assert isinstance(told("UNKNOWN", 'aggregate: tenant not found: "x"'), NoSuchTenant)
    assert isinstance(told("UNKNOWN", "could not find class Docs in schema"), NoSuchCollection)
    declined = told("UNKNOWN", "no such prop with name 'x'")
    assert isinstance(declined, Declined)
    assert TOKEN not in declined.told


def test_a_message_that_is_too_large_is_the_batch_s_fault_only_where_it_writes() -> None:
    says = "grpc: received message larger than max (200 vs. 100)"
    assert type(told("RESOURCE_EXHAUSTED", says, writes=True)) is BatchTooLarge
    assert type(told("RESOURCE_EXHAUSTED", says)) is Terminal


def test_certificates_are_never_left_unverified_over_grpc() -> None:
    connection = Connection("weaviate", {"url": "https://w"}, tls=TlsSettings(insecure_skip_verify=True))
    with pytest.raises(Terminal) as refused:
        open_store(connection)
    assert refused.value.reason == "UnsupportedTLS"
