"""The server that makes users, which rotation is tested against.

- a user is made, used and deleted, and refused after that; a key that was rotated is refused, the new one is not
- a user that was deactivated is refused until it is activated
- roles decide what a user may do, also which users it may make
- what is counted, what fails on purpose, and what a restart leaves
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest
import weaviate
from tests.support.weaviate import DATA, WeaviateWithUsers
from weaviate.auth import Auth
from weaviate.exceptions import UnexpectedStatusCodeError

pytestmark = pytest.mark.server


@pytest.fixture
def served(weaviate_with_users: WeaviateWithUsers) -> WeaviateWithUsers:
    return weaviate_with_users


def connect(served: WeaviateWithUsers, key: str) -> weaviate.WeaviateClient:
    return weaviate.connect_to_local(
        served.host, served.port, served.grpc_port, auth_credentials=Auth.api_key(key), skip_init_checks=True
    )


def seconds_until(refused: Callable[[], bool]) -> float:
    """How long it takes until it is refused; fails after 5 s."""
    began = time.monotonic()
    while not refused():
        assert time.monotonic() - began < 5, "still accepted"
    return time.monotonic() - began


def test_a_user_is_made_used_deleted_and_refused(
    served: WeaviateWithUsers, record_property: Callable[[str, object], None]
) -> None:
    role = served.make_role("docs", collection="Docs*")
    with connect(served, served.admin_key) as admin:
        key = admin.users.db.create(user_id="docs-a")
        admin.users.db.assign_roles(user_id="docs-a", role_names=role)
        with connect(served, key) as user:
            docs = user.collections.create("Docs")
            docs.data.insert({"word": "a"}, vector=[1.0, 2.0])
            assert len(docs.query.near_vector([1.0, 2.0], limit=1).objects) == 1
            with pytest.raises(UnexpectedStatusCodeError) as foreign:
                user.collections.create("Other")
            assert foreign.value.status_code == 403
            assert admin.users.db.delete(user_id="docs-a")
            record_property("seconds_after_delete", seconds_until(lambda: served.status_of(key) == 401))
            with pytest.raises(UnexpectedStatusCodeError) as refused:
                user.collections.list_all()
            assert refused.value.status_code == 401
    assert served.users() == {}


def test_a_key_that_was_rotated_is_refused(
    served: WeaviateWithUsers, record_property: Callable[[str, object], None]
) -> None:
    old = served.make_user("docs-a")
    assert served.status_of(old) == 200
    with served.api() as api:
        new = api.post("/users/db/docs-a/rotate-key").raise_for_status().json()["apikey"]
        record_property("seconds_after_rotate", seconds_until(lambda: served.status_of(old) == 401))
        assert served.status_of(new) == 200
        assert api.post("/users/db/nobody/rotate-key").status_code == 404
        assert api.post("/users/db/docs-a", json={}).status_code == 409


def test_a_user_that_was_deactivated_is_refused_until_it_is_activated(served: WeaviateWithUsers) -> None:
    key = served.make_user("docs-a")
    with served.api() as api:
        assert api.post("/users/db/docs-a/deactivate", json={}).status_code == 200
        assert served.status_of(key) == 401
        assert api.post("/users/db/docs-a/deactivate", json={}).status_code == 409
        assert api.post("/users/db/docs-a/activate").status_code == 200
    assert served.status_of(key) == 200


def test_roles_decide_which_users_an_admin_may_make(served: WeaviateWithUsers) -> None:
    role = served.make_role("docs", collection="Docs", actions=DATA)
    rotating = served.make_user("rotating", served.make_role("rotates", actions=(), users="docs-*"), role)
    powerless = served.make_user("powerless", role)
    with served.api(rotating) as api:
        assert api.post("/users/db/docs-a", json={}).status_code == 201
        assert api.post("/users/db/stranger", json={}).status_code == 403
        assigned = api.post("/authz/users/docs-a/assign", json={"roles": [role], "userType": "db"})
        assert assigned.status_code == 200
        missing = api.post("/authz/users/docs-a/assign", json={"roles": ["nothing"], "userType": "db"})
        assert missing.status_code == 404
    with served.api(powerless) as api:
        assert api.post("/users/db/docs-b", json={}).status_code == 403
    assert served.users() == {"docs-a": ["docs"], "powerless": ["docs"], "rotating": ["docs", "rotates"]}


def test_what_is_counted_and_fails_on_purpose(served: WeaviateWithUsers) -> None:
    headers = {"Authorization": f"Bearer {served.admin_key}"}
    with httpx.Client(base_url=f"{served.url}/v1", headers=headers, trust_env=False) as api:
        served.operations.fail("users.create", 2)
        assert [api.post("/users/db/docs-a", json={}).status_code for _ in range(3)] == [503, 503, 201]
        served.operations.fail("users.delete", done=True)
        assert [api.delete("/users/db/docs-a").status_code for _ in range(2)] == [503, 404]
    assert served.operations.counts == {"users.create": 3, "users.delete": 2}
    assert served.users() == {}


def test_users_outlive_a_restart(served: WeaviateWithUsers) -> None:
    key = served.make_user("docs-a", served.make_role("docs"))
    served.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{served.url}/v1/meta", trust_env=False)
    served.start()
    assert served.status_of(key) == 200
    assert served.users() == {"docs-a": ["docs"]}
    assert httpx.get(f"{served.url}/v1/meta", trust_env=False).status_code == 401
