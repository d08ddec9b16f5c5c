"""The double of Qdrant Cloud.

- a key that is made is told once, opens its cluster and no other, and is refused when it was deleted or expired
- access rules decide what it may do, and have bounds, as have names
- wrong management keys, accounts, clusters, and keys without a right are refused as the gateway says it
- what is counted and fails on purpose, and what a restart leaves
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.support.qdrant_cloud import PERMISSIONS, QdrantCloudDouble

pytestmark = pytest.mark.server
NAME = "vw team-a_search 1"


class Api:
    """The Cloud API as one management key sees it."""

    def __init__(self, cloud: QdrantCloudDouble, key: str | None = None) -> None:
        self.cloud = cloud
        self.headers = {"Authorization": f"apikey {key or cloud.management_key}"}

    def __call__(self, method: str, key: str = "", **more: Any) -> httpx.Response:
        path = f"/api/cluster/auth/v2/accounts/{self.cloud.account_id}/database-api-keys{key and '/' + key}"
        return httpx.request(method, self.cloud.url + path, headers=self.headers, trust_env=False, **more)

    def create(self, name: str = NAME, **more: Any) -> httpx.Response:
        key = {"accountId": self.cloud.account_id, "clusterId": self.cloud.cluster_id, "name": name, **more}
        return self("POST", json={"databaseApiKey": key})

    def made(self, name: str = NAME, **more: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.create(name, **more).raise_for_status().json()["databaseApiKey"]
        return made

    def list(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self("GET").raise_for_status().json()["items"]
        return items

    def delete(self, key: str, cluster: str | None = None) -> httpx.Response:
        return self("DELETE", key, params={"clusterId": cluster or self.cloud.cluster_id})


@pytest.fixture
def api(qdrant_cloud: QdrantCloudDouble) -> Api:
    return Api(qdrant_cloud)


def opens(cloud: QdrantCloudDouble, key: str, cluster: str | None = None, method: str = "GET", path: str = "") -> int:
    """The status that a database key gets at a cluster."""
    url = cloud.clusters[cluster or cloud.cluster_id].url
    made = {"vectors": {"size": 2, "distance": "Dot"}} if method == "PUT" else None
    headers = {"api-key": key}
    return httpx.request(method, f"{url}/collections{path}", headers=headers, json=made, trust_env=False).status_code


def test_a_key_is_told_once_and_opens_its_cluster(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    other = qdrant_cloud.add_cluster()
    made = api.made()
    assert [opens(qdrant_cloud, made["key"]), opens(qdrant_cloud, made["key"], other)] == [200, 401]
    (listed,) = api.list()
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert made["key"].endswith(listed["postfix"])
    assert api("GET", params={"clusterId": other}).json() == {"items": []}


def test_a_key_is_replaced_without_a_gap(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    old, new = api.made("vw old"), api.made("vw new")
    assert [opens(qdrant_cloud, one["key"]) for one in (old, new)] == [200, 200]
    assert (api.delete(old["id"]).status_code, api.delete(old["id"]).status_code) == (200, 404)
    assert [opens(qdrant_cloud, one["key"]) for one in (old, new)] == [401, 200]
    assert qdrant_cloud.names() == ["vw new"]


def test_a_new_key_may_be_unknown_and_a_deleted_one_known_for_a_while(
    qdrant_cloud: QdrantCloudDouble, api: Api
) -> None:
    qdrant_cloud.usable_after = qdrant_cloud.usable_until = 60.0
    made = api.made()
    assert opens(qdrant_cloud, made["key"]) == 401
    qdrant_cloud.clock.advance(60.0)
    assert opens(qdrant_cloud, made["key"]) == 200
    api.delete(made["id"])
    assert opens(qdrant_cloud, made["key"]) == 200
    qdrant_cloud.clock.advance(60.0)
    assert opens(qdrant_cloud, made["key"]) == 401


def test_a_key_expires(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=60)
    made = api.made(expiresAt=ends.isoformat().replace("+00:00", "Z"))
    assert datetime.fromisoformat(made["expiresAt"]) == ends
    assert opens(qdrant_cloud, made["key"]) == 200
    qdrant_cloud.clock.advance(60.0)
    assert opens(qdrant_cloud, made["key"]) == 403
    assert api.create("vw soon", expiresAt="soon").status_code == 400


def everywhere(kind: str) -> dict[str, Any]:
    return {"globalAccess": {"accessType": f"GLOBAL_ACCESS_RULE_ACCESS_TYPE_{kind}"}}


def of_collection(name: str, kind: str) -> dict[str, Any]:
    kind = f"COLLECTION_ACCESS_RULE_ACCESS_TYPE_{kind}"
    return {"collectionAccess": {"collectionName": name, "accessType": kind}}


@pytest.mark.parametrize(
    ("rules", "creates", "reads"),
    [
        ([], 200, 200),
        ([everywhere("MANAGE")], 200, 200),
        ([everywhere("READ_ONLY")], 403, 200),
        ([of_collection("docs", "READ_WRITE")], 403, 200),
        ([of_collection("others", "READ_ONLY")], 403, 403),
    ],
    ids=["none", "manage", "read", "collection", "another"],
)
def test_rules_decide_what_a_key_may_do(
    qdrant_cloud: QdrantCloudDouble, api: Api, rules: list[Any], creates: int, reads: int
) -> None:
    assert opens(qdrant_cloud, api.made("vw manages")["key"], method="PUT", path="/docs") == 200
    key = api.made(accessRules=rules)["key"]
    assert opens(qdrant_cloud, key, method="PUT", path="/more") == creates
    assert opens(qdrant_cloud, key, path="/docs") == reads


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "abc"},
        {"name": "x" * 129},
        {"name": "vw/search"},
        {"clusterId": "mine"},
        {"accessRules": [of_collection(f"docs{at}", "READ_ONLY") for at in range(21)]},
        {"accessRules": [everywhere("MANAGE"), of_collection("docs", "READ_ONLY")]},
        {"accessRules": [everywhere("MANAGE"), everywhere("READ_ONLY")]},
        {"accessRules": [{}]},
        {"accessRules": [of_collection("doc", "READ_ONLY")]},
        {"accessRules": [of_collection("docs", "UNSPECIFIED")]},
    ],
    ids=["short", "long", "slash", "cluster", "many", "mixed", "two", "no scope", "collection", "kind"],
)
def test_what_is_asked_for_has_bounds(qdrant_cloud: QdrantCloudDouble, api: Api, wrong: dict[str, Any]) -> None:
    refused = api.create(**wrong)
    assert (refused.status_code, refused.json()["code"]) == (400, 3)
    assert qdrant_cloud.names() == []
    assert api.create("x" * 128).status_code == 200


@pytest.mark.parametrize("missing", ["read:api_keys", "write:api_keys", "delete:api_keys"])
def test_a_management_key_may_have_less_rights(qdrant_cloud: QdrantCloudDouble, api: Api, missing: str) -> None:
    made = api.made()
    rights = [one for one in PERMISSIONS if one != missing]
    less = Api(qdrant_cloud, qdrant_cloud.add_management_key(*rights))
    answers = {
        "read:api_keys": less("GET"),
        "write:api_keys": less.create("vw second"),
        "delete:api_keys": less.delete(made["id"]),
    }
    assert {right for right, answer in answers.items() if answer.status_code == 403} == {missing}
    assert answers[missing].json()["code"] == 7
    assert missing in answers[missing].json()["message"]


def test_a_wrong_management_key_or_account_is_refused(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    refused = Api(qdrant_cloud, "wrong")("GET")
    assert (refused.status_code, refused.json()["code"]) == (401, 16)
    revoked = qdrant_cloud.add_management_key(*PERMISSIONS)
    qdrant_cloud.remove_management_key(revoked)
    assert Api(qdrant_cloud, revoked)("GET").status_code == 401
    bearer = {"Authorization": f"Bearer {qdrant_cloud.management_key}"}
    path = "/api/cluster/auth/v2/accounts/{}/database-api-keys"
    own = qdrant_cloud.url + path.format(qdrant_cloud.account_id)
    assert httpx.get(own, headers=bearer, trust_env=False).status_code == 401
    foreign = qdrant_cloud.url + path.format("0a5c3c5e-7d4b-4c52-8b8e-2f4b8a3c1d11")
    assert httpx.get(foreign, headers=api.headers, trust_env=False).status_code == 403


def test_an_unknown_cluster_or_a_quota_is_said(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    unknown = api.create(clusterId="0a5c3c5e-7d4b-4c52-8b8e-2f4b8a3c1d11")
    assert (unknown.status_code, unknown.json()["code"]) == (404, 5)
    made = api.made()
    assert api.delete(made["id"], qdrant_cloud.add_cluster()).status_code == 404
    assert api("DELETE", made["id"]).status_code == 400
    qdrant_cloud.max_keys = 1
    assert api.create("vw more").status_code == 429
    qdrant_cloud.max_keys, qdrant_cloud.unique_names = 2, True
    taken = api.create(NAME)
    assert (taken.status_code, taken.json()["code"]) == (409, 6)


def test_what_else_is_told(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    account = qdrant_cloud.account_id
    with httpx.Client(base_url=qdrant_cloud.url, headers=api.headers, trust_env=False) as client:
        told = client.get(f"/api/iam/v1/accounts/{account}/effective-permissions").json()["permissions"]
        assert {one["value"] for one in told} == set(PERMISSIONS)
        clusters = f"/api/cluster/v1/accounts/{account}/clusters"
        assert client.get(f"{clusters}/{qdrant_cloud.cluster_id}").json()["cluster"]["id"] == qdrant_cloud.cluster_id
        assert client.get(f"{clusters}/0a5c3c5e-7d4b-4c52-8b8e-2f4b8a3c1d11").status_code == 404


def test_what_is_counted_and_fails_on_purpose(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    qdrant_cloud.operations.fail("keys.create", 2)
    assert [api.create().status_code for _ in range(3)] == [503, 503, 200]
    qdrant_cloud.operations.fail("keys.create", done=True)
    assert api.create("vw lost").status_code == 503
    assert qdrant_cloud.names() == [NAME, "vw lost"]
    qdrant_cloud.operations.fail("keys.list", status=429, retry_after=9)
    throttled = api("GET")
    assert (throttled.status_code, throttled.json()["code"], throttled.headers["Retry-After"]) == (429, 8, "9")
    assert qdrant_cloud.operations.counts == {"keys.create": 4, "keys.list": 1}


def test_keys_outlive_a_restart(qdrant_cloud: QdrantCloudDouble, api: Api) -> None:
    made = api.made()
    qdrant_cloud.stop()
    with pytest.raises(httpx.ConnectError):
        api("GET")
    assert opens(qdrant_cloud, made["key"]) == 200
    qdrant_cloud.start()
    qdrant_cloud.cluster.restart()
    assert [one["name"] for one in api.list()] == [NAME]
    assert opens(qdrant_cloud, made["key"]) == 200
