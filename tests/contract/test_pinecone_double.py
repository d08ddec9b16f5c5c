"""The double of Pinecone, driven by the official SDK as anybody would use it, synchronous and asynchronous.

- an index is made, told, configured, protected and deleted; records are written, read, searched, updated, listed
- documented limits and error codes: 401, 400, 403, 404, 409, 413, 429 with Retry-After, quotas
- what happens a little later on the service does so here where it is turned on: readiness, reads, counts, deletion
- an answer that the SDK understands is not proof that the service gives it; the SDK's own models are the best there is
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pinecone import (
    ApiError,
    AsyncPinecone,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    Pinecone,
    RetryConfig,
    UnauthorizedError,
)
from pinecone.errors.exceptions import PayloadTooLargeError, RateLimitError
from tests.support.loopback_http import Response
from tests.support.pinecone import PineconeDouble

pytestmark = pytest.mark.server
KEY = "pcsk_of_the_tests"
ONCE = RetryConfig(max_retries=0)
DENSE = {"fields": {"_values": {"type": "dense_vector", "dimension": 3, "metric": "cosine"}}}
RECORDS: list[dict[str, Any]] = [
    {"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"genre": ["comedy", "drama"], "year": 2019}},
    {"id": "b", "values": [0.0, 1.0, 0.0], "metadata": {"genre": "drama", "year": 2020, "seen": True}},
    {"id": "c", "values": [0.7, 0.7, 0.0]},
]


@pytest.fixture
def double() -> Iterator[PineconeDouble]:
    with PineconeDouble({KEY: "p1a2b3c"}) as double:
        yield double


@pytest.fixture
def client(double: PineconeDouble) -> Iterator[Pinecone]:
    with Pinecone(api_key=KEY, host=double.url, retry_config=ONCE) as client:
        yield client


def make(client: Pinecone, name: str = "docs", **more: object) -> None:
    client.indexes.create(name=name, schema=DENSE, **more)  # type: ignore[arg-type]


def test_the_synchronous_sdk_does_what_it_does_with_the_service(client: Pinecone) -> None:
    make(client, tags={"team": "search"}, deployment={"deployment_type": "managed", "cloud": "gcp", "region": "eu"})
    told = client.indexes.describe("docs")
    assert (told.dimension, told.metric, told.status.state) == (3, "cosine", "Ready")
    assert (told.deployment.cloud, told.tags) == ("gcp", {"team": "search"})  # type: ignore[union-attr]
    with client.index(name="docs") as index:
        assert index.upsert(vectors=RECORDS).upserted_count == 3
        found = index.query(vector=[1.0, 0.1, 0.0], top_k=2, include_metadata=True)
        assert [match.id for match in found.matches] == ["a", "c"]
        assert found.matches[0].metadata == {"genre": ["comedy", "drama"], "year": 2019.0}
        assert found.matches[0].score == pytest.approx(0.99504, abs=1e-5)
        assert index.fetch(ids=["b", "nobody"]).vectors["b"].values == [0.0, 1.0, 0.0]
        assert next(iter(index.list())).vectors[0].id == "a"
        assert index.describe_index_stats().namespaces["__default__"].vector_count == 3
        index.delete(ids=["a", "nobody"])
        assert index.describe_index_stats().total_vector_count == 2
    client.indexes.delete("docs")
    assert [index.name for index in client.indexes.list()] == []


def test_hosts_are_told_as_the_service_does_where_that_is_wanted(client: Pinecone, double: PineconeDouble) -> None:
    double.knobs.bare_hosts = True
    make(client)
    assert client.indexes.describe("docs").host == f"https://{double.host}:{double.port}/docs-p1a2b3c.svc.double"


async def test_the_asynchronous_sdk_does_what_it_does_with_the_service(double: PineconeDouble) -> None:
    async with AsyncPinecone(api_key=KEY, host=double.url, retry_config=ONCE) as client:
        await client.indexes.create(name="docs", dimension=3, metric="euclidean")
        async with await client.index(name="docs") as index:
            await index.upsert(vectors=RECORDS, namespace="team", batch_size=2, show_progress=False)
            found = await index.query(vector=[0.0, 1.0, 0.0], top_k=3, namespace="team", include_values=True)
            assert [(match.id, match.score) for match in found.matches] == [
                ("b", 0.0),
                ("c", pytest.approx(0.58, abs=1e-6)),
                ("a", 2.0),
            ]
            page = await index.fetch_by_metadata(filter={"genre": "drama"}, namespace="team", limit=1)
            assert list(page.vectors) == ["a"]
            assert page.pagination is not None
            rest = await index.fetch_by_metadata(
                filter={"genre": "drama"}, namespace="team", limit=1, pagination_token=page.pagination.next
            )
            assert (list(rest.vectors), rest.pagination) == (["b"], None)
            matched = await index.update(filter={"seen": True}, set_metadata={}, dry_run=True, namespace="team")
            assert matched.matched_records == 1
            await index.update(id="c", set_metadata={"year": 1999}, values=[0.1, 0.2, 0.3], namespace="team")
            changed = (await index.fetch(ids=["c"], namespace="team")).vectors["c"]
            assert changed.metadata == {"year": 1999.0}
            assert changed.values == pytest.approx([0.1, 0.2, 0.3])
            await index.delete(filter={"year": {"$gte": 2020}}, namespace="team")
            assert [item.id for item in (await index.list_paginated(namespace="team")).vectors] == ["a", "c"]
            await index.delete_namespace(name="team")
            with pytest.raises(NotFoundError):
                await index.delete_namespace(name="team")
        assert [model.name async for model in client.indexes.list()] == ["docs"]
        configured = await client.indexes.configure("docs", tags={"a": "1"}, deletion_protection="enabled")
        assert (configured.tags, configured.deletion_protection) == ({"a": "1"}, "enabled")
        assert (await client.indexes.configure("docs", tags={"a": "", "b": "2"})).tags == {"b": "2"}


FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "equal": ({"year": {"$eq": 2019}}, "a"),
    "shorthand": ({"genre": "comedy"}, "a"),
    "not equal asks for the field": ({"year": {"$ne": 2019}}, "b"),
    "one of": ({"genre": {"$in": ["comedy", "nothing"]}}, "a"),
    "none of asks for the field": ({"genre": {"$nin": ["comedy"]}}, "b"),
    "greater": ({"year": {"$gt": 2019, "$lte": 2020}}, "b"),
    "there": ({"seen": {"$exists": True}}, "b"),
    "not there": ({"genre": {"$exists": False}}, "c"),
    "and, or": ({"$or": [{"seen": True}, {"$and": [{"genre": "comedy"}, {"year": {"$lt": 2020}}]}]}, "ab"),
    "a boolean is no number": ({"seen": {"$eq": 1}}, ""),
}


@pytest.mark.parametrize("case", list(FILTERS))
def test_filters_mean_what_is_documented(client: Pinecone, case: str) -> None:
    where, expected = FILTERS[case]
    make(client)
    with client.index(name="docs") as index:
        index.upsert(vectors=RECORDS)
        found = index.query(vector=[1.0, 1.0, 1.0], top_k=10, filter=where)
        assert sorted(match.id for match in found.matches) == list(expected)


@pytest.mark.parametrize(
    "where",
    [
        {"year": {"$gt": "2019"}},
        {"year": {"$in": []}},
        {"year": {"$in": [1, "a"]}},
        {"year": {"$in": list(range(10_001))}},
        {"year": {"$not": {"$eq": 1}}},
        {"$not": {"year": 1}},
        {"$and": []},
        {"year": {"$exists": 1}},
    ],
)
def test_filters_that_the_service_refuses(client: Pinecone, where: dict[str, object]) -> None:
    make(client)
    with client.index(name="docs") as index, pytest.raises(ApiError) as refused:
        index.query(vector=[1.0, 1.0, 1.0], top_k=10, filter=where)
    assert refused.value.status_code == 400


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "values": [1.0, 0.0]},
        {"id": "a", "values": [0.0, 0.0, 0.0]},
        {"id": "a" * 513, "values": [1.0, 0.0, 0.0]},
        {"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"text": "x" * 41_000}},
        {"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"$in": "x"}},
    ],
)
def test_records_that_the_service_refuses(client: Pinecone, record: dict[str, Any]) -> None:
    make(client)
    with client.index(name="docs") as index:
        with pytest.raises(ApiError) as refused:
            index.upsert(vectors=[RECORDS[0], record])
        assert refused.value.status_code == 400
        assert index.describe_index_stats().total_vector_count == 0


def test_limits_of_a_request(client: Pinecone) -> None:
    make(client)
    with client.index(name="docs") as index:
        with pytest.raises(ApiError) as many:
            index.upsert(vectors=[{"id": str(n), "values": [1.0, 0.0, 0.0]} for n in range(1_001)])
        assert many.value.status_code == 400
        with pytest.raises(PayloadTooLargeError):
            index.upsert(
                vectors=[
                    {"id": str(n), "values": [1.0, 0.0, 0.0], "metadata": {"text": "x" * 30_000}} for n in range(80)
                ]
            )


def test_refusals_of_the_control_plane(client: Pinecone, double: PineconeDouble) -> None:
    make(client, deletion_protection="enabled")
    with pytest.raises(ConflictError):
        make(client)
    with pytest.raises(ForbiddenError, match="protection"):
        client.indexes.delete("docs")
    with pytest.raises(NotFoundError):
        client.indexes.describe("nope")
    double.knobs.max_indexes = 1
    with pytest.raises(ForbiddenError) as full:
        make(client, "more")
    assert full.value.error_code == "QUOTA_EXCEEDED"
    with pytest.raises(ApiError):
        client.indexes.configure("docs", deployment={"replicas": 2})
    double.revoke(KEY)
    with pytest.raises(UnauthorizedError):
        client.indexes.describe("docs")


def test_pods_are_scaled_and_not_listed(client: Pinecone) -> None:
    pods = {"deployment_type": "pod", "environment": "us-east1-gcp", "pod_type": "p1.x1", "replicas": 1, "shards": 1}
    make(client, deployment=pods)
    scaled = client.indexes.configure("docs", deployment={"replicas": 3, "pod_type": "p1.x2"})
    assert (scaled.deployment.replicas, scaled.deployment.pod_type) == (3, "p1.x2")  # type: ignore[union-attr]
    with pytest.raises(ApiError):
        client.indexes.configure("docs", deployment={"pod_type": "p1.x1"})
    with client.index(name="docs") as index, pytest.raises(ApiError, match="serverless"):
        index.list_paginated()


def test_another_project_sees_nothing(client: Pinecone, double: PineconeDouble) -> None:
    make(client)
    host = str(client.indexes.describe("docs").host)
    double.issue("another key", "other")
    with Pinecone(api_key="another key", host=double.url, retry_config=ONCE) as other:
        assert [index.name for index in other.indexes.list()] == []
        with other.index(host=host) as index, pytest.raises(NotFoundError):
            index.describe_index_stats()


def test_an_index_is_ready_and_gone_some_time_later(client: Pinecone, double: PineconeDouble) -> None:
    double.knobs.ready_after, double.knobs.gone_after = 60.0, 60.0
    made = client.indexes.create(name="docs", schema=DENSE, timeout=-1)
    assert (made.status.ready, made.status.state, made.host) == (False, "Initializing", None)
    double.knobs.clock.advance(60)
    assert client.indexes.describe("docs").status.ready
    client.indexes.delete("docs", timeout=-1)
    assert client.indexes.describe("docs").status.state == "Terminating"
    with pytest.raises(ConflictError):
        make(client)
    double.knobs.clock.advance(60)
    assert not client.indexes.exists("docs")


def test_reads_and_counts_lag_behind_writes(client: Pinecone, double: PineconeDouble) -> None:
    make(client)
    with client.index(name="docs") as index:
        double.knobs.visible_after = 60.0
        written = index.upsert(vectors=RECORDS)
        assert written.response_info is not None
        assert written.response_info.lsn_committed == 1
        early = index.query(vector=[1.0, 0.0, 0.0], top_k=3)
        assert early.matches == []
        assert early.response_info is not None
        assert not early.response_info.is_reconciled(1)
        double.knobs.clock.advance(60)
        late = index.query(vector=[1.0, 0.0, 0.0], top_k=3)
        assert late.response_info is not None
        assert (len(late.matches), late.response_info.is_reconciled(1)) == (3, True)
        double.knobs.visible_after, double.knobs.stale_counts = 0.0, 60.0
        assert index.describe_index_stats().total_vector_count == 3
        index.delete(ids=["a"])
        assert index.describe_index_stats().total_vector_count == 3
        double.knobs.clock.advance(60)
        assert index.describe_index_stats().total_vector_count == 2


def test_faults_on_purpose(client: Pinecone, double: PineconeDouble) -> None:
    double.throttle(1, seconds=9)
    with pytest.raises(RateLimitError) as busy:
        client.indexes.describe("docs")
    assert busy.value.retry_after == 9.0
    double.fail(Response(b"upstream is away", 503), lambda request: request.path == "/indexes")
    with pytest.raises(NotFoundError):
        client.indexes.describe("docs")
    with pytest.raises(ApiError) as away:
        list(client.indexes.list())
    assert away.value.status_code == 503
    double.knobs.latency = 0.2
    started = time.monotonic()
    list(client.indexes.list())
    assert time.monotonic() - started >= 0.2
