"""The double of Milvus with users and roles, driven by the vendor's client.

- a user is made, given a role, used, dropped, and refused after that; so is a password that was changed
- roles decide what a user may do; without any it may tell its own name and change its own password
- names, passwords and roles are refused with the codes of Milvus
- with a server behind it, the rest of the API works for those who may
- what is counted and fails on purpose, and what a restart leaves
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from functools import partial

import grpc
import pytest
from pymilvus import MilvusClient, MilvusException
from tests.support.milvus import RunningMilvus
from tests.support.milvus_rbac import ROOT, ROOT_PASSWORD, MilvusRbacDouble, StartMilvusRbac

pytestmark = pytest.mark.server
GOOD = "Of-the-1st-user"
Connect = Callable[..., MilvusClient]


@pytest.fixture
def connect(milvus_rbac: MilvusRbacDouble) -> Iterator[Connect]:
    """``connect(user=root, password=…, double=…)``: the vendor's client, closed after the test."""
    opened: list[MilvusClient] = []

    def open_one(
        user: str = ROOT, password: str = ROOT_PASSWORD, double: MilvusRbacDouble | None = None
    ) -> MilvusClient:
        opened.append(MilvusClient((double or milvus_rbac).url, user=user, password=password, timeout=5))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


def refusal(call: Callable[[], object]) -> tuple[int | str, str]:
    """(code, message) of what Milvus answers, or (status, details) of gRPC."""
    with pytest.raises((MilvusException, grpc.RpcError)) as refused:
        call()
    error = refused.value
    if isinstance(error, MilvusException):
        return error.code, error.message
    return str(error.code().name), str(error.details())


def nobody(call: Callable[[], object]) -> bool:
    """Whether it is refused because of its password."""
    return refusal(call) == ("UNAUTHENTICATED", "auth check failure, please check username and password are correct")


def test_a_user_is_made_used_dropped_and_refused(milvus_rbac: MilvusRbacDouble, connect: Connect) -> None:
    admin = connect()
    admin.create_user("docs_a", GOOD)
    admin.grant_role("docs_a", "docs")
    assert admin.describe_user("docs_a")["roles"] == ("docs",)
    assert sorted(admin.list_users()) == ["docs_a", "root"]
    user = connect("docs_a", GOOD)
    assert user.list_collections() == []
    admin.drop_user("docs_a")
    assert nobody(user.list_collections)
    assert milvus_rbac.users() == {}
    admin.drop_user("docs_a")  # again is no error
    assert admin.describe_user("docs_a") == {}


def test_a_password_is_changed_by_who_knows_the_old_one(connect: Connect) -> None:
    admin = connect()
    admin.create_user("docs_a", GOOD)
    assert refusal(lambda: admin.update_password("docs_a", "wrong-one", "Another-1"))[0] == 1400
    assert refusal(lambda: admin.update_password("nobody", "wrong-one", "Another-1"))[0] == 1400
    connect("docs_a", GOOD).update_password("docs_a", GOOD, "Another-1")
    assert connect("docs_a", "Another-1").list_collections() == []
    assert nobody(connect("docs_a", GOOD).list_collections)  # over the connection that it had


def test_passwords_may_be_known_late_and_forgotten_late(milvus_rbac: MilvusRbacDouble, connect: Connect) -> None:
    admin = connect()
    milvus_rbac.usable_after = milvus_rbac.usable_until = 60.0
    admin.create_user("docs_a", GOOD)
    assert not milvus_rbac.accepts("docs_a", GOOD)
    milvus_rbac.clock.advance(60.0)
    assert connect("docs_a", GOOD).list_collections() == []
    admin.drop_user("docs_a")
    assert connect("docs_a", GOOD).list_collections() == []
    milvus_rbac.clock.advance(60.0)
    assert not milvus_rbac.accepts("docs_a", GOOD)


def test_roles_decide_what_a_user_may_do(milvus_rbac: MilvusRbacDouble, connect: Connect) -> None:
    milvus_rbac.add_rotating_admin("rotating", GOOD)
    milvus_rbac.add_user("powerless", GOOD)
    rotating, powerless = connect("rotating", GOOD), connect("powerless", GOOD)
    rotating.create_user("docs_a", GOOD)
    rotating.grant_role("docs_a", "docs")
    rotating.drop_user("docs_a")
    assert powerless.describe_user("powerless")["user_name"] == "powerless"
    for call in (
        lambda: powerless.create_user("docs_b", GOOD),
        lambda: powerless.grant_role("powerless", "admin"),
        lambda: powerless.drop_user("rotating"),
        lambda: powerless.describe_user("rotating"),
        powerless.list_users,
        powerless.list_roles,
    ):
        status, said = refusal(call)
        assert status == "PERMISSION_DENIED"
        assert said.endswith("permission deny to powerless in the `default` database")
    powerless.update_password("powerless", GOOD, "Another-1")
    assert milvus_rbac.users() == {"rotating": ["rotating_role"], "powerless": []}


def test_names_and_passwords_have_bounds(milvus_rbac: MilvusRbacDouble, connect: Connect) -> None:
    admin = connect()
    for name in ("0", "n@me", "h h", "docs-a", "a" * 33):
        assert refusal(partial(admin.create_user, name, GOOD))[0] == 1100
    for password in ("5 lon", "x" * 73):
        code, said = refusal(partial(admin.create_user, "docs_a", password))
        assert code == 1100
        assert "invalid password" in said
        assert password not in said
    admin.create_user("a" * 32, "x" * 72)
    assert refusal(lambda: admin.create_user("a" * 32, GOOD)) == (65535, f"user already exists: {'a' * 32}")
    assert refusal(lambda: admin.drop_user("root"))[0] == 1401
    assert list(milvus_rbac.users()) == ["a" * 32]


def test_roles_must_exist(connect: Connect) -> None:
    admin = connect()
    admin.create_user("docs_a", GOOD)
    code, said = refusal(lambda: admin.grant_role("docs_a", "nothing"))
    assert (code, "not found the role" in said) == (65535, True)
    code, said = refusal(lambda: admin.grant_role("nobody", "docs"))
    assert (code, "not found the user" in said) == (65535, True)
    admin.create_role("more")
    assert refusal(lambda: admin.create_role("more")) == (65535, 'role [name:"more"] already exists')
    assert sorted(admin.list_roles()) == ["admin", "docs", "more", "public"]
    for _ in range(2):  # a role that is held already is granted again
        admin.grant_role("docs_a", "more")
    admin.drop_role("more")
    assert admin.describe_user("docs_a")["roles"] == ()
    assert refusal(lambda: admin.drop_role("admin"))[0] == 1401


@pytest.mark.parametrize(
    ("authorization", "says"),
    [
        (None, "missing authorization in header"),
        ("no base 64", "invalid token format"),
        (base64.b64encode(b"of nobody").decode(), "please check api key is correct"),
        (base64.b64encode(b"root:wrong").decode(), "please check username and password are correct"),
        (base64.b64encode(b"nobody:Milvus").decode(), "please check username and password are correct"),
    ],
    ids=["none", "garbage", "key", "password", "user"],
)
def test_only_those_who_are_known_get_in(milvus_rbac: MilvusRbacDouble, authorization: str | None, says: str) -> None:
    metadata = [("authorization", authorization)] if authorization else []
    with grpc.insecure_channel(f"{milvus_rbac.host}:{milvus_rbac.port}") as channel:
        call = channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")
        status, said = refusal(lambda: call(b"", metadata=metadata, timeout=5))
    assert (status, said.endswith(says)) == ("UNAUTHENTICATED", True)


def test_the_rest_is_answered_by_a_server_behind_it(
    milvus_server: RunningMilvus, start_milvus_rbac: StartMilvusRbac, connect: Connect
) -> None:
    double = start_milvus_rbac(upstream=f"{milvus_server.host}:{milvus_server.port}")
    admin = connect(double=double)
    name = f"docs_{time.time_ns()}"
    admin.create_collection(name, dimension=2)
    try:
        double.add_user("reads", GOOD, double.add_role("reads", "Query", "DescribeCollection"))
        reader = connect("reads", GOOD, double)
        assert name in reader.list_collections()
        assert reader.query(name, filter="id >= 0") == []
        rows = [{"id": 1, "vector": [1.0, 2.0]}]
        assert refusal(lambda: reader.insert(name, rows))[0] == "PERMISSION_DENIED"
        admin.insert(name, rows)
        double.stop()
        double.start()
        assert [row["id"] for row in reader.query(name, filter="id >= 0")] == [1]
    finally:
        admin.drop_collection(name)


def test_what_is_counted_and_fails_on_purpose(milvus_rbac: MilvusRbacDouble, connect: Connect) -> None:
    admin = connect()
    milvus_rbac.operations.forget()
    milvus_rbac.operations.fail("CreateCredential", status=403)
    assert refusal(partial(admin.create_user, "docs_a", GOOD)) == ("PERMISSION_DENIED", "failed on purpose")
    milvus_rbac.operations.fail("CreateCredential", status=403, done=True)
    assert refusal(partial(admin.create_user, "docs_a", GOOD)) == ("PERMISSION_DENIED", "failed on purpose")
    assert milvus_rbac.users() == {"docs_a": []}
    milvus_rbac.operations.fail("DeleteCredential", 2)  # the vendor's client tries again by itself
    admin.drop_user("docs_a")
    counts = milvus_rbac.operations.counts
    assert (counts["CreateCredential"], counts["DeleteCredential"]) == (2, 3)


def test_users_outlive_a_restart(milvus_rbac: MilvusRbacDouble, connect: Connect) -> None:
    connect().create_user("docs_a", GOOD)
    milvus_rbac.stop()
    with pytest.raises(MilvusException):
        connect("docs_a", GOOD)
    milvus_rbac.start()
    assert connect("docs_a", GOOD).list_collections() == []
