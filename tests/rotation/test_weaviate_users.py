"""What is Weaviate's own about the rotation of its users.

- a server that makes no users, has no roles, or lets everybody in, is told with the setting that changes it
- the right that an admin lacks is named; the admin need not read roles
- a user of a lost attempt, whatever became of it, is made anew: active, with the roles of the spec and no other
- the published key is recognised by asking whose it is
- keys of a former prefix are still known, and can be revoked
- in place: the user keeps its roles; the admin itself, users of the configuration and inactive ones are refused
- an answer that is not Weaviate's proves nothing
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from deploy.devcluster.gobuild import ensure_built
from deploy.devcluster.processes import free_port
from deploy.servers.go_programs import weaviate_program
from tests.rotation.cases import key_request, owner
from tests.support.weaviate import API_KEY, API_KEY_USER, WeaviateServer, WeaviateWithUsers

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.rotation.base import Assignment, KeyMaterial, LiveKey
from vectorwright.rotation.weaviate_in_place import WeaviateUserInPlace
from vectorwright.rotation.weaviate_in_place import open_issuer as open_in_place
from vectorwright.rotation.weaviate_users import WeaviateUsers
from vectorwright.rotation.weaviate_users import open_issuer as open_users
from vectorwright.stores.registry import Connection, StoreCredentials

RIGHTS = ("create_users", "read_users", "delete_users", "assign_and_revoke_users")


def assignment(url: str, key: str | None, name: str = "search", **identity: Any) -> Assignment:
    connection = Connection("weaviate", {"url": url}, StoreCredentials(token=key), timeout=10)
    return Assignment(connection, {"user": "docs", **identity}, owner(name))


@asynccontextmanager
async def users(url: str, key: str = API_KEY, **identity: Any) -> AsyncIterator[WeaviateUsers]:
    issuer = open_users(assignment(url, key, **identity))
    yield issuer
    await issuer.close()


@asynccontextmanager
async def in_place(url: str, key: str = API_KEY, **identity: Any) -> AsyncIterator[WeaviateUserInPlace]:
    issuer = open_in_place(assignment(url, key, **identity))
    yield issuer
    await issuer.close()


async def told(issuer: WeaviateUsers | WeaviateUserInPlace) -> Terminal:
    """What a check refuses."""
    with pytest.raises(Terminal) as refused:
        await issuer.check()
    assert API_KEY not in refused.value.message
    return refused.value


class OtherServer(WeaviateServer):
    """A server with other settings; None leaves one out."""

    settings: dict[str, str | None]

    def _environment(self) -> dict[str, str]:
        changed = {**super()._environment(), **self.settings}
        return {name: value for name, value in changed.items() if value is not None}


WITHOUT_RBAC = {"AUTHORIZATION_RBAC_ENABLED": "false", "AUTHORIZATION_RBAC_ROOT_USERS": None}


@pytest.fixture
def start_other() -> Iterator[Callable[..., WeaviateServer]]:
    """``start_other(**settings)`` starts a server with other settings, stopped after the test."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-weaviate-"))
    started: list[WeaviateServer] = []

    def start(**settings: str | None) -> WeaviateServer:
        program = ensure_built(weaviate_program(), lambda _: None)
        server = OtherServer(program, base / "data", free_port(), api_key=API_KEY, makes_users=True, remove=base)
        server.settings = settings
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
    shutil.rmtree(base)


@pytest.mark.server
async def test_a_server_that_makes_no_users_is_told(start_other: Callable[..., WeaviateServer]) -> None:
    url = start_other(AUTHENTICATION_DB_USERS_ENABLED="false").url
    for opened in (users(url, roles=["viewer"]), in_place(url)):
        async with opened as issuer:
            error = await told(issuer)
            assert error.reason == "DynamicUsersDisabled"
            assert "AUTHENTICATION_DB_USERS_ENABLED=true" in error.message
            with pytest.raises(Terminal) as refused:
                await issuer.create(key_request(issuer, 1))
            assert refused.value.reason == "DynamicUsersDisabled"


@pytest.mark.server
async def test_a_server_without_roles_takes_users_without_roles(start_other: Callable[..., WeaviateServer]) -> None:
    url = start_other(**WITHOUT_RBAC).url
    async with users(url, roles=["viewer"]) as issuer:
        error = await told(issuer)
        assert error.reason == "RolesUnsupported"
        assert "AUTHORIZATION_RBAC_ENABLED=true" in error.message
    async with users(url) as issuer:
        await issuer.check()
        first = await issuer.create(key_request(issuer, 1))
        second = await issuer.create(key_request(issuer, 2, first.material))
        await issuer.revoke(LiveKey(first.id, first.id))
        assert [await issuer.accepts(key.material) for key in (first, second)] == [False, True]
        assert [key.id for key in await issuer.live()] == [second.id]


@pytest.mark.server
async def test_a_server_that_lets_everybody_in_is_told(start_other: Callable[..., WeaviateServer]) -> None:
    url = start_other(AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED="true", **WITHOUT_RBAC).url
    for opened in (users(url), in_place(url)):
        async with opened as issuer:
            error = await told(issuer)
            assert error.reason == "AuthorizationDisabled"
            assert "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=false" in error.message


@pytest.mark.server
@pytest.mark.parametrize("lacking", RIGHTS)
async def test_the_right_that_is_missing_is_named(weaviate_with_users: WeaviateWithUsers, lacking: str) -> None:
    served = weaviate_with_users
    rights = [right for right in RIGHTS if right != lacking]
    # On users of another name it does not count.
    permissions = [{"action": right, "users": {"users": "docs-*"}} for right in rights]
    permissions.append({"action": lacking, "users": {"users": "other-*"}})
    with served.api() as api:
        api.post("/authz/roles", json={"name": "rotator", "permissions": permissions}).raise_for_status()
    async with users(served.url, served.make_user("admin", "rotator"), roles=["viewer"]) as issuer:
        error = await told(issuer)
    assert error.reason == "AdminRightMissing"
    assert lacking in error.message
    assert set(served.users()) == {"admin"}


@pytest.mark.server
async def test_an_admin_who_may_read_roles_is_told_which_is_missing(weaviate_with_users: WeaviateWithUsers) -> None:
    served = weaviate_with_users
    async with users(served.url, roles=["viewer", "no-such-role"]) as issuer:
        error = await told(issuer)
        assert error.reason == "RoleNotFound"
        assert "no-such-role" in error.message
        assert "viewer" not in error.message
    assert served.operations.count("users.assign") == 0
    for roles, words in (([], "is missing"), (["viewer", "root"], "root")):
        async with users(served.url, roles=roles) as issuer:
            error = await told(issuer)
            assert error.reason == "InvalidSpec"
            assert words in error.message


@pytest.mark.server
async def test_a_lost_user_is_made_anew_with_exactly_the_roles(weaviate_with_users: WeaviateWithUsers) -> None:
    served = weaviate_with_users
    wanted, other = served.make_role("writer"), served.make_role("other")
    async with users(served.url, roles=[wanted]) as issuer:
        name = issuer.name_of(1)
        lost = served.make_user(name, other)
        with served.api() as api:
            api.post(f"/users/db/{name}/deactivate", json={}).raise_for_status()
        made = await issuer.create(key_request(issuer, 1))
        assert served.users() == {name: [wanted]}
        assert await issuer.accepts(made.material)
        assert not await issuer.accepts(KeyMaterial(token=lost))
        # It is gone, and the answer that said so is lost.
        served.operations.fail("users.delete", 1, status=503, done=True)
        with pytest.raises(Retryable):
            await issuer.create(key_request(issuer, 1))
        again = await issuer.create(key_request(issuer, 1))
        assert served.users() == {name: [wanted]}
        assert await issuer.accepts(again.material)


@pytest.mark.server
async def test_the_published_key_is_recognised_by_asking_whose_it_is(weaviate_with_users: WeaviateWithUsers) -> None:
    served = weaviate_with_users
    async with users(served.url, roles=["viewer"]) as issuer:
        first = await issuer.create(key_request(issuer, 1))
        published = KeyMaterial(token=first.material.token)  # of a Secret without the user's name
        with pytest.raises(Conflict) as refused:
            await issuer.create(key_request(issuer, 3, published))
        assert refused.value.reason == "KeyInUse"
        assert await issuer.accepts(first.material)
        # One that nobody has any more does not stand in the way.
        await issuer.create(key_request(issuer, 1, KeyMaterial(token="of-nobody")))
        assert not await issuer.accepts(first.material)


@pytest.mark.server
async def test_users_of_a_former_prefix_are_known_and_can_be_revoked(weaviate_with_users: WeaviateWithUsers) -> None:
    served = weaviate_with_users
    async with users(served.url, roles=["viewer"]) as before, users(served.url, user="Shop", roles=["viewer"]) as after:
        old = await before.create(key_request(before, 1))
        new = await after.create(key_request(after, 2, old.material))
        assert {key.id for key in await after.live()} == {old.id, new.id}
        await after.revoke(LiveKey(old.id, old.id))
        assert [key.id for key in await after.live()] == [new.id]
        stranger = served.make_user("docs-by-hand")
        with pytest.raises(Conflict) as refused:
            await after.revoke(LiveKey("docs-by-hand", "docs-by-hand"))
        assert refused.value.reason == "NotOurs"
        assert served.status_of(stranger) == 200


@pytest.mark.server
async def test_keys_are_not_taken_for_gone_by_an_admin_who_may_no_longer_read(
    weaviate_with_users: WeaviateWithUsers,
) -> None:
    served = weaviate_with_users
    served.make_role("rotator", actions=(), users="docs-*")
    key = served.make_user("admin", "rotator")
    async with users(served.url, key, roles=["viewer"]) as issuer:
        made = await issuer.create(key_request(issuer, 1))
        assert [one.id for one in await issuer.live()] == [made.id]
        with served.api() as api:
            api.post("/authz/users/admin/revoke", json={"roles": ["rotator"], "userType": "db"}).raise_for_status()
        with pytest.raises(Terminal) as refused:
            await issuer.live()
        assert refused.value.reason == "AdminRightMissing"
        assert "read_users" in refused.value.message


@pytest.mark.server
async def test_in_place_only_the_key_changes(weaviate_with_users: WeaviateWithUsers) -> None:
    served = weaviate_with_users
    old = served.make_user("docs", "viewer")
    async with in_place(served.url) as issuer:
        await issuer.check()
        made = await issuer.create(key_request(issuer, 1))
        assert (served.status_of(old), served.status_of(made.material.token or "")) == (401, 200)
        assert served.users() == {"docs": ["viewer"]}


@pytest.mark.server
async def test_in_place_users_that_cannot_be_rotated_are_refused(weaviate_with_users: WeaviateWithUsers) -> None:
    served = weaviate_with_users
    served.make_role("rotator", actions=(), users="docs*")
    admin = served.make_user("docs-admin", "rotator")
    served.make_user("docs-asleep")
    with served.api() as api:
        api.post("/users/db/docs-asleep/deactivate", json={}).raise_for_status()
    for user, key, words in (
        ("docs-admin", admin, "is the admin"),
        ("docs-asleep", admin, "not active"),
        (API_KEY_USER, API_KEY, "is the admin"),
    ):
        async with in_place(served.url, key, user=user) as issuer:
            error = await told(issuer)
            assert error.reason == "UserNotRotatable"
            assert words in error.message
    async with in_place(served.url, admin, user="docs-missing") as issuer:
        assert (await told(issuer)).reason == "UserNotFound"
        await issuer.revoke(LiveKey("docs-missing", "docs-missing"))  # gone already


@pytest.mark.server
async def test_in_place_users_of_the_configuration_are_refused(start_other: Callable[..., WeaviateServer]) -> None:
    server = start_other(
        AUTHENTICATION_APIKEY_ALLOWED_KEYS=f"{API_KEY},key-of-a-static-user",
        AUTHENTICATION_APIKEY_USERS=f"{API_KEY_USER},static",
    )
    async with in_place(server.url, user="static") as issuer:
        assert (await told(issuer)).reason == "UserNotRotatable"
        with pytest.raises(Terminal) as refused:
            await issuer.create(key_request(issuer, 1))
        assert refused.value.reason == "UserNotRotatable"
        assert await issuer.accepts(KeyMaterial(token="key-of-a-static-user"))


def test_what_a_spec_lacks_or_has_too_much_is_said() -> None:
    for opener in (open_users, open_in_place):
        with pytest.raises(Terminal) as refused:
            opener(assignment("http://127.0.0.1:1", None))
        assert refused.value.reason == "InvalidCredentials"
    with pytest.raises(Terminal) as refused:
        open_in_place(assignment("http://127.0.0.1:1", "key", roles=["viewer"]))
    assert refused.value.reason == "InvalidSpec"


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b"<html>welcome</html>"),
        (200, b'{"hello": "world"}'),
        (401, b"<html>please sign in</html>"),
        (401, b""),
        (403, b"<html>blocked</html>"),
        (403, b'{"error": [{"message": "rbac: authorization, forbidden action"}]}'),
        (404, b"<html>not here</html>"),
        (404, b""),
        (502, b"<html>bad gateway</html>"),
    ],
)
async def test_an_answer_that_is_not_weaviates_proves_nothing(status: int, content: bytes) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=content))
    issuer = WeaviateUsers(assignment("http://127.0.0.1:1", "key"), transport)
    for call in (issuer.accepts, lambda key: issuer.create(key_request(issuer, 1, key))):
        with pytest.raises(Retryable):
            await call(KeyMaterial(token="some-key"))
    if status not in {401, 403}:  # those are for the admin to set right
        for ask in (issuer.live, issuer.check, lambda: issuer.create(key_request(issuer, 1))):
            with pytest.raises(Retryable):
                await ask()
    await issuer.close()


async def test_versions_that_make_no_users_and_servers_that_take_any_key_are_told() -> None:
    version, any_key = "1.29.4", False

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/meta"):
            return httpx.Response(200, json={"version": version})
        if request.headers.get("authorization") == "Bearer key" or (
            any_key and request.url.path.endswith("/own-info") and "authorization" in request.headers
        ):
            return httpx.Response(200, json={"username": "admin", "roles": None})
        return httpx.Response(401, json={"code": 401, "message": "unauthorized"})

    issuer = WeaviateUsers(assignment("http://127.0.0.1:1", "key"), httpx.MockTransport(answer))
    error = await told(issuer)
    assert error.reason == "UnsupportedVersion"
    assert "1.30" in error.message
    version, any_key = "1.30.0", True
    assert (await told(issuer)).reason == "AuthorizationDisabled"
    await issuer.close()
