"""What is Milvus' own about the rotation of its users.

- a server that takes any password is told, Milvus Lite among them; so are versions that are too old
- the privilege that an admin lacks is named
- a user of a lost attempt is made anew; one that has the drafted password already keeps it; roles are those of the spec
- names fit, also the longest
- passwords that are not taken yet, or still, are asked about as they are
- in place: by the password before or by a superuser, once; the admin itself and users that are not there are refused
- what a proxy refuses proves nothing, and a privilege that is missing does not make a password wrong
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from tests.rotation.cases import key_request, owner
from tests.support.milvus import RunningMilvus
from tests.support.milvus_accounts import Refused
from tests.support.milvus_rbac import ROOT, ROOT_PASSWORD, MilvusRbacDouble

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.rotation.base import Assignment, KeyMaterial, LiveKey
from vectorwright.rotation.milvus_in_place import MilvusUserInPlace
from vectorwright.rotation.milvus_in_place import open_issuer as open_in_place
from vectorwright.rotation.milvus_users import MilvusUsers
from vectorwright.rotation.milvus_users import open_issuer as open_users
from vectorwright.stores.registry import Connection, StoreCredentials

FIRST = "The-first-passw0rd"
PRIVILEGES = ("CreateOwnership", "DropOwnership", "SelectOwnership", "ManageOwnership")
Issuer = MilvusUsers | MilvusUserInPlace


ROOT_ADMIN = (ROOT, ROOT_PASSWORD)
ADMIN = ("admin", FIRST)


def assignment(url: str, admin: tuple[str | None, str | None] = ROOT_ADMIN, **identity: Any) -> Assignment:
    credentials = StoreCredentials(username=admin[0], password=admin[1])
    return Assignment(
        Connection("milvus", {"url": url}, credentials, timeout=10), {"user": "docs", **identity}, owner("search")
    )


@asynccontextmanager
async def users(url: str, admin: tuple[str, str] = ROOT_ADMIN, **identity: Any) -> AsyncIterator[MilvusUsers]:
    issuer = open_users(assignment(url, admin, **{"roles": ["docs"], **identity}))
    yield issuer
    await issuer.close()


@asynccontextmanager
async def in_place(url: str, admin: tuple[str, str] = ROOT_ADMIN, **identity: Any) -> AsyncIterator[MilvusUserInPlace]:
    issuer = open_in_place(assignment(url, admin, **identity))
    yield issuer
    await issuer.close()


async def told(issuer: Issuer) -> Terminal:
    """What a check refuses."""
    with pytest.raises(Terminal) as refused:
        await issuer.check()
    return refused.value


@pytest.mark.server
async def test_a_server_without_users_is_told(milvus_server: RunningMilvus) -> None:
    if milvus_server.token is not None:
        pytest.skip("the server that MILVUS_URI names has users")
    for opened in (users(milvus_server.url), in_place(milvus_server.url)):
        async with opened as issuer:
            error = await told(issuer)
            assert error.reason == "AuthorizationDisabled"
            assert "authorizationEnabled" in error.message


async def test_a_version_that_is_too_old_is_told(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.version = "2.3.22"
    async with users(milvus_rbac.url) as issuer:
        error = await told(issuer)
        assert error.reason == "UnsupportedVersion"
        assert "2.3.22" in error.message


@pytest.mark.parametrize("lacking", PRIVILEGES)
async def test_the_privilege_that_is_missing_is_named(milvus_rbac: MilvusRbacDouble, lacking: str) -> None:
    milvus_rbac.add_role("rotator", *(one for one in PRIVILEGES if one != lacking))
    milvus_rbac.add_user("admin", FIRST, "rotator")
    async with users(milvus_rbac.url, ADMIN) as issuer:
        error = await told(issuer)
        assert error.reason == "AdminRightMissing"
        assert f"the privilege {lacking}" in error.message
        milvus_rbac.add_role("rotator", *PRIVILEGES)
        await issuer.check()
    assert set(milvus_rbac.users()) == {"admin"}


async def test_in_place_the_privilege_that_is_missing_is_named(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.add_user("docs", FIRST)
    milvus_rbac.add_role("rotator", "SelectOwnership")
    milvus_rbac.add_user("admin", FIRST, "rotator")
    async with in_place(milvus_rbac.url, ADMIN) as issuer:
        error = await told(issuer)
        assert error.reason == "AdminRightMissing"
        assert "the privilege UpdateUser" in error.message
        milvus_rbac.add_role("rotator", "SelectOwnership", "UpdateUser")
        await issuer.check()
    assert milvus_rbac.accepts("docs", FIRST)


async def test_a_lost_user_is_made_anew_with_exactly_the_roles(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.add_role("other", "Insert")
    async with users(milvus_rbac.url) as issuer:
        name = issuer.name_of(1)
        milvus_rbac.add_user(name, FIRST, "other")
        made = await issuer.create(key_request(issuer, 1))
        assert milvus_rbac.users() == {name: ["docs"]}
        assert await issuer.accepts(made.material)
        assert not await issuer.accepts(KeyMaterial(username=name, password=FIRST))


async def test_a_user_with_the_drafted_password_keeps_it(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.add_role("other", "Insert")
    async with users(milvus_rbac.url, roles=["docs", "other"]) as issuer:
        request = key_request(issuer, 1)
        assert request.draft is not None
        # As an attempt leaves it that ended between the user and its roles; somebody gave it another one since.
        milvus_rbac.add_role("by_hand")
        milvus_rbac.add_user(request.name, request.draft.password or "", "docs", "by_hand", "public")
        await issuer.create(request)
        assert milvus_rbac.users() == {request.name: ["docs", "other", "public"]}
        assert milvus_rbac.operations.count("CreateCredential") == 0
        assert milvus_rbac.operations.count("DeleteCredential") == 0


@pytest.mark.parametrize("code", [65535, 1100])
async def test_a_user_that_appears_meanwhile_is_another_try(milvus_rbac: MilvusRbacDouble, code: int) -> None:
    def exists(request: Any, _: str) -> None:
        raise Refused(code, f"user already exists: {request.username}", "CreateCredentialFailure")

    milvus_rbac.answers = {**milvus_rbac.answers, "CreateCredential": exists}
    async with users(milvus_rbac.url) as issuer:
        with pytest.raises(Retryable) as refused:
            await issuer.create(key_request(issuer, 1))
        assert refused.value.after == 1


async def test_the_longest_name_fits(milvus_rbac: MilvusRbacDouble) -> None:
    longest = "a" * 20
    async with users(milvus_rbac.url, user=longest) as issuer:
        await issuer.create(key_request(issuer, 1))
        assert list(milvus_rbac.users()) == [issuer.name_of(1)]
        assert len(issuer.name_of(1)) <= 32
    with pytest.raises(Terminal) as refused:
        open_users(assignment(milvus_rbac.url, user=longest + "a", roles=["docs"]))
    assert refused.value.reason == "InvalidSpec"


async def test_users_of_a_former_prefix_are_known_and_can_be_revoked(milvus_rbac: MilvusRbacDouble) -> None:
    async with users(milvus_rbac.url) as before, users(milvus_rbac.url, user="Shop") as after:
        old = await before.create(key_request(before, 1))
        new = await after.create(key_request(after, 2, old.material))
        assert {key.id for key in await after.live()} == {old.id, new.id}
        await after.revoke(LiveKey(old.id, old.id))
        assert [key.id for key in await after.live()] == [new.id]
        milvus_rbac.add_user("docs_by_hand", FIRST)
        with pytest.raises(Conflict) as refused:
            await after.revoke(LiveKey("docs_by_hand", "docs_by_hand"))
        assert refused.value.reason == "NotOurs"
        assert milvus_rbac.accepts("docs_by_hand", FIRST)


async def test_proxies_that_lag_are_asked_as_they_are(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.usable_after = milvus_rbac.usable_until = 60.0
    async with users(milvus_rbac.url) as issuer:
        made = await issuer.create(key_request(issuer, 1))
        assert not await issuer.accepts(made.material)
        milvus_rbac.clock.advance(60.0)
        assert await issuer.accepts(made.material)
        await issuer.revoke(LiveKey(made.id, made.id))
        assert await issuer.live() == []
        assert await issuer.accepts(made.material)
        milvus_rbac.clock.advance(60.0)
        assert not await issuer.accepts(made.material)


async def test_in_place_the_password_before_is_enough(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.add_user("docs", FIRST, "docs")
    milvus_rbac.add_rotating_admin("admin", FIRST)
    current = KeyMaterial(username="docs", password=FIRST)
    async with in_place(milvus_rbac.url, ADMIN) as issuer:
        await issuer.check()
        request = key_request(issuer, 1, current)
        made = await issuer.create(request)
        assert await issuer.create(request) == made  # its answer was lost: the password is set, and not once more
        assert milvus_rbac.operations.count("UpdateCredential") == 1 + 1  # the check asks with an empty password
        assert (await issuer.accepts(current), await issuer.accepts(made.material)) == (False, True)
        assert milvus_rbac.users()["docs"] == ["docs"]


async def test_in_place_an_unknown_password_takes_a_superuser(milvus_rbac: MilvusRbacDouble) -> None:
    milvus_rbac.add_user("docs", FIRST)
    milvus_rbac.add_rotating_admin("admin", FIRST)
    async with in_place(milvus_rbac.url, ADMIN) as issuer:
        request = key_request(issuer, 1)
        for change in (lambda: issuer.create(request), lambda: issuer.revoke(LiveKey("docs", "docs"))):
            with pytest.raises(Terminal) as refused:
                await change()
            assert refused.value.reason == "OldPasswordRefused"
            assert "superUsers" in refused.value.message
        assert milvus_rbac.accepts("docs", FIRST)
        milvus_rbac.superusers.add("admin")
        made = await issuer.create(request)
        assert await issuer.accepts(made.material)
        await issuer.revoke(LiveKey("docs", "docs"))
        assert not await issuer.accepts(made.material)
        assert "docs" in milvus_rbac.users()


async def test_in_place_users_that_cannot_be_rotated_are_refused(milvus_rbac: MilvusRbacDouble) -> None:
    for user, reason in ((ROOT, "UserNotRotatable"), ("missing", "UserNotFound")):
        async with in_place(milvus_rbac.url, user=user) as issuer:
            assert (await told(issuer)).reason == reason
    async with in_place(milvus_rbac.url, user="missing") as issuer:
        await issuer.revoke(LiveKey("missing", "missing"))  # gone already
        with pytest.raises(Conflict):
            await issuer.revoke(LiveKey("other", "other"))


def test_what_a_spec_lacks_or_has_too_much_is_said() -> None:
    url = "http://127.0.0.1:1"
    for opener, roles in ((open_users, ["docs"]), (open_in_place, None)):
        for admin in ((None, None), ("admin", None), (None, FIRST)):
            with pytest.raises(Terminal) as refused:
                opener(assignment(url, admin, roles=roles))
            assert refused.value.reason == "InvalidCredentials"
    for opener, roles in ((open_users, None), (open_in_place, ["docs"])):
        with pytest.raises(Terminal) as refused:
            opener(assignment(url, roles=roles))
        assert refused.value.reason == "InvalidSpec"


async def test_an_admin_may_come_as_a_token(milvus_rbac: MilvusRbacDouble) -> None:
    credentials = StoreCredentials(token=f"{ROOT}:{ROOT_PASSWORD}")
    given = Assignment(Connection("milvus", {"url": milvus_rbac.url}, credentials), {"user": ROOT}, owner("search"))
    issuer = open_in_place(given)
    assert (await told(issuer)).reason == "UserNotRotatable"
    await issuer.close()


class _Refuses(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, code: grpc.StatusCode, said: str) -> None:
        self._code, self._said = code, said

    def service(self, _: Any) -> Any:
        def refuse(_: bytes, context: Any) -> bytes:
            context.abort(self._code, self._said)
            raise AssertionError("abort() raises")

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextmanager
def refusing(code: grpc.StatusCode, said: str) -> Iterator[str]:
    """The address of a server that refuses whatever it is asked."""
    with ThreadPoolExecutor(2, "refusing") as workers:
        server = grpc.server(workers, handlers=(_Refuses(code, said),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"http://127.0.0.1:{port}"
        server.stop(0).wait(10)


@pytest.mark.parametrize("opener", [open_users, open_in_place])
async def test_what_a_proxy_refuses_proves_nothing(opener: Callable[[Assignment], Issuer]) -> None:
    roles = ["docs"] if opener is open_users else None
    for code, status in ((grpc.StatusCode.UNAUTHENTICATED, 401), (grpc.StatusCode.PERMISSION_DENIED, 403)):
        with refusing(code, f"Received http2 header with status: {status}") as url:
            issuer = opener(assignment(url, roles=roles))
            with pytest.raises(Retryable) as failed:
                await issuer.accepts(KeyMaterial(username="docs", password=FIRST))
            assert failed.value.reason == "UnexpectedAnswer"
            with pytest.raises(Retryable):
                await issuer.create(key_request(issuer, 1))
            await issuer.close()


async def test_a_missing_privilege_does_not_make_a_password_wrong() -> None:
    said = "PrivilegeListDatabases: permission deny to docs in the `default` database"
    with refusing(grpc.StatusCode.PERMISSION_DENIED, said) as url:
        async with in_place(url) as issuer:
            assert await issuer.accepts(KeyMaterial(username="docs", password=FIRST))
