"""What is special to keys of Qdrant Cloud, on its double.

- a key has the access that the spec says, and the expiry that was asked for; it is proved though its collections do
  not exist, at the cluster, where a proxy's refusal proves nothing
- rights that are missing are named before anything is made, where the API tells them; what may not be asked is no need
- a full account, a name that is still taken, and too many requests are told apart
- listings are followed page by page, and hold the cluster's own keys only; a published key is never deleted
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.models import Distance, VectorParams
from tests.rotation.cases import key_request, owner
from tests.rotation.issuers.qdrant_cloud_keys import REAL, QdrantCloudDualKey
from tests.rotation.steps import failed
from tests.support.loopback_http import LoopbackHttp, Request, Response

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.rotation import qdrant_cloud_keys
from vectorwright.rotation.base import Assignment, KeyMaterial, LiveKey
from vectorwright.rotation.names import numbered
from vectorwright.rotation.qdrant_cloud_keys import QdrantCloudKeys, open_issuer
from vectorwright.stores.registry import Connection, StoreCredentials

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(REAL, reason="faults are tried on the double"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning"),
]
JSON = {"Content-Type": "application/json"}
KEYS = "/api/cluster/auth/v2/accounts/"


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Any:
    made = QdrantCloudDualKey(request)
    made.double.usable_after = made.double.usable_until = 0.0
    yield made
    made.close()


@pytest.fixture
async def issuer(case: QdrantCloudDualKey) -> AsyncIterator[QdrantCloudKeys]:
    opened = open_issuer(case.assignment())
    yield opened
    await opened.close()


class Scripted:
    """A Cloud API that answers what it is told, by (method, end of the path); an empty object to everything else."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Response] = {}
        self.server = LoopbackHttp(self._answer)

    def _answer(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        for (method, end), response in self.answers.items():
            if request.method == method and path.endswith(end):
                return response
        return Response(b"{}", 200, JSON)

    def told(self, method: str, end: str, status: int, body: Any) -> None:
        self.answers[method, end] = Response(orjson.dumps(body), status, JSON)

    def refuses(self, method: str, end: str, status: int, code: int, message: str) -> None:
        self.told(method, end, status, {"code": code, "message": message, "details": []})

    @property
    def bodies(self) -> list[Any]:
        return [orjson.loads(request.body) for request in self.server.requests if request.body]


@pytest.fixture
def scripted() -> Any:
    made = Scripted()
    yield made
    made.server.close()


@pytest.fixture
async def alone(scripted: Scripted, case: QdrantCloudDualKey) -> AsyncIterator[QdrantCloudKeys]:
    """An issuer whose Cloud API is the scripted one."""
    opened = open_issuer(case.assignment(apiUrl=scripted.server.origin))
    yield opened
    await opened.close()


# Access and expiry


@pytest.mark.parametrize(
    ("identity", "makes", "sees"),
    [
        ({}, True, {"docs", "other"}),
        ({"access": "m"}, True, {"docs", "other"}),
        ({"access": "r"}, False, {"docs", "other"}),
        ({"collections": [{"collection": "docs", "access": "rw"}]}, False, {"docs"}),
        ({"collections": [{"collection": "later", "access": "r"}]}, False, set()),
    ],
    ids=["default", "manage", "read", "collection", "collection-that-is-missing"],
)
async def test_a_key_has_the_access_of_the_spec(
    case: QdrantCloudDualKey, issuer: QdrantCloudKeys, identity: dict[str, Any], makes: bool, sees: set[str]
) -> None:
    url, size = case.double.cluster.url, VectorParams(size=2, distance=Distance.DOT)
    all_powerful = await issuer.create(key_request(issuer, 1))
    client = AsyncQdrantClient(url=url, api_key=all_powerful.material.token, check_compatibility=False)
    for name in ("docs", "other"):
        await client.create_collection(name, size)
    await client.close()
    some = open_issuer(case.assignment("some", **identity))
    made = await some.create(key_request(some, 1))
    assert await some.accepts(made.material) is True
    client = AsyncQdrantClient(url=url, api_key=made.material.token, check_compatibility=False)
    assert {one.name for one in (await client.get_collections()).collections} == sees
    if makes:
        await client.create_collection("made", size)
    else:
        with pytest.raises(UnexpectedResponse) as refused:
            await client.create_collection("made", size)
        assert refused.value.status_code == 403
    await client.close()
    await some.revoke(LiveKey(made.id, some.name_of(1), 1))
    assert await some.accepts(made.material) is False
    await some.close()


async def test_a_key_expires_when_it_was_asked_to(case: QdrantCloudDualKey) -> None:
    issuer = open_issuer(case.assignment(expires=True))
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=60)
    made = await issuer.create(replace(key_request(issuer, 1), not_after=ends))
    assert made.not_after == ends
    assert await issuer.accepts(made.material) is True
    case.double.clock.advance(60)
    assert await issuer.accepts(made.material) is False
    assert [key.id for key in await issuer.live()] == [made.id]  # it is listed, and can be deleted
    await issuer.revoke(LiveKey(made.id, issuer.name_of(1), 1))
    assert await issuer.live() == []
    await issuer.close()


async def test_what_is_sent(scripted: Scripted, case: QdrantCloudDualKey) -> None:
    two = [{"collection": "docs", "access": "r"}, {"collection": "notes", "access": "rw"}]
    issuer = open_issuer(case.assignment(apiUrl=scripted.server.origin, expires=True, collections=two))
    at = datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    told = {
        "id": "key-1",
        "key": "value-of-the-key",
        "postfix": "the-key",
        "expiresAt": "2026-07-01T12:00:00.123456789Z",
    }
    scripted.told("POST", "/database-api-keys", 200, {"databaseApiKey": told})
    made = await issuer.create(replace(key_request(issuer, 7), not_after=at))
    assert made.not_after == datetime(2026, 7, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    (body,) = scripted.bodies
    rule = "COLLECTION_ACCESS_RULE_ACCESS_TYPE_"
    assert body["databaseApiKey"] == {
        "accountId": case.account,
        "clusterId": case.cluster,
        "name": issuer.name_of(7),
        "expiresAt": "2026-07-01T12:00:00Z",
        "accessRules": [
            {"collectionAccess": {"collectionName": "docs", "accessType": f"{rule}READ_ONLY"}},
            {"collectionAccess": {"collectionName": "notes", "accessType": f"{rule}READ_WRITE"}},
        ],
    }
    scripted.told("GET", "/database-api-keys", 200, {"items": [{"id": "key-1", "name": issuer.name_of(7)}]})
    await issuer.revoke(LiveKey("key-1", issuer.name_of(7), 7))
    asked = [(request.method, request.path) for request in scripted.server.requests]
    path = f"{KEYS}{case.account}/database-api-keys"
    assert asked == [
        ("GET", f"{path}?clusterId={case.cluster}"),
        ("POST", path),
        ("GET", f"{path}?clusterId={case.cluster}"),
        ("DELETE", f"{path}/key-1?clusterId={case.cluster}"),
    ]
    keys = {request.headers["authorization"] for request in scripted.server.requests}
    assert keys == {f"apikey {case.management_key}"}
    await issuer.close()


async def test_a_proxy_before_the_cluster_proves_nothing(case: QdrantCloudDualKey) -> None:
    for status in (401, 403, 404, 502):
        proxy = LoopbackHttp(lambda _, status=status: Response(b"<html>", status))  # type: ignore[misc]
        assignment = case.assignment()
        settings = {"url": proxy.origin, "grpcPort": proxy.port}
        issuer = open_issuer(replace(assignment, connection=replace(assignment.connection, settings=settings)))
        assert isinstance(await failed(lambda: issuer.accepts(KeyMaterial(token="some-key"))), Retryable)  # noqa: B023
        await issuer.close()
        proxy.close()


# Rights


@pytest.mark.parametrize("lacking", qdrant_cloud_keys.RIGHTS)
async def test_each_right_that_is_missing_is_named(case: QdrantCloudDualKey, lacking: str) -> None:
    rights = {*qdrant_cloud_keys.RIGHTS, "read:roles"} - {lacking}
    issuer = open_issuer(case.assigned(case.double.add_management_key(*rights)))
    error = await failed(issuer.check)
    assert (type(error), error.reason) == (Terminal, "AdminRightMissing")
    assert f"lacks {lacking} in account {case.account}" in error.message
    assert case.double.operations.count("keys.create") == 0
    await issuer.close()


async def test_three_rights_are_enough(case: QdrantCloudDualKey) -> None:
    key = case.double.add_management_key(*qdrant_cloud_keys.RIGHTS)
    issuer = open_issuer(case.assigned(key))
    await issuer.check()
    made = await issuer.create(key_request(issuer, 1))
    await issuer.revoke(LiveKey(made.id, issuer.name_of(1), 1))
    case.double.remove_management_key(key)
    assert (await failed(issuer.check)).reason == "AccessDenied"
    await issuer.close()


async def test_another_account_is_none_of_ours(case: QdrantCloudDualKey) -> None:
    issuer = open_issuer(case.assignment(accountId="00000000-0000-4000-8000-000000000000"))
    assert (await failed(issuer.check)).reason == "AdminRightMissing"
    await issuer.close()


@pytest.mark.parametrize("path", ["/database-api-keys", "/effective-permissions", "/clusters/"], ids=lambda path: path)
@pytest.mark.parametrize("status", [200, 403, 404, 401], ids=str)
async def test_a_page_is_no_answer(
    scripted: Scripted, alone: QdrantCloudKeys, case: QdrantCloudDualKey, path: str, status: int
) -> None:
    end = path + case.cluster if path.endswith("/") else path
    scripted.answers["GET", end] = Response(b"<html>sign in</html>", status, {"Content-Type": "text/html"})
    error = await failed(alone.check)
    assert (type(error), error.reason) == (Retryable, "UnexpectedAnswer")


# Why no key is made


@pytest.mark.parametrize(
    ("status", "code", "message", "reason"),
    [
        (429, 8, "the account has its 20 database api keys", "KeyQuotaReached"),
        (429, 8, "quota exceeded", "KeyQuotaReached"),
        (400, 9, "maximum number of keys reached", "KeyQuotaReached"),
        (429, 8, "rate limit exceeded", "Throttled"),
        (429, 8, "too many requests with this key", "Throttled"),
        (400, 9, "the cluster is suspended", "InvalidRequest"),
        (400, 3, "validation error: expires_at must be in the future", "InvalidRequest"),
        (403, 7, "permission denied", "AdminRightMissing"),
        (404, 5, "cluster not found", "ClusterNotFound"),
        (503, 14, "try later", "Throttled"),
    ],
    ids=["keys", "quota", "maximum", "rate", "requests", "suspended", "clock", "right", "cluster", "down"],
)
async def test_why_no_key_is_made(
    scripted: Scripted, alone: QdrantCloudKeys, status: int, code: int, message: str, reason: str
) -> None:
    scripted.refuses("POST", "/database-api-keys", status, code, message)
    error = await failed(lambda: alone.create(key_request(alone, 1)))
    assert error.reason == reason
    assert reason == "Throttled" or message in error.message


async def test_a_full_account(case: QdrantCloudDualKey, issuer: QdrantCloudKeys) -> None:
    await issuer.create(key_request(issuer, 1))
    case.double.max_keys = 1
    error = await failed(lambda: issuer.create(key_request(issuer, 2)))
    assert (type(error), error.reason) == (Terminal, "KeyQuotaReached")
    assert (await issuer.create(key_request(issuer, 1))).id  # what is in the way goes first


@pytest.mark.parametrize(("status", "code"), [(409, 6), (429, 8)], ids=["name", "quota"])
async def test_a_deletion_that_takes_a_while_is_waited_for(
    scripted: Scripted, alone: QdrantCloudKeys, status: int, code: int
) -> None:
    scripted.told("GET", "/database-api-keys", 200, {"items": [{"id": "lost", "name": alone.name_of(1)}]})
    scripted.refuses("POST", "/database-api-keys", status, code, "there is such a key")
    error = await failed(lambda: alone.create(key_request(alone, 1)))
    assert isinstance(error, Retryable)
    assert (error.reason, error.after) == ("InProgress", qdrant_cloud_keys.SETTLES_AFTER)
    assert [request.method for request in scripted.server.requests] == ["GET", "DELETE", "POST"]


async def test_names_need_not_repeat(case: QdrantCloudDualKey, issuer: QdrantCloudKeys) -> None:
    case.double.unique_names = True
    lost = await issuer.create(key_request(issuer, 1))
    made = await issuer.create(key_request(issuer, 1))
    assert [key.id for key in await issuer.live()] == [made.id]
    assert await issuer.accepts(lost.material) is False


async def test_the_published_key_is_never_deleted(case: QdrantCloudDualKey, issuer: QdrantCloudKeys) -> None:
    current = await issuer.create(key_request(issuer, 1))
    with pytest.raises(Conflict, match="is the one that is published"):
        await issuer.create(key_request(issuer, 1, current.material))
    assert await issuer.accepts(current.material) is True
    assert [key.id for key in await issuer.live()] == [current.id]


# Listings


async def test_listings_are_followed_to_their_end(case: QdrantCloudDualKey, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, endless = owner("search"), False
    names = ["somebody's", *(numbered(mark, revision) for revision in range(1, 6))]

    def answer(request: Request) -> Response:
        start = int(request.path.partition("&pageToken=")[2] or 0)
        listed = [{"id": f"key-{name}", "name": name, "clusterId": case.cluster} for name in names[start : start + 2]]
        listed.append({"id": "elsewhere", "name": numbered(mark, 9), "clusterId": case.account})
        following = {"nextPageToken": str(start + 2)} if endless or start + 2 < len(names) else {}
        return Response(orjson.dumps({"items": listed, **following}), 200, JSON)

    server = LoopbackHttp(answer)
    issuer = open_issuer(case.assignment(apiUrl=server.origin))
    assert [key.revision for key in await issuer.live()] == [1, 2, 3, 4, 5]
    endless = True
    monkeypatch.setattr(qdrant_cloud_keys, "MAX_PAGES", 9)
    assert (await failed(issuer.live)).reason == "UnexpectedAnswer"
    await issuer.close()
    server.close()


async def test_a_listing_without_keys_may_say_nothing(alone: QdrantCloudKeys) -> None:
    assert await alone.live() == []


async def test_keys_of_other_clusters_are_not_seen(case: QdrantCloudDualKey, issuer: QdrantCloudKeys) -> None:
    other = open_issuer(case.assignment(clusterId=case.double.add_cluster()))
    made = await other.create(key_request(other, 1))
    assert await issuer.live() == []
    assert [key.id for key in await other.live()] == [made.id]
    await other.close()


def test_a_management_key_is_needed() -> None:
    connection = Connection("qdrant", {"url": "https://x.cloud.qdrant.io:6333"}, StoreCredentials(username="somebody"))
    identity = {"accountId": "a", "clusterId": "c"}
    with pytest.raises(Terminal) as refused:
        open_issuer(Assignment(connection, identity, owner("search")))
    assert refused.value.reason == "MissingCredentials"
