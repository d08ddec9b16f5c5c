"""Users and roles of a Milvus server, over gRPC."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.kube.tenure import process_tenure
from vectorwright.stores.http_errors import UNEXPECTED_ANSWER
from vectorwright.stores.milvus.errors import Denied
from vectorwright.stores.milvus.rpc import MilvusApi
from vectorwright.stores.milvus.stubs import milvus_pb2
from vectorwright.stores.registry import Connection

from .base import Assignment, KeyMaterial

EVERYBODYS_ROLE = "public"
"""The role that every user has without being given it."""
_ADD, _REMOVE = 0, 1
"""``OperateUserRoleType`` of Milvus' API."""
_PRIVILEGE = re.compile(r"Privilege(\w+): permission deny")
_OLD_PASSWORD = "old password"  # noqa: S105 - words of an error
_EXISTS = re.compile(r"already exist", re.IGNORECASE)


class OldPasswordRefused(Terminal):
    """A password was to be replaced by somebody who does not know it and is no superuser."""

    default_reason = "OldPasswordRefused"


class MilvusUserApi:
    """What the admin may do. Every call raises Retryable and Terminal (``AccessDenied``; ``AdminRightMissing``, which
    names the privilege). Those that change something end within the tenure.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._api = MilvusApi(connection, apart=True)
        self.endpoint = self._api.endpoint

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        await self._api.close()

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether Milvus lets a user in, by a call that checks the password: the list of databases, which every user
        may ask for or is refused by name. ``GetVersion`` and ``Connect`` would say less.

        While the part of Milvus that holds the users is down, it refuses users whom its proxies have not remembered.
        """
        api = MilvusApi(replace(self._connection, credentials=key.credentials), apart=True)
        try:
            await api.call("ListDatabases", milvus_pb2.ListDatabasesRequest(), "ListDatabasesResponse")
        except Denied as error:
            if error.known is None:
                raise self._stranger() from None
            return error.known
        finally:
            await api.close()
        return True

    async def version(self) -> str:
        """As the server tells it."""
        answer = await self._call("GetVersion", milvus_pb2.GetVersionRequest(), "GetVersionResponse")
        return str(answer.version)

    async def users(self) -> set[str]:
        """Names of all users."""
        answer = await self._call("ListCredUsers", milvus_pb2.ListCredUsersRequest(), "ListCredUsersResponse")
        return set(answer.usernames)

    async def roles(self) -> Mapping[str, frozenset[str]]:
        """All roles, and the users that were given each."""
        request = milvus_pb2.SelectRoleRequest(include_user_info=True)
        answer = await self._call("SelectRole", request, "SelectRoleResponse")
        return {one.role.name: frozenset(user.name for user in one.users) for one in answer.results}

    async def create(self, name: str, password: str) -> None:
        """Make a user. Raises Conflict where there is one of that name."""
        request = milvus_pb2.CreateCredentialRequest(username=name, password=_encoded(password))
        try:
            await self._change("CreateCredential", request, password)
        except (Terminal, Conflict) as error:
            # Milvus says so as of any parameter that it does not take (2.6).
            if isinstance(error, Conflict) or _EXISTS.search(error.message):
                raise Conflict(f"{self.endpoint} has a user {name} already", reason="AlreadyExists") from None
            raise

    async def update(self, name: str, old: str, new: str) -> None:
        """Replace the password of a user. Raises OldPasswordRefused where ``old`` is not the one, unless the admin is
        one of the server's superusers.
        """
        request = milvus_pb2.UpdateCredentialRequest(
            username=name, oldPassword=_encoded(old), newPassword=_encoded(new)
        )
        try:
            await self._change("UpdateCredential", request, old, new)
        except OldPasswordRefused:
            raise OldPasswordRefused(
                f"{self.endpoint} does not replace the password of user {name} for somebody who does not know it: name "
                "the admin in common.security.superUsers of milvus.yaml"
            ) from None

    async def delete(self, name: str) -> None:
        """Delete a user that exists, with its roles."""
        await self._change("DeleteCredential", milvus_pb2.DeleteCredentialRequest(username=name))

    async def give(self, name: str, role: str) -> None:
        """Give a user a role."""
        await self._operate(name, role, _ADD)

    async def take(self, name: str, role: str) -> None:
        """Take a role from a user."""
        await self._operate(name, role, _REMOVE)

    async def _operate(self, name: str, role: str, operation: int) -> None:
        request = milvus_pb2.OperateUserRoleRequest(username=name, role_name=role, type=operation)
        await self._change("OperateUserRole", request)

    async def require_ownership(self) -> None:
        """Raise Terminal (``AdminRightMissing``) where the admin may not make and drop users and give them roles.

        Asks for what Milvus refuses for its empty name, after it looked at the privilege. Changes nothing.
        """
        await self._try("CreateCredential", milvus_pb2.CreateCredentialRequest())
        # That of dropping users is the same privilege; users of an empty name would be looked for.
        await self._try("DropRole", milvus_pb2.DropRoleRequest())
        await self._try("OperateUserRole", milvus_pb2.OperateUserRoleRequest())

    async def require_update(self, name: str) -> None:
        """Raise Terminal (``AdminRightMissing``) where the admin may not replace the password of a user.

        Asks for an empty one, which Milvus refuses after it looked at the privilege. Changes nothing.
        """
        await self._try("UpdateCredential", milvus_pb2.UpdateCredentialRequest(username=name))

    async def _try(self, method: str, request: Any) -> None:
        try:
            await self._call(method, request)
        except OldPasswordRefused:
            return
        except Terminal as error:
            if error.reason != "RequestRefused":
                raise

    async def _change(self, method: str, request: Any, *passwords: str) -> None:
        left = process_tenure().require()
        seconds = None if left is None else min(left, self._connection.timeout)
        hidden = tuple(text for password in passwords for text in (password, _encoded(password)) if text)
        await self._call(method, request, seconds=seconds, secrets=hidden)

    async def _call(self, method: str, request: Any, answer: str = "", **options: Any) -> Any:
        try:
            return await self._api.call(method, request, answer, **options)
        except Denied as error:
            raise self._denied(error) from None

    def _denied(self, error: Denied) -> Terminal | Retryable:
        if error.known is None:
            return self._stranger()
        if _OLD_PASSWORD in error.told.lower():
            return OldPasswordRefused(f"{self.endpoint} refused the old password")
        if not error.known:
            return Terminal(
                f"{self.endpoint} refused the admin's user name or password: check the Secret of spec.adminCredentials",
                reason="AccessDenied",
            )
        named = _PRIVILEGE.search(error.told)
        what = f"the privilege {named[1]}" if named else f"a privilege ({error.told})"
        return Terminal(
            f"{self.endpoint}: the admin of spec.adminCredentials has not {what}: grant it to one of its roles",
            reason="AdminRightMissing",
        )

    def _stranger(self) -> Retryable:
        return Retryable(
            f"{self.endpoint} refused access in words that are not Milvus': check the proxies before it",
            reason=UNEXPECTED_ANSWER,
        )


def _encoded(password: str) -> str:
    """As Milvus takes passwords."""
    return base64.b64encode(password.encode()).decode()


def admin_name(assignment: Assignment) -> str:
    """Name of the admin's user, "" for one who comes with an API key. Raises Terminal (``InvalidCredentials``) where
    there are no credentials."""
    credentials = assignment.connection.credentials
    if credentials.token:
        name, separator, _ = credentials.token.partition(":")
        return name if separator else ""
    if not (credentials.username and credentials.password):
        raise Terminal(
            "the Secret of spec.adminCredentials holds no user name and password: put those of a user there who may "
            "manage users",
            reason="InvalidCredentials",
        )
    return credentials.username
