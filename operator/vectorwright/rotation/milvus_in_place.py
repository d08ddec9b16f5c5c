"""One user of a Milvus server that is given another password: strategy InPlace, where it is asked for.

The password before dies in the moment in which the new one is set, before anybody could read it: consumers are refused
until they have read the Secret again. The user and its roles are nobody's but the person's who made it.
"""

from __future__ import annotations

from vectorwright.errors import Conflict, Terminal

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .milvus_api import MilvusUserApi, admin_name
from .milvus_checks import check_server
from .passwords import random_password


class MilvusUserInPlace:
    """The password of one user that exists already."""

    traits = IssuerTraits(generates=True, overlaps=False)

    def __init__(self, assignment: Assignment) -> None:
        self._user = str(assignment.identity["user"])
        self._admin = admin_name(assignment)
        self._api = MilvusUserApi(assignment.connection)

    def name_of(self, revision: int) -> str:
        """The user: the same for every revision."""
        return self._user

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """The user and a new password."""
        return KeyMaterial(username=request.name, password=random_password())

    async def check(self) -> None:
        """As :meth:`.base.KeyIssuer.check`; also ``UserNotFound``, ``UserNotRotatable``, ``AuthorizationDisabled``.

        Whether the admin is a superuser, who need not know the password before, shows only when one is replaced.
        """
        await check_server(self._api)
        if self._user == self._admin:
            raise Terminal(
                f"{self._api.endpoint}: user {self._user} is the admin of spec.adminCredentials, whose password would "
                "no longer be the one in that Secret: name another user",
                reason="UserNotRotatable",
            )
        await self._require_user()
        await self._api.require_update(self._user)

    async def _require_user(self) -> None:
        if self._user not in await self._api.users():
            raise Terminal(
                f"{self._api.endpoint} has no user {self._user} whose password could be replaced: make it, or correct "
                "spec.identity.milvus.user",
                reason="UserNotFound",
            )

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Give the user the password that was drafted. The one before is refused from now on.

        Raises Terminal (``OldPasswordRefused``) where the one before is not the published one, and the admin is no
        superuser of the server.
        """
        material = request.draft or self.draft(request)
        await self._require_user()
        if not await self._api.accepts(material):
            current = request.current.password if request.current is not None else None
            await self._api.update(self._user, current or "", material.password or "")
        return IssuedKey(self._user, material)

    async def accepts(self, key: KeyMaterial) -> bool:
        """As :meth:`.milvus_api.MilvusUserApi.accepts`."""
        return await self._api.accepts(key)

    async def revoke(self, key: LiveKey) -> None:
        """Replace the password by one that nobody learns: only a superuser may do that. The user stays."""
        if key.id != self._user:
            raise Conflict(f"user {key.id} is not the one of this resource: it is left alone", reason="NotOurs")
        if self._user in await self._api.users():
            await self._api.update(self._user, "", KeyMaterial(password=random_password()).password or "")

    async def live(self) -> list[LiveKey]:
        """None: the user was made by a person."""
        return []

    async def predecessor(self) -> None:
        """None: the value of its password is not known."""
        return

    async def close(self) -> None:
        """Release the connection."""
        await self._api.close()


def open_issuer(assignment: Assignment) -> MilvusUserInPlace:
    """As every strategy's module has it. Raises Terminal (``InvalidSpec``) where roles are named."""
    if assignment.identity.get("roles"):
        raise Terminal(
            "spec.identity.milvus.roles does not go with strategy InPlace, which leaves the user's roles as they are: "
            "leave them out",
            reason="InvalidSpec",
        )
    return MilvusUserInPlace(assignment)
