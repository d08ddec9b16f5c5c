"""The admin plane of the double of Pinecone, driven by the official SDK.

- a service account makes a key whose secret is told once, lists, changes and deletes keys
- a new key works beside the old one; a deleted one is refused at once; roles decide what a key may do
- a new key may be unknown for a while, and a deleted one known
- wrong credentials, projects, names, roles and quotas are refused as the service does; tokens end
- what is counted and fails on purpose, and what a restart leaves
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from pinecone import Admin, ApiError, ForbiddenError, NotFoundError, Pinecone, RetryConfig, UnauthorizedError
from tests.support.pinecone import PineconeDouble
from tests.support.pinecone.admin import CLIENT_ID, CLIENT_SECRET

pytestmark = pytest.mark.server
KEY = "pcsk_of_the_tests"
PROJECT = "p1a2b3c"


@pytest.fixture
def double() -> Iterator[PineconeDouble]:
    with PineconeDouble({KEY: PROJECT, "pcsk_other": "p9z9z9z"}) as double:
        yield double


def sign_in(double: PineconeDouble, secret: str = CLIENT_SECRET) -> Admin:
    return Admin(client_id=CLIENT_ID, client_secret=secret, host=double.url, oauth_url=f"{double.url}/oauth/token")


@pytest.fixture
def admin(double: PineconeDouble) -> Iterator[Admin]:
    with sign_in(double) as admin:
        yield admin


def names(double: PineconeDouble, key: str) -> list[str]:
    with Pinecone(api_key=key, host=double.url, retry_config=RetryConfig(max_retries=0)) as client:
        return [index.name for index in client.indexes.list()]


def test_a_key_is_replaced_without_a_gap(admin: Admin, double: PineconeDouble) -> None:
    (old,) = admin.api_keys.list(project_id=PROJECT)
    made = admin.api_keys.create(project_id=PROJECT, name="next")
    assert (names(double, KEY), names(double, made.value)) == ([], [])
    assert {key.name for key in admin.api_keys.list(project_id=PROJECT)} == {"default", "next"}
    assert made.value not in str(admin.api_keys.describe(api_key_id=made.key.id).to_dict())
    admin.api_keys.delete(api_key_id=old.id)
    assert names(double, made.value) == []
    with pytest.raises(UnauthorizedError):
        names(double, KEY)
    with pytest.raises(NotFoundError):
        admin.api_keys.describe(api_key_id=old.id)


def test_a_new_key_may_be_unknown_for_a_while(admin: Admin, double: PineconeDouble) -> None:
    double.admin.usable_after = 60.0
    made = admin.api_keys.create(project_id=PROJECT, name="next")
    with pytest.raises(UnauthorizedError):
        names(double, made.value)
    double.admin.clock.advance(60.0)
    assert names(double, made.value) == []


def test_roles_decide_what_a_key_may_do(admin: Admin, double: PineconeDouble) -> None:
    made = admin.api_keys.create(project_id=PROJECT, name="viewer", roles=["ControlPlaneViewer"])
    with Pinecone(api_key=made.value, host=double.url, retry_config=RetryConfig(max_retries=0)) as client:
        assert list(client.indexes.list()) == []
        with pytest.raises(ForbiddenError):
            client.indexes.create(name="docs", dimension=3)
        admin.api_keys.update(api_key_id=made.key.id, roles=["ControlPlaneEditor"])
        client.indexes.create(name="docs", dimension=3)
        with client.index(name="docs") as index, pytest.raises(ForbiddenError):
            index.describe_index_stats()


def test_projects_are_told_apart(admin: Admin) -> None:
    assert [project.id for project in admin.projects.list()] == [PROJECT, "p9z9z9z"]
    assert admin.projects.describe(project_id=PROJECT).organization_id
    with pytest.raises(NotFoundError):
        admin.api_keys.list(project_id="nobody")


def test_a_deleted_key_may_be_known_for_a_while(admin: Admin, double: PineconeDouble) -> None:
    double.admin.usable_until = 60.0
    made = admin.api_keys.create(project_id=PROJECT, name="next")
    admin.api_keys.delete(api_key_id=made.key.id)
    assert names(double, made.value) == []
    with pytest.raises(NotFoundError):
        admin.api_keys.delete(api_key_id=made.key.id)
    double.admin.clock.advance(60.0)
    with pytest.raises(UnauthorizedError):
        names(double, made.value)


def test_a_deletion_is_accepted_with_202(double: PineconeDouble) -> None:
    with raw(double) as api:
        made = api.post(f"/admin/projects/{PROJECT}/api-keys", json={"name": "next"})
        assert made.status_code == 201
        assert api.delete(f"/admin/api-keys/{made.json()['key']['id']}").status_code == 202
        del api.headers["X-Pinecone-Api-Version"]
        assert api.get("/admin/projects").status_code == 400


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "x" * 81}, {"name": "x", "roles": []}, {"name": "x", "roles": ["Owner"]}],
    ids=["none", "empty", "long", "no roles", "odd roles"],
)
def test_names_and_roles_have_bounds(double: PineconeDouble, body: dict[str, object]) -> None:
    with raw(double) as api:
        assert api.post(f"/admin/projects/{PROJECT}/api-keys", json=body).status_code == 400
        (key,) = api.get(f"/admin/projects/{PROJECT}/api-keys").json()["data"]
        if body:
            assert api.patch(f"/admin/api-keys/{key['id']}", json=body).status_code == 400
        assert api.post(f"/admin/projects/{PROJECT}/api-keys", json={"name": "x" * 80}).status_code == 201


def test_a_service_account_may_have_less_rights(double: PineconeDouble) -> None:
    for account, listed in ({"may_manage_keys": False}, 200), ({"may_look": False}, 403):
        client_id, secret = double.admin.add_account("less", **account)
        with raw(double, client_id, secret) as api:
            assert api.get(f"/admin/projects/{PROJECT}/api-keys").status_code == listed
            refused = api.post(f"/admin/projects/{PROJECT}/api-keys", json={"name": "next"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
            double.admin.remove_account(client_id)
            assert api.get(f"/admin/projects/{PROJECT}/api-keys").status_code == 401
    assert [key.name for key in double.admin.keys.values()] == ["default", "default"]


def test_a_project_has_a_quota_of_keys_and_lists_them_by_pages(double: PineconeDouble) -> None:
    double.admin.max_keys, double.admin.page_size = 3, 2
    keys = f"/admin/projects/{PROJECT}/api-keys"
    with raw(double) as api:
        made = [api.post(keys, json={"name": "next"}) for _ in range(3)]
        assert [answer.status_code for answer in made] == [201, 201, 403]
        assert made[2].json()["error"]["code"] == "QUOTA_EXCEEDED"
        first = api.get(keys).json()
        assert len(first["data"]) == 2
        second = api.get(keys, params={"paginationToken": first["pagination"]["next"]}).json()
        assert len(second["data"]) == 1
        assert "pagination" not in second


def test_a_token_ends(double: PineconeDouble) -> None:
    with raw(double) as api:
        assert api.get("/admin/projects").status_code == 200
        double.admin.clock.advance(double.admin.token_seconds)
        assert api.get("/admin/projects").status_code == 401
    with raw(double) as api:
        double.admin.forget_tokens()
        assert api.get("/admin/projects").status_code == 401


def test_what_is_counted_and_fails_on_purpose(double: PineconeDouble) -> None:
    keys = f"/admin/projects/{PROJECT}/api-keys"
    with raw(double) as api:
        double.operations.fail("keys.create", 2)
        assert [api.post(keys, json={"name": "next"}).status_code for _ in range(3)] == [503, 503, 201]
        double.operations.fail("keys.create", done=True)
        assert api.post(keys, json={"name": "lost"}).status_code == 503
        assert sorted(key["name"] for key in api.get(keys).json()["data"]) == ["default", "lost", "next"]
        double.operations.fail("oauth.token", status=429, retry_after=7)
        throttled = api.post("/oauth/token", json={})
        assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "7")
    counted = double.operations.counts
    assert (counted["keys.create"], counted["keys.list"], counted["oauth.token"]) == (4, 1, 2)
    assert double.requests == []
    names(double, KEY)
    (asked,) = double.requests
    assert asked.headers["api-key"] == KEY
    assert KEY not in repr(asked)


def test_keys_outlive_a_restart(admin: Admin, double: PineconeDouble) -> None:
    made = admin.api_keys.create(project_id=PROJECT, name="next")
    double.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(double.url, trust_env=False)
    double.start()
    assert names(double, made.value) == []


def raw(double: PineconeDouble, client_id: str = CLIENT_ID, secret: str = CLIENT_SECRET) -> httpx.Client:
    """A client that is signed in, without the SDK."""
    asked = {"grant_type": "client_credentials", "audience": "https://api.pinecone.io/"}
    asked |= {"client_id": client_id, "client_secret": secret}
    token = httpx.post(f"{double.url}/oauth/token", data=asked, trust_env=False).raise_for_status().json()
    assert token["expires_in"] == int(double.admin.token_seconds)
    headers = {"Authorization": f"Bearer {token['access_token']}", "X-Pinecone-Api-Version": "2026-07"}
    return httpx.Client(base_url=double.url, headers=headers, trust_env=False)


def test_a_wrong_service_account_is_refused(double: PineconeDouble) -> None:
    with pytest.raises(ApiError) as refused:
        sign_in(double, "not the secret")
    assert refused.value.status_code == 401
