"""Two users of a Weaviate server that take turns: strategy DualIdentity.

Weaviate makes the keys and shows each once; a user has one. A user whose key is to end is deleted with it, and made
anew with its next turn. Both have exactly the roles that the spec names.
"""

from __future__ import annotations

from contextlib import suppress

import httpx

from vectorwright.errors import Conflict, NotFound, Retryable

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import SLOTS, is_slotted, slot_of, slotted
from .weaviate_api import WeaviateUserApi, require_token
from .weaviate_checks import check_rights, check_roles, check_server

_RIGHTS = ("create_users", "delete_users", "read_users")


class WeaviateUsers:
    """The users of one resource. No user of another name is ever changed."""

    traits = IssuerTraits(generates=False)

    def __init__(self, assignment: Assignment, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._owner = assignment.owner
        self._prefix = str(assignment.identity["user"])
        self._roles = sorted(set(assignment.identity.get("roles") or ()))
        self._api = WeaviateUserApi(assignment.connection, transport)

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`."""
        return slotted(self._owner, self._prefix, slot_of(revision))

    def draft(self, request: KeyRequest) -> None:
        """None: Weaviate makes the keys."""
        return

    async def check(self) -> None:
        """As :meth:`.base.KeyIssuer.check`; also ``DynamicUsersDisabled``, ``AuthorizationDisabled``,
        ``RolesUnsupported``."""
        names = [slotted(self._owner, self._prefix, slot) for slot in SLOTS]
        caller, _ = await check_server(self._api, names[0])
        check_rights(self._api, caller, (*_RIGHTS, *(("assign_and_revoke_users",) if self._roles else ())), names)
        await check_roles(self._api, caller, self._roles, slotted(self._owner, self._prefix, "nobody"))

    async def create(self, request: KeyRequest) -> IssuedKey:
        """As :meth:`.base.KeyIssuer.create`. A user that there is already is deleted, and its key with it."""
        await self._require_free(request)
        if self._roles:
            # Before the user is made: one without its roles would be left behind.
            with suppress(NotFound):
                await self._api.assign(request.name, self._roles)
        try:
            token = await self._api.create(request.name)
        except Conflict:
            await self._api.delete(request.name)
            token = await self._created_now(request.name)
        material = KeyMaterial(token=token, username=request.name)
        await self._give_roles(request.name)
        return IssuedKey(request.name, material)

    async def _created_now(self, name: str) -> str:
        try:
            return await self._api.create(name)
        except Conflict:
            raise Retryable(f"{self._api.endpoint}: user {name} is deleted, and not gone yet", after=1) from None

    async def _require_free(self, request: KeyRequest) -> None:
        """Raise Conflict where the published key is that of the user who would be made anew."""
        self._require_ours(request.name)
        current = request.current
        if current is None:
            return
        user = current.username
        if user is None and current.token is not None:
            user = await self._api.owner(current)
        if user == request.name:
            raise Conflict(
                f"user {request.name} has the key that is published: it is not made anew while consumers use it",
                reason="KeyInUse",
            )

    def _require_ours(self, name: str) -> None:
        if not is_slotted(self._owner, name):
            raise Conflict(f"user {name} was not made by this resource: it is left alone", reason="NotOurs")

    async def _give_roles(self, name: str) -> None:
        if self._roles:
            try:
                await self._api.assign(name, self._roles)
            except NotFound:
                raise Retryable(f"{self._api.endpoint} does not know user {name} yet", after=1) from None
        made = await self._api.find(name)
        if made is None:
            raise Retryable(f"{self._api.endpoint}: user {name} went away while it was made", after=1)
        # Roles of a former user of that name, which a restored backup may have brought back.
        if extra := sorted(made.roles - set(self._roles)):
            await self._api.unassign(name, extra)

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether Weaviate tells whose key it is: it refuses nobody whom it knows, whatever the roles."""
        return await self._api.owner(key) is not None

    async def revoke(self, key: LiveKey) -> None:
        """Delete the user. Weaviate refuses its key at once."""
        self._require_ours(key.id)
        await self._api.delete(key.id)

    async def live(self) -> list[LiveKey]:
        """As :meth:`.base.KeyIssuer.live`; also users of another ``user`` that the spec had before."""
        found = {user.name for user in await self._api.users() if user.made and is_slotted(self._owner, user.name)}
        for slot in SLOTS:
            name = slotted(self._owner, self._prefix, slot)
            # Users that the admin may not read are left out of a listing without a word; this one says so.
            if name not in found and await self._api.find(name) is not None:
                found.add(name)
        return [LiveKey(name, name) for name in sorted(found)]

    async def predecessor(self) -> None:
        """None: the users are made by this resource."""
        return

    async def close(self) -> None:
        """Release connections."""
        await self._api.close()


def open_issuer(assignment: Assignment) -> WeaviateUsers:
    """As every strategy's module has it."""
    require_token(assignment)
    return WeaviateUsers(assignment)
