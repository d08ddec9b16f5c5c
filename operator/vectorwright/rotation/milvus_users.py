"""Two users of a Milvus server that take turns: strategy DualIdentity.

A user whose password is to end is deleted, and made anew with its next turn. Both have exactly the roles that the spec
names, besides the one that every user has.
"""

from __future__ import annotations

from vectorwright.errors import Conflict, Retryable, Terminal

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .milvus_api import EVERYBODYS_ROLE, MilvusUserApi, admin_name
from .milvus_checks import check_roles, check_server
from .names import is_slotted, slot_of, slotted
from .passwords import random_password

_SEPARATOR = "_"
"""Milvus takes letters, digits and underscores."""
LONGEST_PREFIX = 20
"""Characters of 32 (``proxy.maxUsernameLength``), of which the digest of the resource and the turn take 11."""


class MilvusUsers:
    """The users of one resource. No user of another name is ever changed."""

    traits = IssuerTraits(generates=True)

    def __init__(self, assignment: Assignment) -> None:
        self._owner = assignment.owner
        self._prefix = str(assignment.identity["user"])
        self._roles = sorted(set(assignment.identity.get("roles") or ()))
        self._api = MilvusUserApi(assignment.connection)

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`."""
        return slotted(self._owner, self._prefix, slot_of(revision), _SEPARATOR)

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """The user and a new password: 40 letters and digits. Milvus takes 6 to 72 characters (``proxy`` in
        milvus.yaml), Zilliz Cloud 8 to 64 of three kinds."""
        return KeyMaterial(username=request.name, password=random_password())

    async def check(self) -> None:
        """As :meth:`.base.KeyIssuer.check`; also ``AuthorizationDisabled``."""
        await check_server(self._api)
        await self._api.users()
        roles = await self._api.roles()
        await self._api.require_ownership()
        check_roles(self._api, self._roles, roles)

    async def create(self, request: KeyRequest) -> IssuedKey:
        """As :meth:`.base.KeyIssuer.create`. A user with another password than the drafted one is deleted first."""
        name, material = request.name, request.draft or self.draft(request)
        self._require_ours(name)
        if request.current is not None and request.current.username == name:
            raise Conflict(
                f"user {name} has the password that is published: it is not made anew while consumers use it",
                reason="KeyInUse",
            )
        roles = await self._api.roles()
        check_roles(self._api, self._roles, roles)
        there = name in await self._api.users()
        if there and not await self._api.accepts(material):
            await self._api.delete(name)
            there = False
        if not there:
            await self._create(name, material)
            roles = await self._api.roles()
        has = {role for role, users in roles.items() if name in users}
        for role in self._roles:
            if role not in has:
                await self._api.give(name, role)
        for role in sorted(has - {*self._roles, EVERYBODYS_ROLE}):
            await self._api.take(name, role)
        return IssuedKey(name, material)

    async def _create(self, name: str, material: KeyMaterial) -> None:
        try:
            await self._api.create(name, material.password or "")
        except Conflict:
            raise Retryable(f"{self._api.endpoint}: user {name} is deleted, and not gone yet", after=1) from None

    def _require_ours(self, name: str) -> None:
        if not is_slotted(self._owner, name, _SEPARATOR):
            raise Conflict(f"user {name} was not made by this resource: it is left alone", reason="NotOurs")

    async def accepts(self, key: KeyMaterial) -> bool:
        """As :meth:`.milvus_api.MilvusUserApi.accepts`."""
        return await self._api.accepts(key)

    async def revoke(self, key: LiveKey) -> None:
        """Delete the user. Milvus has its proxies forget it."""
        self._require_ours(key.id)
        if key.id in await self._api.users():
            await self._api.delete(key.id)

    async def live(self) -> list[LiveKey]:
        """As :meth:`.base.KeyIssuer.live`; also users of another ``user`` that the spec had before."""
        names = sorted(await self._api.users())
        return [LiveKey(name, name) for name in names if is_slotted(self._owner, name, _SEPARATOR)]

    async def predecessor(self) -> None:
        """None: the users are made by this resource."""
        return

    async def close(self) -> None:
        """Release the connection."""
        await self._api.close()


def open_issuer(assignment: Assignment) -> MilvusUsers:
    """As every strategy's module has it. Raises Terminal (``InvalidSpec``) where no roles are named, or too long a
    name."""
    admin_name(assignment)
    if not assignment.identity.get("roles"):
        raise Terminal(
            "spec.identity.milvus.roles is missing: strategy DualIdentity makes users, and needs to know their roles",
            reason="InvalidSpec",
        )
    if len(assignment.identity["user"]) > LONGEST_PREFIX:
        raise Terminal(
            f"spec.identity.milvus.user is longer than the {LONGEST_PREFIX} characters that leave room for the names "
            "of two users who take turns: shorten it",
            reason="InvalidSpec",
        )
    return MilvusUsers(assignment)
