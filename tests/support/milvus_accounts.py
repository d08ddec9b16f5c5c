"""Users, roles and passwords as Milvus 2.4 to 2.6 keep them: what the double of its API answers from."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.double_clock import DoubleClock

from vectorwright.stores.milvus.stubs import common_pb2, milvus_pb2

ROOT = "root"
ROOT_PASSWORD = "Milvus"
VERSION = "2.6.4"
MAX_USERS = 100
PASSWORD_BYTES = (6, 72)
USERNAME_LENGTH = 32
"""Bounds: the defaults of ``proxy.maxUserNum``, ``minPasswordLength``, ``maxPasswordLength``, ``maxUsernameLength``."""
ADMIN, PUBLIC = "admin", "public"
_UNEXPECTED = 65535
_INVALID = 1100
_NOT_AUTHENTICATED = 1400
_NOT_PERMITTED = 1401


class Refused(Exception):  # noqa: N818 - it is an answer
    """A status of Milvus' own: its code, and the one that versions before 2.3 had."""

    def __init__(self, code: int, reason: str, legacy: str = "UnexpectedError") -> None:
        super().__init__(reason)
        self.status = common_pb2.Status(
            code=code, reason=reason, error_code=common_pb2.ErrorCode.Value(legacy), detail=reason
        )


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


class Accounts:
    """What a server knows of those who may come in. ``root`` may do everything."""

    def __init__(self, root_password: str) -> None:
        self.root_password = root_password
        self.clock = DoubleClock()
        self.usable_after = 0.0
        """Seconds from the creation of a user, or a new password, until it is taken."""
        self.usable_until = 0.0
        """Seconds from the end of a user, or of a password, until it is refused."""
        self.superusers: set[str] = set()
        """Users who need not know a password to replace it (``common.security.superUsers``)."""
        self.version = VERSION
        self._users = {ROOT: _User(root_password, {ADMIN, PUBLIC})}
        self._roles: dict[str, set[str]] = {ADMIN: {"*"}, PUBLIC: {"DescribeCollection", "ListAliases", "IndexDetail"}}
        self._old: list[_Old] = []
        self.guard = threading.RLock()
        self.answers: Mapping[str, Callable[[Any, str], Any]] = {
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

    def add_role(self, name: str, *privileges: str) -> str:
        """A role with privileges by their names (``Insert``, ``CreateOwnership``, …; ``*`` for all), and its name."""
        with self.guard:
            self._roles[name] = set(privileges)
        return name

    def add_user(self, name: str, password: str, *roles: str) -> None:
        """A user that nobody asked for."""
        with self.guard:
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
        with self.guard:
            return {name: sorted(user.roles) for name, user in self._users.items() if name != ROOT}

    def accepts(self, user: str, password: str) -> bool:
        """Whether a password is taken now."""
        with self.guard:
            now = self.clock.monotonic()
            known = self._users.get(user)
            if known is not None and now >= known.usable_at and _same(known.password, password):
                return True
            return any(one.user == user and now < one.until and _same(one.password, password) for one in self._old)

    def granted(self, user: str) -> set[str]:
        """The privileges of a user's roles."""
        with self.guard:
            known = self._users.get(user)
            roles = {PUBLIC} | (known.roles if known else set())
            return set().union(*(self._roles.get(role, set()) for role in roles))

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
            raise Refused(_UNEXPECTED, f"user already exists: {name}", "CreateCredentialFailure")
        if len(self._users) >= MAX_USERS:
            said = "unable to add user because the number of users has reached the limit"
            raise Refused(_UNEXPECTED, said, "CreateCredentialFailure")
        self._users[name] = _User(password, usable_at=self.clock.monotonic() + self.usable_after)

    def _update_password(self, request: Any, by: str) -> None:
        name, old, new = request.username, _password(request.oldPassword), _password(request.newPassword)
        _check_password(new)
        known = self._users.get(name)
        if known is None or not (by in self.superusers or _same(known.password, old)):
            raise Refused(_NOT_AUTHENTICATED, f"old password not correct for {name}: not authenticated")
        if _same(known.password, new):
            return
        self._retire(name, known)
        known.password, known.usable_at = new, self.clock.monotonic() + self.usable_after

    def _drop_user(self, request: Any, _: str) -> None:
        if request.username == ROOT:
            raise Refused(_NOT_PERMITTED, "root user cannot be deleted: privilege not permitted")
        known = self._users.pop(request.username, None)  # one that does not exist is none to be dropped: success
        if known is not None:
            self._retire(request.username, known)

    def _retire(self, name: str, user: _User) -> None:
        self._old.append(_Old(name, user.password, self.clock.monotonic() + self.usable_until))

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
        _check_role_name(name)
        if name in self._roles:
            raise Refused(_UNEXPECTED, f'role [name:"{name}"] already exists', "CreateRoleFailure")
        self._roles[name] = set()

    def _drop_role(self, request: Any, _: str) -> None:
        name = request.role_name
        _check_role_name(name)
        if name in {ADMIN, PUBLIC}:
            raise Refused(_NOT_PERMITTED, f"the role[{name}] is a builtin role, which can't be dropped")
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
        _check_name(name)
        _check_role_name(role)
        self._check_role(role, "OperateUserRoleFailure")
        adds = request.type == milvus_pb2.OperateUserRoleType.Value("AddUserToRole")
        if name not in self._users:
            if not adds:
                return  # to take a role from nobody is success
            said = "not found the user, maybe the user isn't existed or internal system error"
            raise Refused(_UNEXPECTED, said, "OperateUserRoleFailure")
        (self._users[name].roles.add if adds else self._users[name].roles.discard)(role)

    def _check_role(self, name: str, legacy: str) -> None:
        if name not in self._roles:
            said = "not found the role, maybe the role isn't existed or internal system error"
            raise Refused(_UNEXPECTED, said, legacy)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(_INVALID, "decode password fail: invalid parameter", "IllegalArgument") from None


def _check_password(password: str) -> None:
    low, high = PASSWORD_BYTES
    length = len(password.encode())
    if not low <= length <= high:
        said = f"invalid password length: out of range {low} <= value <= {high}: invalid parameter[actual={length}]"
        raise Refused(_INVALID, said, "IllegalArgument")


def _check_name(name: str) -> None:
    if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9_]{{0,{USERNAME_LENGTH - 1}}}", name):
        raise Refused(_INVALID, f"invalid user name {name}: invalid parameter", "IllegalArgument")


def _check_role_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,254}", name):
        raise Refused(_INVALID, f"invalid role name {name}: invalid parameter", "IllegalArgument")
