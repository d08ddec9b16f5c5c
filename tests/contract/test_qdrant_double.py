"""The double of a Qdrant server, driven by the official client, over REST and over gRPC.

- collections, points, filters, aliases, metadata: what the client sends is done, what it reads is what was sent
- what a server refuses, with its codes: absent and taken names, wrong dimensions, ids, keys and tokens, sizes
- what the double can pretend: late readiness, stale counts, slow answers
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator

import grpc
import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from tests.support.qdrant import QdrantDouble, StartQdrant, jwt
from tests.support.qdrant.double import LIMIT

pytestmark = pytest.mark.server
KEY = "the-api-key"
IDS: list[int | str] = [3, 7, str(uuid.UUID(int=5)), str(uuid.UUID(int=9))]
PAYLOADS = [
    {"word": "a", "n": 1, "r": 1.5, "when": "2024-05-01T00:00:00Z"},
    {"word": "b", "n": 2, "r": 2.0, "flag": True, "tags": ["x", "y"]},
    {"word": "a", "n": 1.0, "nested": {"deep": [{"v": 1}, {"v": 2}]}},
    {"none": None, "empty": []},
]
VECTORS = np.random.default_rng(3).standard_normal((4, 6)).astype(np.float32)

OpenClient = Callable[..., QdrantClient]


@pytest.fixture(params=["rest", "grpc"])
def open_client(request: pytest.FixtureRequest) -> Iterator[OpenClient]:
    """``open_client(double, key=KEY)``: the official client, over one of the two APIs."""
    opened: list[QdrantClient] = []

    def connect(double: QdrantDouble, key: str | None = KEY) -> QdrantClient:
        with pytest.warns(UserWarning, match="insecure") if key else _quiet():
            client = QdrantClient(
                host=double.host,
                port=double.port,
                grpc_port=double.grpc_port,
                prefer_grpc=request.param == "grpc",
                https=False,
                api_key=key,
                check_compatibility=False,
                timeout=10,
                trust_env=False,
            )
        opened.append(client)
        return client

    yield connect
    for client in opened:
        client.close()


class _quiet:  # noqa: N801 - stands where a context manager stands
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def double(start_qdrant: StartQdrant) -> QdrantDouble:
    return start_qdrant(api_key=KEY, read_only_key="read-only")


@pytest.fixture
def client(double: QdrantDouble, open_client: OpenClient) -> QdrantClient:
    """A client, and a collection ``docs`` of four points."""
    client = open_client(double)
    client.create_collection(
        "docs",
        vectors_config=models.VectorParams(size=6, distance=models.Distance.EUCLID),
        hnsw_config=models.HnswConfigDiff(m=8),
        metadata={"owner": "tests", "n": 1},
    )
    points = [
        models.PointStruct(id=one, vector=VECTORS[at].tolist(), payload=PAYLOADS[at]) for at, one in enumerate(IDS)
    ]
    client.upsert("docs", points, wait=True)
    return client


def refusal(raised: pytest.ExceptionInfo[BaseException]) -> int | str:
    """The status of a refusal: HTTP's number or gRPC's name."""
    error = raised.value
    if isinstance(error, UnexpectedResponse):
        return int(error.status_code or 0)
    assert isinstance(error, grpc.RpcError)
    return str(error.code().name)


def refused(client: QdrantClient, http: int, code: str) -> int | str:
    """The one of two statuses that this client sees."""
    return code if client._client._prefer_grpc else http  # type: ignore[attr-defined]


REFUSALS = (UnexpectedResponse, grpc.RpcError)


def test_a_collection_is_told_as_it_was_made(client: QdrantClient) -> None:
    info = client.get_collection("docs")
    vectors = info.config.params.vectors
    assert isinstance(vectors, models.VectorParams)
    assert (vectors.size, vectors.distance) == (6, models.Distance.EUCLID)
    assert info.config.hnsw_config.m == 8
    assert info.config.metadata == {"owner": "tests", "n": 1}
    assert (info.status, info.points_count) == (models.CollectionStatus.GREEN, 4)
    assert [one.name for one in client.get_collections().collections] == ["docs"]
    assert client.collection_exists("docs")
    assert not client.collection_exists("nope")


def test_metadata_is_merged_and_null_removes_a_key(client: QdrantClient) -> None:
    client.update_collection("docs", metadata={"n": None, "more": [1, 2]})
    assert client.get_collection("docs").config.metadata == {"owner": "tests", "more": [1, 2]}


def test_settings_change(client: QdrantClient) -> None:
    client.update_collection(
        "docs",
        hnsw_config=models.HnswConfigDiff(ef_construct=77),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
        ),
    )
    config = client.get_collection("docs").config
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (8, 77)
    assert config.optimizer_config.indexing_threshold == 5
    assert isinstance(config.quantization_config, models.ScalarQuantization)


def test_points_are_read_back(client: QdrantClient) -> None:
    found = {point.id: point for point in client.retrieve("docs", IDS, with_payload=True, with_vectors=True)}
    assert set(found) == set(IDS)
    for at, one in enumerate(IDS):
        assert found[one].payload == PAYLOADS[at]
        np.testing.assert_allclose(found[one].vector, VECTORS[at], rtol=1e-6)  # type: ignore[arg-type]


def test_a_query_gives_the_nearest_first(client: QdrantClient) -> None:
    answer = client.query_points("docs", query=VECTORS[1].tolist(), limit=4, with_vectors=False).points
    distances = np.linalg.norm(VECTORS - VECTORS[1], axis=1)
    assert [point.id for point in answer] == [IDS[at] for at in np.argsort(distances)]
    np.testing.assert_allclose([point.score for point in answer], np.sort(distances), atol=1e-5)


def test_cosine_vectors_are_stored_at_unit_length(client: QdrantClient) -> None:
    client.create_collection("unit", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.upsert("unit", [models.PointStruct(id=1, vector=[3.0, 4.0])])
    (point,) = client.retrieve("unit", [1], with_vectors=True)
    np.testing.assert_allclose(point.vector, [0.6, 0.8], atol=1e-6)  # type: ignore[arg-type]


def test_a_scroll_goes_through_ids_in_order(client: QdrantClient) -> None:
    first, following = client.scroll("docs", limit=3)
    rest, end = client.scroll("docs", limit=3, offset=following)
    assert [point.id for point in first + rest] == IDS
    assert end is None


def field(key: str, **condition: object) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=key, **condition)])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (field("word", match=models.MatchValue(value="a")), [0, 2]),
        (field("n", match=models.MatchValue(value=1)), [0]),
        (field("n", range=models.Range(gte=1, lte=1)), [0, 2]),
        (field("flag", match=models.MatchValue(value=True)), [1]),
        (field("tags", match=models.MatchAny(any=["y", "z"])), [1]),
        (field("nested.deep[].v", range=models.Range(gt=1)), [2]),
        (field("when", range=models.DatetimeRange(gte="2024-05-01T00:00:00Z")), [0]),
        (models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="empty"))]), [0, 1, 2, 3]),
        (models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="none"))]), [3]),
        (models.Filter(must_not=[models.FieldCondition(key="word", match=models.MatchValue(value="a"))]), [1, 3]),
        (models.Filter(must=[models.HasIdCondition(has_id=[3])]), [0]),
    ],
)
def test_filters_mean_what_they_mean_to_a_server(
    client: QdrantClient, where: models.Filter, expected: list[int]
) -> None:
    assert [point.id for point in client.scroll("docs", where)[0]] == [IDS[at] for at in expected]
    assert client.count("docs", where, exact=True).count == len(expected)


def test_an_index_of_integers_holds_integral_floats_and_answers_for_its_field(client: QdrantClient) -> None:
    client.create_payload_index("docs", "n", models.PayloadSchemaType.INTEGER, wait=True)
    assert client.get_collection("docs").payload_schema["n"].data_type == models.PayloadSchemaType.INTEGER
    assert client.count("docs", field("n", match=models.MatchValue(value=1))).count == 2
    client.delete_payload_index("docs", "n")
    assert client.count("docs", field("n", match=models.MatchValue(value=1))).count == 1


def test_points_are_deleted_by_id_and_by_filter(client: QdrantClient) -> None:
    client.delete("docs", [3, 4711])
    assert client.count("docs").count == 3
    client.delete("docs", models.FilterSelector(filter=field("word", match=models.MatchValue(value="a"))))
    assert client.count("docs").count == 2


def test_aliases_move_in_one_step(client: QdrantClient) -> None:
    client.create_collection("other", vectors_config=models.VectorParams(size=6, distance=models.Distance.DOT))
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="docs", alias_name="live"))
    client.update_collection_aliases([create])
    assert client.count("live").count == 4
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="live"))
    again = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="other", alias_name="live"))
    client.update_collection_aliases([delete, again])
    assert [(one.alias_name, one.collection_name) for one in client.get_aliases().aliases] == [("live", "other")]
    assert client.count("live").count == 0
    assert client.delete_collection("other")
    assert client.get_aliases().aliases == []


def test_what_is_not_there_or_there_already(client: QdrantClient) -> None:
    for call in (client.get_collection, client.count, client.scroll):
        with pytest.raises(REFUSALS) as raised:
            call("nope")
        assert refusal(raised) == refused(client, 404, "NOT_FOUND")
        assert "Not found: Collection `nope`" in str(raised.value)
    with pytest.raises(REFUSALS) as raised:
        client.create_collection("docs", vectors_config=models.VectorParams(size=6, distance=models.Distance.DOT))
    assert refusal(raised) == refused(client, 409, "ALREADY_EXISTS")
    assert not client.delete_collection("nope")


def test_wrong_vectors_and_ids_are_refused_and_nothing_is_written(client: QdrantClient) -> None:
    good = models.PointStruct(id=100, vector=[0.0] * 6)
    for bad in (models.PointStruct(id=101, vector=[0.0] * 5), models.PointStruct(id="docs/a.md", vector=[0.0] * 6)):
        with pytest.raises(REFUSALS) as raised:
            client.upsert("docs", [good, bad])
        assert refusal(raised) == refused(client, 400, "INVALID_ARGUMENT")
    assert client.count("docs").count == 4


def test_a_request_above_the_limit_is_refused(client: QdrantClient) -> None:
    point = models.PointStruct(id=1, vector=[0.0] * 6, payload={"long": "x" * (LIMIT + 1)})
    with pytest.raises(REFUSALS) as raised:
        client.upsert("docs", [point])
    assert refusal(raised) == refused(client, 413, "OUT_OF_RANGE")


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("key", "http", "code"),
    [
        (None, 401, "UNAUTHENTICATED"),
        ("another key", 401, "UNAUTHENTICATED"),
        ("not.a.token", 401, "UNAUTHENTICATED"),
        (jwt("another key", access="m"), 403, "PERMISSION_DENIED"),
        (jwt(KEY, access="m", exp=1), 403, "PERMISSION_DENIED"),
    ],
    ids=["none", "key", "words", "stranger", "expired"],
)
def test_without_a_right_key_nothing_is_told(
    double: QdrantDouble, open_client: OpenClient, key: str | None, http: int, code: str
) -> None:
    stranger = open_client(double, key)
    with pytest.raises(REFUSALS) as raised:
        stranger.get_collections()
    assert refusal(raised) == refused(stranger, http, code)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("key", "sees", "reads", "writes"),
    [
        ("read-only", True, True, False),
        (jwt(KEY, access="r"), True, True, False),
        (jwt(KEY, access="m", exp=4_102_444_800), True, True, True),
        (jwt(KEY, access=[{"collection": "docs", "access": "rw"}]), True, True, True),
        (jwt(KEY, access=[{"collection": "docs", "access": "r"}]), True, True, False),
        (jwt(KEY, access=[{"collection": "other", "access": "rw"}]), False, False, False),
    ],
    ids=["read-only key", "reads", "manages", "writes one", "reads one", "writes another"],
)
def test_a_token_allows_what_it_claims(
    double: QdrantDouble, open_client: OpenClient, key: str, sees: bool, reads: bool, writes: bool
) -> None:
    reader = open_client(double, key)
    assert [one.name for one in reader.get_collections().collections] == (["docs"] if sees else [])
    for allowed, call in ((reads, lambda: reader.count("docs")), (writes, lambda: reader.delete("docs", [3]))):
        if allowed:
            call()
            continue
        with pytest.raises(REFUSALS) as raised:
            call()
        assert refusal(raised) == refused(reader, 403, "PERMISSION_DENIED")


def test_what_the_double_pretends(client: QdrantClient, double: QdrantDouble) -> None:
    double.stale_counts(1)
    assert client.get_collection("docs").points_count == 1
    assert client.count("docs", exact=True).count == 4
    double.engine.not_ready_for = 60.0
    client.create_collection("late", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    with pytest.raises(REFUSALS) as raised:
        client.upsert("late", [models.PointStruct(id=1, vector=[1.0, 2.0])])
    assert refusal(raised) == refused(client, 503, "UNAVAILABLE")
    double.engine.clock.advance(60)
    client.upsert("late", [models.PointStruct(id=1, vector=[1.0, 2.0])])
    double.delay = 0.3
    started = time.monotonic()
    client.count("late")
    assert time.monotonic() - started >= 0.3


def test_the_door_and_its_bell(double: QdrantDouble) -> None:
    with httpx.Client(base_url=double.url, trust_env=False) as client:
        assert client.get("/").json()["version"] == "1.18.0"
        assert client.get("/healthz").status_code == 200
        missing = client.get("/collections/nope", headers={"api-key": KEY})
        assert missing.json()["status"] == {"error": "Not found: Collection `nope` doesn't exist!"}
        assert client.put("/collections/x", headers={"api-key": KEY}, json={"vectors": 7}).status_code == 400
