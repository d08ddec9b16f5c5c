"""Milvus, without a server: names, settings, records on the wire, what answers and failures mean.

- names of ours and of Milvus are one to one
- settings become parameters, and none is without effect
- the bytes of a write are those that protobuf would write, and an answer is read back
- every code and every status has its kind, and no message tells a credential
- a server of 2.4 gets no columns that can be empty
- importing the store imports neither pymilvus nor pandas
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectorwright.errors import BatchRejected, BatchTooLarge, Conflict, NotFound, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, IndexDefinition, RecordBatch, Setting
from vectorwright.stores.milvus.errors import Denied, Missing, NotLoaded, PartitionNotFound, rpc_error, status_error
from vectorwright.stores.milvus.metadata import decode, encode
from vectorwright.stores.milvus.names import from_key, from_milvus, to_key, to_milvus
from vectorwright.stores.milvus.records import placeholder, records, upsert_request
from vectorwright.stores.milvus.schema import MAX_FIELDS, Collection, columns, schema_of
from vectorwright.stores.milvus.settings import VectorIndex, search_params, vector_index
from vectorwright.stores.milvus.stubs import common_pb2, milvus_pb2, pairs, schema_pb2

HOST = "http://milvus:19530"
SECRET = "s3cret-that-never-shows"


def test_every_name_has_one_form_and_comes_back() -> None:
    forms: dict[str, str] = {}
    for length in range(1, 6):
        for chars in itertools.product("a-_.x2", repeat=length):
            name = "".join(chars)
            form = to_milvus(name)
            assert form not in forms, (name, forms[form])
            assert form.replace("_", "a").isalnum()
            assert not form[0].isdigit()
            assert from_milvus(form) == name
            forms[form] = name


@given(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True)
    | st.text("_x25def", min_size=1).filter(lambda n: not n[0].isdigit())
)
def test_every_name_of_milvus_can_be_asked_for_as_it_is_listed(theirs: str) -> None:
    assert to_milvus(from_milvus(theirs)) == theirs


@given(st.lists(st.tuples(st.text(":ab", min_size=1, max_size=5), st.sampled_from(("", "a", "b", "a-b"))), unique=True))
def test_keys_of_different_records_differ(owners: list[tuple[str, str]]) -> None:
    keys = [to_key(record_id, namespace) for record_id, namespace in owners]
    assert len(set(keys)) == len(owners)
    assert [from_key(key, namespace) for key, (_, namespace) in zip(keys, owners, strict=True)] == [
        i for i, _ in owners
    ]


@pytest.mark.parametrize(
    ("settings", "kind", "params"),
    [
        ({}, "AUTOINDEX", {}),
        ({"hnsw.m": 8, "hnsw.ef": 50}, "HNSW", {"M": 8}),
        ({"ivf.nlist": 9}, "IVF_FLAT", {"nlist": 9}),
        ({"index_type": "IVF_PQ", "ivf.m": 4, "ivf.nbits": 8}, "IVF_PQ", {"m": 4, "nbits": 8}),
        ({"scann.with_raw_data": True}, "SCANN", {"with_raw_data": True}),
        ({"diskann.search_list": 20}, "DISKANN", {}),
    ],
)
def test_settings_make_an_index(settings: dict[str, Setting], kind: str, params: dict[str, Setting]) -> None:
    assert vector_index(settings) == VectorIndex(kind, params)


def test_a_setting_that_is_left_out_stays() -> None:
    present = VectorIndex("HNSW", {"M": 8, "efConstruction": 99})
    assert vector_index({"hnsw.m": 16}, present) == VectorIndex("HNSW", {"M": 16, "efConstruction": 99})
    assert vector_index({"hnsw.ef": 16}, present) == present
    assert vector_index({}, present) == present


@pytest.mark.parametrize(
    ("settings", "present"),
    [
        ({"hnsw.ef": 5}, VectorIndex("IVF_FLAT")),
        ({"autoindex.level": 5}, VectorIndex("HNSW")),
        ({"index_type": "FLAT", "hnsw.m": 5}, None),
        ({"hnsw.m": 5, "ivf.nprobe": 5}, None),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, Setting], present: VectorIndex | None) -> None:
    with pytest.raises(Terminal) as refused:
        vector_index(settings, present)
    assert refused.value.reason == "InvalidSetting"


def test_a_search_has_candidates_for_all_that_it_is_asked_for() -> None:
    settings: dict[str, Setting] = {"hnsw.ef": 50, "ivf.nprobe": 7}
    assert search_params("HNSW", settings, 10) == {"ef": 50}
    assert search_params("HNSW", settings, 200) == {"ef": 200}
    assert search_params("IVF_SQ8", settings, 200) == {"nprobe": 7}
    assert search_params("AUTOINDEX", settings, 200) == {}


def described(*, nullable: bool = True, number: int = 7, **more: Any) -> Any:
    definition = IndexDefinition("docs-g1", 3, "cosine", fields=(FieldDefinition("word", "keyword"),))
    schema = schema_of(definition, "docs__g1", nullable=nullable)
    return milvus_pb2.DescribeCollectionResponse(schema=schema, collection_name="docs__g1", collectionID=number, **more)


def index(**params: str) -> Any:
    held = {"index_type": "HNSW", "metric_type": "COSINE", **params}
    return milvus_pb2.IndexDescription(field_name="vector", index_name="vector", params=pairs(held))


@pytest.mark.parametrize(
    "params", [{"params": '{"M": "8"}'}, {"params": '{"M":8}', "mmap.enabled": "true"}, {"M": "8"}]
)
def test_a_collection_is_told_as_the_server_has_it(params: dict[str, str]) -> None:
    answer = described(consistency_level=2, shards_num=4, properties=pairs({"vectorwright.mark": "a/b/c"}))
    seen = Collection.parse(answer, [index(**params)]).describe()
    assert (seen.name, seen.dimension, seen.metric, seen.incarnation) == ("docs-g1", 3, "cosine", "7")
    assert str(seen.mark) == "a/b/c"
    assert seen.settings == {"index_type": "HNSW", "hnsw.m": 8, "consistency_level": "Bounded", "shards": 4}


def test_a_server_of_2_4_gets_no_columns_that_can_be_empty() -> None:
    made = Collection.parse(described(nullable=False), [index()])
    assert made.ours
    assert made.columns == {}


def test_a_collection_has_at_most_the_columns_that_milvus_takes() -> None:
    fields = [FieldDefinition(f"f{at}", "integer") for at in range(100)]
    assert (
        len(schema_of(IndexDefinition("a", 4, "cosine", fields=tuple(fields)), "a", nullable=True).fields) == MAX_FIELDS
    )


@pytest.mark.parametrize("name", ["id", "vector", "text", "metadata", "exists", "LIKE", "json_contains", "is", "Array"])
def test_a_field_with_a_name_that_means_something_else_has_no_column(name: str) -> None:
    assert name not in columns([FieldDefinition(name, "keyword")], nullable=True)


def batch(metadata: list[Any]) -> RecordBatch:
    count = len(metadata)
    vectors = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    return RecordBatch([f"r{at}" for at in range(count)], vectors, metadata, ["t", None, ""][:count])


def test_a_write_is_what_protobuf_would_write() -> None:
    collection = Collection.parse(described(), [index()])
    written = batch([{"word": "a", "vw_n": 2}, {"word": ["a"]}, {"vw_n": 3.0, "other": 1.0}])
    request = milvus_pb2.UpsertRequest.FromString(upsert_request(written, collection, "_default", "ns"))
    assert request.SerializeToString(deterministic=True)
    held = {field.field_name: field for field in request.fields_data}
    assert (request.collection_name, request.partition_name, request.num_rows) == ("docs__g1", "_default", 3)
    assert list(held["id"].scalars.string_data.data) == [":ns:r0", ":ns:r1", ":ns:r2"]
    assert list(held["vector"].vectors.float_vector.data) == [float(value) for value in range(9)]
    assert (held["vector"].type, held["vector"].vectors.dim) == (101, 3)
    assert list(held["vw_mixed"].scalars.bool_data.data) == [False, True, False]
    assert (list(held["word"].valid_data), list(held["word"].scalars.string_data.data)) == ([True, False, False], ["a"])
    assert (list(held["vw_n"].valid_data), list(held["vw_n"].scalars.long_data.data)) == ([True, False, True], [2, 3])
    assert list(held["vw_doc"].valid_data) == [False] * 3
    assert held["vw_doc"].scalars.HasField("string_data")
    assert len(held) == len(collection.columns) + 5
    read = records(request.fields_data, None, "ns")
    assert [one.id for one in read] == written.ids
    assert [one.metadata for one in read] == written.metadata
    assert [one.text for one in read] == ["t", None, ""]
    np.testing.assert_array_equal(np.stack([one.vector for one in read if one.vector is not None]), written.vectors)


def test_a_question_is_what_protobuf_would_write() -> None:
    asked = np.array([1, -2.5, 3e-9], np.float32)
    group = common_pb2.PlaceholderGroup.FromString(placeholder(asked))
    (one,) = group.placeholders
    assert (one.tag, one.type, list(one.values)) == ("$0", 101, [asked.tobytes()])


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.lists(st.text("ab", max_size=2), max_size=3),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_metadata_comes_back_exactly(metadata: Any, has_text: bool) -> None:
    read, text = decode(encode(metadata, has_text=has_text))
    assert (read, text) == (metadata, has_text)
    assert {name: repr(value) for name, value in read.items()} == {
        name: repr(value) for name, value in metadata.items()
    }


@pytest.mark.parametrize("value", [7, 1.5, ["a"], True])
def test_a_reserved_field_of_another_type_is_refused_by_name(value: Any) -> None:
    collection = Collection.parse(described(), [index()])
    with pytest.raises(BatchRejected) as refused:
        upsert_request(batch([{}, {"vw_doc": value}]), collection, "_default", "")
    assert "r1" in refused.value.message
    assert "vw_doc" in refused.value.message


@pytest.mark.parametrize(
    ("code", "reason", "kind", "said"),
    [
        (100, "collection not found[collection=docs]", Missing, "NotFound"),
        (101, "collection not loaded", NotLoaded, "CollectionNotLoaded"),
        (200, "partition not found", PartitionNotFound, "NotFound"),
        (800, "database not found[database=shop]", Terminal, "DatabaseNotFound"),
        (1401, "privilege not permitted", Denied, "AccessDenied"),
        (1, "service not ready", Retryable, "Unavailable"),
        (8, "rate limit exceeded", Retryable, "Throttled"),
        (9, "quota exceeded[reason=disk quota exceeded]", Retryable, "Throttled"),
        (10001, "timeout", Retryable, "Timeout"),
        (1100, "invalid parameter", Terminal, "RequestRefused"),
        (1600, "alias not found", Missing, "NotFound"),
        (1602, "alias already exist", Conflict, "AlreadyExists"),
        (65535, "what is that", Retryable, "Unavailable"),
        (65535, "create duplicate collection with different parameters", Conflict, "AlreadyExists"),
        (1, "collection 'docs' already exists", Conflict, "AlreadyExists"),
    ],
)
def test_every_code_has_its_kind(code: int, reason: str, kind: type[Exception], said: str) -> None:
    error = status_error(
        common_pb2.Status(code=code, reason=f"{reason} {SECRET} {'x' * 5_000}"), HOST, secrets=[SECRET]
    )
    assert type(error) is kind
    assert error is not None
    assert error.reason == said
    assert SECRET not in error.message
    assert len(error.message) < 600


def test_only_what_a_write_says_blames_its_records() -> None:
    assert status_error(common_pb2.Status(), HOST) is None
    for code, kind in ((1100, BatchRejected), (1102, BatchTooLarge), (1804, BatchRejected)):
        assert type(status_error(common_pb2.Status(code=code, reason="no"), HOST, writes=True)) is kind
        assert type(status_error(common_pb2.Status(code=code, reason="no"), HOST)) is Terminal
    for code in (1, 8, 101, 1400, 65535):
        error = status_error(common_pb2.Status(code=code, reason="no"), HOST, writes=True)
        assert not isinstance(error, BatchRejected)


def failed(code: grpc.StatusCode, details: str, **trailing: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing.items()), details=details)


@pytest.mark.parametrize(
    ("code", "details", "kind", "said"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Retryable, "Unreachable"),
        (grpc.StatusCode.UNAVAILABLE, "Received http2 header with status: 503", Retryable, "Throttled"),
        (grpc.StatusCode.UNAVAILABLE, "Received http2 header with status: 429", Retryable, "Throttled"),
        (grpc.StatusCode.UNAVAILABLE, "Received http2 header with status: 502", Retryable, "Unavailable"),
        (grpc.StatusCode.UNKNOWN, "Received http2 header with status: 418", Retryable, "UnexpectedAnswer"),
        (grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404", Retryable, "UnexpectedAnswer"),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown method", Terminal, "UnsupportedServer"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", Retryable, "Timeout"),
        (grpc.StatusCode.UNAUTHENTICATED, "auth check failure", Denied, "AccessDenied"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests", Retryable, "Throttled"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", BatchTooLarge, "BatchTooLarge"),
        (grpc.StatusCode.INVALID_ARGUMENT, "no", BatchRejected, "RecordRejected"),
        (grpc.StatusCode.INTERNAL, "boom", Retryable, "Unavailable"),
        (grpc.StatusCode.NOT_FOUND, "", NotFound, "NotFound"),
        (grpc.StatusCode.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED", Terminal, "TLSVerificationFailed"),
    ],
)
def test_every_failure_has_its_kind(code: grpc.StatusCode, details: str, kind: type[Exception], said: str) -> None:
    error = rpc_error(failed(code, f"{details} {SECRET}"), HOST, writes=True, secrets=[SECRET])
    assert type(error) is kind
    assert error.reason == said
    assert SECRET not in error.message


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (status_error(common_pb2.Status(code=1400, reason="old password not correct"), HOST), False),
        (status_error(common_pb2.Status(code=1401, reason="privilege not permitted"), HOST), True),
        (rpc_error(failed(grpc.StatusCode.UNAUTHENTICATED, "auth check failure"), HOST), False),
        (rpc_error(failed(grpc.StatusCode.PERMISSION_DENIED, "PrivilegeSearch: permission deny to a"), HOST), True),
        (rpc_error(failed(grpc.StatusCode.UNAUTHENTICATED, "Received http2 header with status: 401"), HOST), None),
        (rpc_error(failed(grpc.StatusCode.PERMISSION_DENIED, "Received http2 header with status: 403"), HOST), None),
    ],
)
def test_a_refusal_says_whether_the_user_is_known(error: Exception, known: bool | None) -> None:
    assert isinstance(error, Denied)
    assert error.known is known


@pytest.mark.parametrize(("said", "after"), [("7", 7.0), ("999999", 3600.0), ("soon", None)])
def test_what_a_proxy_asks_to_wait_is_kept(said: str, after: float | None) -> None:
    error = rpc_error(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", **{"retry-after": said}), HOST)
    assert isinstance(error, Retryable)
    assert error.after == after


def test_the_store_needs_the_messages_of_the_client_and_not_the_client() -> None:
    code = (
        "import sys, vectorwright.stores.milvus.store; "
        "print(sorted({'pymilvus', 'pandas', 'requests'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_the_messages_are_the_clients_own_where_both_are_loaded() -> None:
    from pymilvus.grpc_gen import milvus_pb2 as theirs

    assert theirs.QueryRequest.DESCRIPTOR is milvus_pb2.QueryRequest.DESCRIPTOR
    assert schema_pb2.FieldData.DESCRIPTOR.full_name == "milvus.proto.schema.FieldData"
