"""What is Qdrant's own, beyond the contract: against the double, which can be old, late, closed and behind TLS.

- a listing is one request and one a collection, or two where an estimate says that it is empty
- estimates are told as such; an index is never called empty by one
- an index is made when it takes writes; one that does not in time is Retryable
- reserved and declared fields are payload indexes
- metadata comes back exactly where the server rounds floats, and filters find it
- collections that others made: one vector with a name, several vectors, payloads of their own
- API keys and JWTs; TLS with an authority, with another name, unverified
- servers without metadata of collections, and servers that are too old
- a filter by a field that was declared since is not refused
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest
import trustme
from qdrant_client import grpc
from tests.contract.data import MARK, batch, definition, record_id, scrolled, vectors
from tests.support.qdrant import QdrantDouble, StartQdrant, jwt
from tests.support.qdrant.access import Access

from vectorwright.errors import BatchRejected, BatchTooLarge, Retryable, Terminal
from vectorwright.stores.base import FieldDefinition, Metadata, Store
from vectorwright.stores.filters import Eq, Exists, In, Range
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings, open_store

pytestmark = pytest.mark.server
KEY = "the-api-key"

Open = Callable[..., Store]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """``opened(double, token=KEY, **changes)``: a store that speaks to it."""
    stores: list[Store] = []

    def begin(double: QdrantDouble, token: str = KEY, *, url: str | None = None, **changes: object) -> Store:
        connection = Connection(
            "qdrant",
            {"url": url or double.url, "grpcPort": double.grpc_port},
            credentials=StoreCredentials(token=token),
            timeout=10,
        )
        stores.append(open_store(replace(connection, **changes)))  # type: ignore[arg-type]
        return stores[-1]

    yield begin
    for store in stores:
        await store.close()


@pytest.fixture
def double(start_qdrant: StartQdrant) -> QdrantDouble:
    return start_qdrant(api_key=KEY, read_only_key="read-only")


@pytest.fixture
async def docs(double: QdrantDouble, opened: Open) -> Store:
    """A store with the index ``docs``: cosine, empty."""
    store = opened(double)
    await store.create_index(definition())
    return store


def ask(double: QdrantDouble, method: str, request: object) -> None:
    """Do something behind the store's back."""
    double.engine.answer(method, request, Access())


async def test_a_listing_asks_once_a_collection(docs: Store, double: QdrantDouble) -> None:
    for number in range(4):
        await docs.create_index(definition(f"more-{number}"))
        await docs.upsert(f"more-{number}", batch(2))
    double.called.clear()
    assert [index.count for index in await docs.list_indexes()] == [0, 2, 2, 2, 2]
    assert sorted(double.called) == ["Collections/Get"] * 5 + ["Collections/List", "Points/Count"]


async def test_estimates_are_told_as_such_and_never_say_empty(docs: Store, double: QdrantDouble) -> None:
    await docs.upsert("docs", batch(7))
    double.stale_counts(0)
    (listed,) = await docs.list_indexes()
    assert (listed.count, listed.count_exact) == (7, True)
    double.stale_counts(3)
    (listed,) = await docs.list_indexes()
    assert (listed.count, listed.count_exact) == (3, False)
    described = await docs.describe_index("docs")
    assert (described.count, described.count_exact) == (7, True)
    double.stale_counts(1_000_000)
    described = await docs.describe_index("docs")
    assert (described.count, described.count_exact) == (1_000_000, False)
    held = await docs.statistics("docs")
    assert (held.count, held.exact, held.details["points_estimate"]) == (7, True, 1_000_000)


async def test_a_write_to_a_known_index_is_one_request(docs: Store, double: QdrantDouble) -> None:
    await docs.upsert("docs", batch(1))
    double.called.clear()
    await docs.upsert("docs", batch(5))
    assert double.called == ["Points/Upsert"]


async def test_an_index_is_made_when_it_takes_writes(double: QdrantDouble, opened: Open) -> None:
    store = opened(double)
    double.engine.not_ready_for = 0.6
    started = time.monotonic()
    await store.create_index(definition())
    assert time.monotonic() - started >= 0.5
    await store.upsert("docs", batch(2))


async def test_an_index_that_takes_no_writes_in_time_is_retryable(double: QdrantDouble, opened: Open) -> None:
    double.engine.not_ready_for = 60
    with pytest.raises(Retryable) as late:
        await opened(double, timeout=0.5).create_index(definition())
    assert late.value.reason in {"IndexNotReady", "Throttled"}


async def test_fields_are_payload_indexes(docs: Store, double: QdrantDouble) -> None:
    await docs.update_index("docs", {}, [FieldDefinition("when", "datetime")])
    schema = double.engine.collections["docs"].schema
    kinds = {name: grpc.PayloadSchemaType.Name(info.data_type) for name, info in schema.items()}
    assert kinds == {
        **dict.fromkeys(("vw_source", "vw_doc", "vw_ver", "vw_id", "vw_exact", "word"), "Keyword"),
        **dict.fromkeys(("vw_n", "vw_count", "whole"), "Integer"),
        "real": "Float",
        "flag": "Bool",
        "when": "Datetime",
    }
    with pytest.raises(Terminal) as refused:
        await docs.update_index("docs", {}, [FieldDefinition("when", "keyword")])
    assert refused.value.reason == "InvalidField"


HARD = [0.1 + 0.2, math.nextafter(0.5, 0), 1e23, 5e-324, 9007199254740991.0, 6.097556996584416e267, -1 / 3]


async def test_floats_come_back_exactly_and_are_found(docs: Store, double: QdrantDouble) -> None:
    numbers = [*HARD, *(math.nextafter(value, math.inf) for value in HARD)]
    await docs.upsert("docs", batch(len(numbers), metadata=[{"real": value, "any": value} for value in numbers]))
    kept = [point.payload["real"] for point in double.engine.collections["docs"].points.values()]
    assert kept != numbers, "the server keeps other floats here, or this proves nothing"
    found = await docs.fetch("docs", [record_id(at) for at in range(len(numbers))])
    assert [found[record_id(at)].metadata["real"] for at in range(len(numbers))] == numbers
    for field in ("real", "any"):
        for value in numbers:
            assert [record.metadata[field] for record in await scrolled(docs, Eq(field, value))] == [value]
        for bound in (value for value in numbers if abs(value) < 2**53):
            above = [record.metadata[field] for record in await scrolled(docs, Range(field, gt=bound))]
            assert sorted(above) == sorted(value for value in numbers if value > bound)


async def test_large_integers_are_told_apart(docs: Store) -> None:
    numbers = [2**53, 2**53 + 1, 2**53 + 2, 10**18, 10**18 + 1, 2**63 - 1, -(2**63)]
    await docs.upsert("docs", batch(len(numbers), metadata=[{"whole": one, "any": one} for one in numbers]))
    for field in ("whole", "any"):
        for one in numbers:
            assert [record.metadata[field] for record in await scrolled(docs, Eq(field, one))] == [one]
        assert await docs.count("docs", In(field, tuple(numbers[1:3]))) == 2


async def test_a_field_of_integers_holds_integers(docs: Store, double: QdrantDouble) -> None:
    whole: list[Metadata] = [{"whole": 3.0}, {"whole": 3}, {"whole": "3"}]
    await docs.upsert("docs", batch(3, metadata=whole))
    assert [point.payload["whole"] for point in double.engine.collections["docs"].points.values()] == [3, 3, "3"]
    read = {record.id: record.metadata["whole"] for record in await scrolled(docs)}
    assert [type(read[record_id(at)]) for at in range(3)] == [float, int, str]
    assert await docs.count("docs", Eq("whole", 3)) == 2
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", batch(2, metadata=[{"whole": 1}, {"whole": 1.5}]))
    assert record_id(1) in refused.value.message


async def test_an_empty_list_is_there(docs: Store) -> None:
    await docs.upsert("docs", batch(3, metadata=[{"tags": []}, {"tags": ["a"]}, {}]))
    assert {record.id for record in await scrolled(docs, Exists("tags"))} == {record_id(0), record_id(1)}
    assert (await docs.fetch("docs", [record_id(0)]))[record_id(0)].metadata == {"tags": []}


async def test_a_collection_of_others_with_a_named_vector(double: QdrantDouble, opened: Open) -> None:
    named = grpc.VectorParams(size=8, distance=grpc.Distance.Cosine)
    request = grpc.CreateCollection(collection_name="theirs")
    request.vectors_config.params_map.map["dense"].CopyFrom(named)
    ask(double, "Collections/Create", request)
    store = opened(double)
    seen = await store.describe_index("theirs")
    assert (seen.dimension, seen.metric, seen.mark) == (8, "cosine", None)
    await store.set_mark("theirs", MARK, "fp-1")
    marked = await store.describe_index("theirs")
    assert (marked.mark, marked.model_fingerprint, marked.incarnation) == (MARK, "fp-1", seen.incarnation)
    await store.upsert("theirs", batch(3))
    (match,) = await store.query("theirs", vectors(3)[1], 1, vectors=True)
    assert match.record.id == record_id(1)
    np.testing.assert_allclose(match.record.vector, vectors(3)[1], atol=1e-6)  # type: ignore[arg-type]
    await store.update_index("theirs", {"hnsw.m": 8, "on_disk": True})
    assert (await store.describe_index("theirs")).settings.items() >= {"hnsw.m": 8, "on_disk": True}.items()


async def test_a_collection_of_several_vectors_is_listed_and_left_alone(double: QdrantDouble, opened: Open) -> None:
    request = grpc.CreateCollection(collection_name="theirs")
    for name in ("title", "body"):
        request.vectors_config.params_map.map[name].CopyFrom(grpc.VectorParams(size=8, distance=grpc.Distance.Dot))
    ask(double, "Collections/Create", request)
    store = opened(double)
    (listed,) = await store.list_indexes()
    assert (listed.name, listed.dimension, listed.metric) == ("theirs", None, None)
    for call in (store.upsert("theirs", batch(1)), store.query("theirs", vectors(1)[0], 1)):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "UnsupportedCollection"


async def test_payloads_of_others_are_read(docs: Store, double: QdrantDouble) -> None:
    point = grpc.PointStruct(id=grpc.PointId(num=2**64 - 1))
    point.vectors.vector.dense.data.extend([1.0] * 8)
    point.payload["null"].null_value = grpc.NullValue.NULL_VALUE
    point.payload["numbers"].list_value.values.add().integer_value = 4
    point.payload["nested"].struct_value.fields["a"].bool_value = True
    ask(double, "Points/Upsert", grpc.UpsertPoints(collection_name="docs", points=[point]))
    (record,) = await scrolled(docs)
    assert (record.id, record.metadata) == (str(2**64 - 1), {"numbers": [4], "nested": {"a": True}})
    await docs.delete("docs", [record.id, "no id of a point"])
    assert await docs.count("docs") == 0


async def test_ids_that_no_point_can_have_are_refused_by_name(docs: Store) -> None:
    with pytest.raises(BatchRejected) as refused:
        await docs.upsert("docs", replace(batch(2), ids=[record_id(0), "docs/a.md#0"]))
    assert "docs/a.md#0" in refused.value.message
    assert await docs.fetch("docs", ["docs/a.md#0"]) == {}


async def test_more_bytes_than_a_request_may_have_are_too_large(docs: Store) -> None:
    long = ["x" * 16_000_000] * 2
    with pytest.raises(BatchTooLarge):
        await docs.upsert("docs", batch(2, texts=long))
    await docs.upsert("docs", batch(1, texts=long[:1]))


@pytest.mark.parametrize("token", ["another", jwt("another", access="m"), jwt(KEY, access="m", exp=1)])
async def test_a_wrong_key_is_noticed_by_the_probe(double: QdrantDouble, opened: Open, token: str) -> None:
    with pytest.raises(Terminal) as refused:
        await opened(double, token).probe()
    assert refused.value.reason == "AccessDenied"
    assert token not in refused.value.message


async def test_a_token_for_one_collection_writes_there_only(docs: Store, double: QdrantDouble, opened: Open) -> None:
    await docs.create_index(definition("other"))
    worker = opened(double, jwt(KEY, access=[{"collection": "docs", "access": "rw"}]))
    assert (await worker.probe()).version == "1.18.0"
    assert [index.name for index in await worker.list_indexes()] == ["docs"]
    await worker.upsert("docs", batch(2))
    assert await worker.count("docs") == 2
    for call in (worker.upsert("other", batch(1)), worker.create_index(definition("third"))):
        with pytest.raises(Terminal) as refused:
            await call
        assert refused.value.reason == "AccessDenied"


async def test_a_key_that_reads_cannot_write(docs: Store, double: QdrantDouble, opened: Open) -> None:
    reader = opened(double, "read-only")
    assert await reader.count("docs") == 0
    with pytest.raises(Terminal) as refused:
        await reader.upsert("docs", batch(1))
    assert refused.value.reason == "AccessDenied"
    assert await docs.count("docs") == 0


def test_opening_does_not_show_the_key(double: QdrantDouble) -> None:
    assert KEY not in repr(Connection("qdrant", {"url": double.url}, credentials=StoreCredentials(token=KEY)))


@pytest.fixture
def secure(start_qdrant: StartQdrant) -> tuple[QdrantDouble, str]:
    """A double behind TLS with a certificate for ``qdrant.internal`` and 127.0.0.1, and its authority as PEM."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "qdrant.internal")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    double = start_qdrant(api_key=KEY, tls=(certificate.private_key_pem.bytes(), chain))
    return double, authority.cert_pem.bytes().decode()


@pytest.mark.parametrize("how", ["authority", "server name", "unverified"])
async def test_tls_is_spoken(secure: tuple[QdrantDouble, str], opened: Open, how: str) -> None:
    double, authority = secure
    tls = {
        "authority": TlsSettings(ca=authority),
        "server name": TlsSettings(ca=authority, server_name="qdrant.internal"),
        "unverified": TlsSettings(insecure_skip_verify=True),
    }[how]
    info = await opened(double, url=double.url.replace("http:", "https:"), tls=tls).probe()
    assert info.endpoint == f"https://127.0.0.1:{double.grpc_port}"


@pytest.mark.parametrize("tls", [TlsSettings(), TlsSettings(server_name="another.name")])
async def test_a_certificate_that_is_not_trusted_is_terminal(
    secure: tuple[QdrantDouble, str], opened: Open, tls: TlsSettings
) -> None:
    double, authority = secure
    mine = replace(tls, ca=authority if tls.server_name else None)
    with pytest.raises(Terminal) as refused:
        await opened(double, url=double.url.replace("http:", "https:"), tls=mine, timeout=5).probe()
    assert refused.value.reason == "TLSVerificationFailed"


async def test_tls_where_none_is_spoken_is_retryable(double: QdrantDouble, opened: Open) -> None:
    with pytest.raises(Retryable):
        await opened(double, url=double.url.replace("http:", "https:"), timeout=3).probe()


async def test_without_metadata_of_collections_there_are_no_marks(start_qdrant: StartQdrant, opened: Open) -> None:
    store = opened(start_qdrant(api_key=KEY, version="1.15.4"))
    assert not (await store.probe()).capabilities.marks
    made = await store.create_index(definition())
    assert (made.mark, made.model_fingerprint) == (None, None)
    assert (await store.describe_index("docs")).incarnation == made.incarnation
    await store.update_index("docs", {"on_disk": True})
    assert (await store.describe_index("docs")).incarnation == made.incarnation


@pytest.mark.parametrize("version", ["1.12.6", "0.9.0", "dev"])
async def test_a_server_that_is_too_old_is_refused(start_qdrant: StartQdrant, opened: Open, version: str) -> None:
    with pytest.raises(Terminal) as refused:
        await opened(start_qdrant(api_key=KEY, version=version)).probe()
    assert refused.value.reason == "UnsupportedVersion"


async def test_a_field_that_was_declared_since_is_filtered_by(docs: Store, double: QdrantDouble, opened: Open) -> None:
    await docs.upsert("docs", batch(2, metadata=[{"when": "2024-05-01T00:00:00Z"}, {"when": "2025-05-01T00:00:00Z"}]))
    await opened(double).update_index("docs", {}, [FieldDefinition("when", "datetime")])
    assert await docs.count("docs", Range("when", gte="2025-01-01T00:00:00Z")) == 1


async def test_metadata_of_others_stays(docs: Store, double: QdrantDouble) -> None:
    request = grpc.UpdateCollection(collection_name="docs")
    request.metadata["team"].string_value = "search"
    ask(double, "Collections/Update", request)
    await docs.set_mark("docs", None, None)
    assert set(double.engine.collections["docs"].config.metadata) == {"team", "vw_incarnation"}


async def test_an_alias_is_not_dropped_as_if_it_were_an_index(docs: Store) -> None:
    await docs.set_alias("live", "docs")
    with pytest.raises(Exception, match="live"):
        await docs.delete_index("live")
    assert await docs.aliases() == {"live": "docs"}
    await docs.delete_index("docs")
    assert await docs.aliases() == {}
