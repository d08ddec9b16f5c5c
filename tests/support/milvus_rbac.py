"""A double of Milvus with users and roles: milvus-lite, the server that tests run on, has neither.

It answers the calls of users and roles as Milvus 2.4 to 2.6 do (``internal/proxy`` and ``internal/rootcoord`` of its
source), and reads which privilege a call needs where Milvus itself does: in the options of its messages. What else is
asked goes on to a real server behind it, if there is one. Privileges count for all collections and databases alike.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from tests.support.operations import Operations

from vectorwright.stores.milvus.stubs import common_pb2, milvus_pb2

__all__ = ["MilvusRbacDouble", "StartMilvusRbac"]

ROOT = "root"
ROOT_PASSWORD = "Milvus"
VERSION = "2.6.4"
MAX_USERS = 100
PASSWORD_BYTES = (6, 72)
USERNAME_LENGTH = 32
"""Bounds: the defaults of ``proxy.maxUserNum``, ``minPasswordLength``, ``maxPasswordLength``, ``maxUsernameLength``."""
ADMIN, PUBLIC = "admin", "public"
_SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
_PREFIX = "/milvus.proto.milvus.MilvusService/"
_UNEXPECTED = 65535
_INVALID = 1100
_NOT_AUTHENTICATED = 1400
_NOT_PERMITTED = 1401
_FAULTS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

StartMilvusRbac = Callable[..., "MilvusRbacDouble"]


class _Refused(Exception):  # noqa: N818 - it is an answer
    """A status of Milvus' own: its code, and the one that versions before 2.3 had."""

    def __init__(self, code: int, reason: str, legacy: str = "UnexpectedError") -> None:
        super().__init__(reason)
        self.status = common_pb2.Status(
            code=code, reason=reason, error_code=common_pb2.ErrorCode.Value(legacy), detail=reason
        )


class _Denied(Exception):  # noqa: N818 - it is an answer
    """A status of gRPC: who is asking is not known, or may not."""

    def __init__(self, code: grpc.StatusCode, said: str) -> None:
        super().__init__(said)
        self.code, self.said = code, said


@dataclass(slots=True)
class _User:
    password: str = field(repr=False)
    roles: set[str] = field(default_factory=set)
    usable_at: float = 0.0


@dataclass(slots=True)
class _Old:
    """A password that is still taken for a while."""

    user: str
    password: str = field(repr=False)
    until: float


class MilvusRbacDouble:
    """Serves on a port of 127.0.0.1, at first a free one, until ``close()``.

    ``root`` may do everything. ``upstream`` is the ``host:port`` of a real server without users, which answers what has
    nothing to do with them. Operations are the methods of MilvusService (``CreateCredential``, ``OperateUserRole``, …).
    """

    def __init__(self, *, root_password: str = ROOT_PASSWORD, upstream: str | None = None) -> None:
        self.root_password = root_password
        self.operations = Operations()
        self.usable_after = 0.0
        """Seconds from the creation of a user, or a new password, until it is taken."""
        self.usable_until = 0.0
        """Seconds from the end of a user, or of a password, until it is refused."""
        self.version = VERSION
        self._users = {ROOT: _User(root_password, {ADMIN, PUBLIC})}
        self._roles: dict[str, set[str]] = {ADMIN: {"*"}, PUBLIC: {"DescribeCollection", "ListAliases", "IndexDetail"}}
        self._old: list[_Old] = []
        self._guard = threading.RLock()
        self._channel = grpc.insecure_channel(upstream, (("grpc.enable_http_proxy", 0),)) if upstream else None
        self._answers: Mapping[str, Callable[[Any, str], Any]] = {
            "Connect": self._connect,
            "GetVersion": self._get_version,
            "CheckHealth": lambda _, __: milvus_pb2.CheckHealthResponse(isHealthy=True),
            "ListDatabases": lambda _, __: milvus_pb2.ListDatabasesResponse(db_names=["default"]),
            "ShowCollections": lambda _, __: milvus_pb2.ShowCollectionsResponse(),
            "CreateCredential": self._create_user,
            "UpdateCredential": self._update_password,
            "DeleteCredential": self._drop_user,
            "ListCredUsers": lambda _, __: milvus_pb2.ListCredUsersResponse(usernames=sorted(self._users)),
            "SelectUser": self._select_user,
            "CreateRole": self._create_role,
            "DropRole": self._drop_role,
            "SelectRole": self._select_role,
            "OperateUserRole": self._operate_user_role,
        }
        self._server: tuple[Any, ThreadPoolExecutor] | None = None
        self.host, self.port = "127.0.0.1", 0
        self.start()
        self.url = f"http://{self.host}:{self.port}"

    # For tests.

    def add_role(self, name: str, *privileges: str) -> str:
        """A role with privileges by their names (``Insert``, ``CreateOwnership``, …; ``*`` for all), and its name."""
        with self._guard:
            self._roles[name] = set(privileges)
        return name

    def add_user(self, name: str, password: str, *roles: str) -> None:
        """A user that nobody asked for."""
        with self._guard:
            self._users[name] = _User(password, set(roles))

    def add_rotating_admin(self, name: str, password: str) -> None:
        """A user that may make, change and drop users and grant roles, and nothing else."""
        role = self.add_role(
            f"{name}_role",
            "CreateOwnership",
            "DropOwnership",
            "SelectOwnership",
            "ManageOwnership",
            "UpdateUser",
            "SelectUser",
        )
        self.add_user(name, password, role)

    def users(self) -> dict[str, list[str]]:
        """Users but root → their roles."""
        with self._guard:
            return {name: sorted(user.roles) for name, user in self._users.items() if name != ROOT}

    def accepts(self, user: str, password: str) -> bool:
        """Whether a password is taken now."""
        with self._guard:
            now = time.monotonic()
            known = self._users.get(user)
            if known is not None and now >= known.usable_at and _same(known.password, password):
                return True
            return any(one.user == user and now < one.until and _same(one.password, password) for one in self._old)

    def start(self) -> None:
        """Start (again) on the same port, with its users. Nothing happens when it runs."""
        if self._server is None:
            workers = ThreadPoolExecutor(8, "milvus-rbac-double")
            server = grpc.server(workers, handlers=(_Methods(self._handle),))
            self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
            server.start()
            self._server = server, workers

    def stop(self) -> None:
        """Stop serving; ``start()`` brings it back."""
        running, self._server = self._server, None
        if running is not None:
            running[0].stop(0).wait(10)
            running[1].shutdown()

    def close(self) -> None:
        self.stop()
        if self._channel is not None:
            self._channel.close()

    # The door.

    def _handle(self, method: str, body: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
        fault = self.operations.met(method)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.status is not None and not fault.done:
                raise _Denied(_FAULTS.get(fault.status, grpc.StatusCode.INTERNAL), "failed on purpose")
        answer = self._honest(method, body, metadata)
        if fault is not None and fault.status is not None:
            raise _Denied(_FAULTS.get(fault.status, grpc.StatusCode.INTERNAL), "failed on purpose")
        return answer

    def _honest(self, method: str, body: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
        headers = dict(metadata)
        user = self._authenticated(headers.get("authorization"))
        kinds = _SERVICE.methods_by_name.get(method)
        if kinds is None:
            raise _Denied(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")
        request = getattr(milvus_pb2, kinds.input_type.name).FromString(body)
        self._permit(request, user, headers.get("dbname") or "default")
        if self._channel is not None and (
            method not in self._answers or method in {"ListDatabases", "ShowCollections"}
        ):
            return self._passed_on(method, body, headers.get("dbname"))
        if method not in self._answers:
            raise _Denied(grpc.StatusCode.UNIMPLEMENTED, f"the double does not know {method}")
        with self._guard:
            try:
                answer = self._answers[method](request, user) or common_pb2.Status()
            except _Refused as refused:
                answer = self._status(kinds.output_type.name, refused.status)
        sent: bytes = answer.SerializeToString()
        return sent

    @staticmethod
    def _status(kind: str, status: Any) -> Any:
        return status if kind == "Status" else getattr(milvus_pb2, kind)(status=status)

    def _authenticated(self, authorization: str | None) -> str:
        if not authorization:
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, "missing authorization in header")
        try:
            token = base64.b64decode(authorization, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, "invalid token format") from None
        user, separator, password = token.partition(":")
        if not separator:
            said = "auth check failure, please check api key is correct"
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, said)
        if not self.accepts(user, password):
            said = "auth check failure, please check username and password are correct"
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, said)
        return user

    def _permit(self, request: Any, user: str, database: str) -> None:
        options = request.DESCRIPTOR.GetOptions()
        if user == ROOT or not options.HasExtension(common_pb2.privilege_ext_obj):
            return
        needs = options.Extensions[common_pb2.privilege_ext_obj]
        if needs.object_type == common_pb2.ObjectType.Value("User") and _named(request) == user:
            return
        name = common_pb2.ObjectPrivilege.Name(needs.object_privilege)
        with self._guard:
            known = self._users.get(user)
            roles = {PUBLIC} | (known.roles if known else set())
            granted = set().union(*(self._roles.get(role, set()) for role in roles))
        if not granted & {"*", name.removeprefix("Privilege")}:
            said = f"{name}: permission deny to {user} in the `{database}` database"
            raise _Denied(grpc.StatusCode.PERMISSION_DENIED, said)

    def _passed_on(self, method: str, body: bytes, database: str | None) -> bytes:
        assert self._channel is not None
        metadata = (("dbname", database),) if database else ()
        try:
            answer: bytes = self._channel.unary_unary(_PREFIX + method)(body, timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            raise _Denied(error.code(), error.details() or "") from None
        return answer

    # The calls.

    def _connect(self, _: Any, __: str) -> Any:
        info = common_pb2.ServerInfo(build_tags=self.version, deploy_mode="STANDALONE")
        return milvus_pb2.ConnectResponse(server_info=info, identifier=time.time_ns())

    def _get_version(self, _: Any, __: str) -> Any:
        return milvus_pb2.GetVersionResponse(version=self.version)

    def _create_user(self, request: Any, _: str) -> None:
        name, password = request.username, _password(request.password)
        _check_name(name)
        _check_password(password)
        if name in self._users:
            raise _Refused(_UNEXPECTED, f"user already exists: {name}", "CreateCredentialFailure")
        if len(self._users) >= MAX_USERS:
            said = "unable to add user because the number of users has reached the limit"
            raise _Refused(_UNEXPECTED, said, "CreateCredentialFailure")
        self._users[name] = _User(password, usable_at=time.monotonic() + self.usable_after)

    def _update_password(self, request: Any, _: str) -> None:
        name, old, new = request.username, _password(request.oldPassword), _password(request.newPassword)
        _check_password(new)
        known = self._users.get(name)
        if known is None or not _same(known.password, old):
            raise _Refused(_NOT_AUTHENTICATED, f"old password not correct for {name}: not authenticated")
        if _same(old, new):
            return
        self._retire(name, known)
        known.password, known.usable_at = new, time.monotonic() + self.usable_after

    def _drop_user(self, request: Any, _: str) -> None:
        if request.username == ROOT:
            raise _Refused(_NOT_PERMITTED, "root user cannot be deleted: privilege not permitted")
        known = self._users.pop(request.username, None)  # one that does not exist is none to be dropped: success
        if known is not None:
            self._retire(request.username, known)

    def _retire(self, name: str, user: _User) -> None:
        self._old.append(_Old(name, user.password, time.monotonic() + self.usable_until))

    def _select_user(self, request: Any, _: str) -> Any:
        wanted = request.user.name
        found = [(name, user) for name, user in sorted(self._users.items()) if wanted in {"", name}]
        results = [
            milvus_pb2.UserResult(
                user=milvus_pb2.UserEntity(name=name),
                roles=[milvus_pb2.RoleEntity(name=role) for role in sorted(user.roles) if request.include_role_info],
            )
            for name, user in found
        ]
        return milvus_pb2.SelectUserResponse(results=results)

    def _create_role(self, request: Any, _: str) -> None:
        name = request.entity.name
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,254}", name):
            raise _Refused(_INVALID, f"invalid role name {name}: invalid parameter", "IllegalArgument")
        if name in self._roles:
            raise _Refused(_UNEXPECTED, f'role [name:"{name}"] already exists', "CreateRoleFailure")
        self._roles[name] = set()

    def _drop_role(self, request: Any, _: str) -> None:
        name = request.role_name
        if name in {ADMIN, PUBLIC}:
            raise _Refused(_NOT_PERMITTED, f"the role[{name}] is a builtin role, which can't be dropped")
        self._check_role(name, "DropRoleFailure")
        del self._roles[name]
        for user in self._users.values():
            user.roles.discard(name)

    def _select_role(self, request: Any, _: str) -> Any:
        wanted = request.role.name
        results = []
        for name in sorted(self._roles):
            if wanted not in {"", name}:
                continue
            held = [
                one for one, user in sorted(self._users.items()) if name in user.roles and request.include_user_info
            ]
            users = [milvus_pb2.UserEntity(name=one) for one in held]
            results.append(milvus_pb2.RoleResult(role=milvus_pb2.RoleEntity(name=name), users=users))
        return milvus_pb2.SelectRoleResponse(results=results)

    def _operate_user_role(self, request: Any, _: str) -> None:
        name, role = request.username, request.role_name
        self._check_role(role, "OperateUserRoleFailure")
        adds = request.type == milvus_pb2.OperateUserRoleType.Value("AddUserToRole")
        if name not in self._users:
            if not adds:
                return  # to take a role from nobody is success
            said = "not found the user, maybe the user isn't existed or internal system error"
            raise _Refused(_UNEXPECTED, said, "OperateUserRoleFailure")
        (self._users[name].roles.add if adds else self._users[name].roles.discard)(role)

    def _check_role(self, name: str, legacy: str) -> None:
        if name not in self._roles:
            said = "not found the role, maybe the role isn't existed or internal system error"
            raise _Refused(_UNEXPECTED, said, legacy)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handle: Callable[[str, bytes, tuple[tuple[str, str], ...]], bytes]) -> None:
        self._handle = handle

    def service(self, details: Any) -> Any:
        if not details.method.startswith(_PREFIX):
            return None
        method = details.method.removeprefix(_PREFIX)

        def serve(request: bytes, context: Any) -> bytes:
            metadata = tuple((str(key), str(value)) for key, value in context.invocation_metadata())
            try:
                return self._handle(method, request, metadata)
            except _Denied as denied:
                context.abort(denied.code, denied.said)
                raise AssertionError("abort() raises") from None

        return grpc.unary_unary_rpc_method_handler(serve)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _named(request: Any) -> str:
    """The user that a request about one names."""
    return str(request.user.name if hasattr(request, "user") else request.username)


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise _Refused(_INVALID, "decode password fail: invalid parameter", "IllegalArgument") from None


def _check_password(password: str) -> None:
    low, high = PASSWORD_BYTES
    length = len(password.encode())
    if not low <= length <= high:
        said = f"invalid password length: out of range {low} <= value <= {high}: invalid parameter[actual={length}]"
        raise _Refused(_INVALID, said, "IllegalArgument")


def _check_name(name: str) -> None:
    if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9_]{{0,{USERNAME_LENGTH - 1}}}", name):
        raise _Refused(_INVALID, f"invalid user name {name}: invalid parameter", "IllegalArgument")


@pytest.fixture
def start_milvus_rbac() -> Iterator[StartMilvusRbac]:
    """``start_milvus_rbac(**options)`` starts a double of this test's own."""
    doubles: list[MilvusRbacDouble] = []

    def start(**options: Any) -> MilvusRbacDouble:
        doubles.append(MilvusRbacDouble(**options))
        return doubles[-1]

    yield start
    for double in doubles:
        double.close()


@pytest.fixture
def milvus_rbac(start_milvus_rbac: StartMilvusRbac) -> MilvusRbacDouble:
    """A double without users but root, and with the role ``docs`` for points and collections."""
    double = start_milvus_rbac()
    double.add_role(
        "docs", "Insert", "Upsert", "Delete", "Query", "Search", "Load", "CreateCollection", "DropCollection"
    )
    return double
