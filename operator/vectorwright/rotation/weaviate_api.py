"""Users of a Weaviate server with keys and roles of their own, over its REST API (1.30 or newer)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import httpx

from vectorwright.errors import Conflict, NotFound, Terminal
from vectorwright.kube.tenure import process_tenure
from vectorwright.stores.registry import Connection, StoreCredentials
from vectorwright.stores.weaviate.transport import Absent, Denied, Refused, WeaviateRest

from .base import Assignment, KeyMaterial

MADE_USER = "db_user"
"""Kind of a user that was made over the API; those of the server's configuration are ``db_env_user``."""
_NO_USERS = "is not enabled"
_STATIC = "static user"
_NO_SUCH_ROLE = "roles"
"""Words that tell the refusals apart: Weaviate gives no codes (adapters/handlers/rest/db_users and authz, 1.35)."""


@dataclass(frozen=True, slots=True)
class WeaviateUser:
    """A user as the server tells of it; never its key."""

    name: str
    active: bool
    made: bool
    """Whether it was made over the API: others cannot be changed over it."""
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key it is that asks."""

    name: str
    permissions: tuple[dict[str, Any], ...] | None
    """What it may do; None where the server does not tell."""


class WeaviateUserApi:
    """What the admin's key may do. Every call raises Retryable and Terminal (``AccessDenied``; ``AdminRightMissing``,
    which names the right; ``DynamicUsersDisabled``). Those that change something end within the tenure.
    """

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._connection, self._transport = connection, transport
        self._rest = self._opened(connection.credentials)
        self.endpoint = self._rest.endpoint

    def _opened(self, credentials: StoreCredentials) -> WeaviateRest:
        connection = replace(self._connection, credentials=credentials)
        return WeaviateRest(connection, asyncio.Semaphore(connection.max_concurrency), self._transport)

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._rest.close()

    async def version(self) -> str:
        """As the server tells it."""
        try:
            return str((await self._rest.get("/meta")).get("version") or "")
        except (Absent, Refused):
            raise self._rest.stranger(404) from None

    async def caller(self) -> Caller:
        """Who the admin is."""
        try:
            return _caller(self._rest, await self._rest.get("/users/own-info"))
        except Denied as error:
            raise self._denied(error, "") from None
        except (Absent, Refused):
            raise self._rest.stranger(404) from None

    async def owner(self, key: KeyMaterial) -> str | None:
        """Name of the user whose key this is; None where the server refuses it. Every key may ask that."""
        rest = self._opened(StoreCredentials(token=key.token))
        try:
            return _caller(rest, await rest.get("/users/own-info")).name
        except Denied as error:
            if error.status == 401 and error.told is not None:
                return None
            raise rest.stranger(error.status) from None
        except (Absent, Refused):
            raise rest.stranger(404) from None
        finally:
            await rest.close()

    async def answers_strangers(self, name: str) -> bool:
        """Whether the server tells its version, and of a user or that there is none, without any key."""
        rest = self._opened(StoreCredentials())
        try:
            told = await rest.get("/meta")
            if "version" not in told:
                return False
            with suppress(Absent):
                await rest.get(_user(name))
        except (Absent, Denied, Refused):
            return False
        finally:
            await rest.close()
        return True

    async def users(self) -> list[WeaviateUser]:
        """All users that the admin may see: without the right to read users, none."""
        try:
            answer = await self._call("GET", "/users/db", "read_users", "")
        except Absent:
            raise self._rest.stranger(404) from None
        if not isinstance(answer, list):
            raise self._rest.stranger(200)
        return [self._parsed(one) for one in answer]

    async def find(self, name: str) -> WeaviateUser | None:
        """One user; None where there is none."""
        try:
            return self._parsed(await self._call("GET", _user(name), "read_users", name))
        except Absent:
            return None

    async def create(self, name: str) -> str:
        """Make a user without roles. Its key. Raises Conflict where there is one of that name."""
        try:
            return self._key(await self._change("POST", _user(name), "create_users", name, {}))
        except Absent:
            raise self._rest.stranger(404) from None

    async def rotate(self, name: str) -> str:
        """Give a user another key, which ends the one it has. Raises NotFound."""
        try:
            return self._key(await self._change("POST", f"{_user(name)}/rotate-key", "update_users", name))
        except Absent:
            raise NotFound(f"{self.endpoint} has no user {name}") from None

    async def delete(self, name: str) -> None:
        """Delete a user with its key. Fine where there is none."""
        try:
            await self._change("DELETE", _user(name), "delete_users", name)
        except Absent:
            return

    async def knows_role(self, name: str) -> bool | None:
        """Whether there is a role; None where the admin may not ask."""
        try:
            await self._rest.get(f"/authz/roles/{quote(name, safe='')}")
        except Absent:
            return False
        except Denied as error:
            if error.status == 403 and error.told is not None:
                return None
            raise self._denied(error, "") from None
        except Refused as error:
            raise self._refused(error) from None
        return True

    async def assign(self, name: str, roles: Sequence[str]) -> None:
        """Give a user roles, besides those that it has. Raises Terminal (``RoleNotFound``), and NotFound for the user.

        The server refuses a missing right, a role and a user, in this order, and changes nothing then.
        """
        await self._roles("assign", name, roles, process_tenure().require())

    async def try_to_assign(self, nobody: str, roles: Sequence[str]) -> None:
        """What :meth:`assign` raises before it comes to the user, who does not exist. Changes nothing."""
        with suppress(NotFound):
            await self._roles("assign", nobody, roles, None)

    async def unassign(self, name: str, roles: Sequence[str]) -> None:
        """Take roles from a user. Raises as :meth:`assign`."""
        await self._roles("revoke", name, roles, process_tenure().require())

    async def _roles(self, verb: str, name: str, roles: Sequence[str], seconds: float | None) -> None:
        path = f"/authz/users/{quote(name, safe='')}/{verb}"
        body = {"roles": list(roles), "userType": "db"}
        try:
            await self._call("POST", path, "assign_and_revoke_users", name, body, seconds=seconds)
        except Absent as error:
            if _NO_SUCH_ROLE not in error.told:
                raise NotFound(f"{self.endpoint} has no user {name}") from None
            raise role_not_found(self.endpoint, roles) from None

    async def _change(self, method: str, path: str, right: str, name: str, body: Any = None) -> Any:
        return await self._call(method, path, right, name, body, seconds=process_tenure().require())

    async def _call(
        self, method: str, path: str, right: str, name: str, body: Any = None, *, seconds: float | None = None
    ) -> Any:
        try:
            return await self._rest.call(method, path, body, seconds=seconds)
        except Denied as error:
            raise self._denied(error, right, name) from None
        except Refused as error:
            raise self._refused(error) from None
        except Conflict:
            raise Conflict(f"{self.endpoint} has a user {name} already", reason="AlreadyExists") from None

    def _denied(self, error: Denied, right: str, name: str = "") -> Terminal:
        if error.told is None or error.status == 401 or not right:
            return Terminal(
                f"{self.endpoint} refused the key of the admin (HTTP {error.status}): check the Secret of "
                "spec.adminCredentials",
                reason="AccessDenied",
            )
        if "not allowed" in error.told:
            return Terminal(
                f"{self.endpoint} gives no user such a role: {error.told}: correct spec.identity.weaviate.roles",
                reason="InvalidSpec",
            )
        return right_missing(self.endpoint, right, name)

    def _refused(self, error: Refused) -> Terminal:
        if _NO_USERS in error.told:
            return Terminal(
                f"{self.endpoint} makes no users with keys of their own: start Weaviate with "
                "AUTHENTICATION_DB_USERS_ENABLED=true",
                reason="DynamicUsersDisabled",
            )
        if _STATIC in error.told:
            return static_user(self.endpoint, error.told)
        return Terminal(f"{self.endpoint} refused the request: {error.told}", reason="RequestRefused")

    def _key(self, answer: Any) -> str:
        key = answer.get("apikey") if isinstance(answer, dict) else None
        if not isinstance(key, str) or not key:
            raise self._rest.stranger(200)
        return key

    def _parsed(self, told: Any) -> WeaviateUser:
        if not isinstance(told, dict) or not isinstance(told.get("userId"), str):
            raise self._rest.stranger(200)
        return WeaviateUser(
            told["userId"],
            told.get("active") is not False,
            told.get("dbUserType") == MADE_USER,
            frozenset(str(role) for role in told.get("roles") or ()),
        )


def _user(name: str) -> str:
    return f"/users/db/{quote(name, safe='')}"


def _caller(rest: WeaviateRest, told: dict[str, Any]) -> Caller:
    name, roles = told.get("username"), told.get("roles") or ()
    if not isinstance(name, str):
        raise rest.stranger(200)
    if not all(isinstance(role, dict) and isinstance(role.get("permissions"), list) for role in roles):
        return Caller(name, None)
    return Caller(name, tuple(one for role in roles for one in role["permissions"] if isinstance(one, dict)))


def role_not_found(endpoint: str, roles: Sequence[str]) -> Terminal:
    """The error for roles of which the server does not know all."""
    named = f"role {roles[0]}" if len(roles) == 1 else f"all of the roles {', '.join(roles)}"
    return Terminal(
        f"{endpoint} does not have {'the ' if len(roles) == 1 else ''}{named}: make what is missing, or correct "
        "spec.identity.weaviate.roles",
        reason="RoleNotFound",
    )


def right_missing(endpoint: str, right: str, name: str) -> Terminal:
    """The error for an admin who may not do something."""
    on = f" on user {name}" if name else ""
    return Terminal(
        f"{endpoint}: the admin of spec.adminCredentials has not the permission {right}{on}: give it a role with it",
        reason="AdminRightMissing",
    )


def static_user(endpoint: str, told: str) -> Terminal:
    """The error for users whose keys are in the server's configuration."""
    return Terminal(
        f"{endpoint}: {told}: its key is in the server's configuration, where nothing can rotate it: name another user",
        reason="UserNotRotatable",
    )


def require_token(assignment: Assignment) -> None:
    """Raise Terminal (``InvalidCredentials``) where the admin has no key."""
    if not assignment.connection.credentials.token:
        raise Terminal(
            "the Secret of spec.adminCredentials holds no token: put the key of a user there who may manage users",
            reason="InvalidCredentials",
        )
