"""One user of a Weaviate server that is given another key: strategy InPlace, where it is asked for.

The key before dies in the moment in which the new one is made, before anybody could read it: consumers are refused
until they have read the Secret again. The user and its roles are nobody's but the person's who made it.
"""

from __future__ import annotations

import httpx

from vectorwright.errors import NotFound, Terminal

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .weaviate_api import WeaviateUserApi, require_token, static_user
from .weaviate_checks import check_rights, check_server


class WeaviateUserInPlace:
    """The key of one user that exists already."""

    traits = IssuerTraits(generates=False, overlaps=False)

    def __init__(self, assignment: Assignment, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._user = str(assignment.identity["user"])
        self._api = WeaviateUserApi(assignment.connection, transport)

    def name_of(self, revision: int) -> str:
        """The user: the same for every revision."""
        return self._user

    def draft(self, request: KeyRequest) -> None:
        """None: Weaviate makes the keys."""
        return

    async def check(self) -> None:
        """As :meth:`.base.KeyIssuer.check`; also ``UserNotFound``, ``UserNotRotatable``, ``DynamicUsersDisabled``,
        ``AuthorizationDisabled``."""
        caller, user = await check_server(self._api, self._user)
        if caller.name == self._user:
            raise Terminal(
                f"{self._api.endpoint}: user {self._user} is the admin of spec.adminCredentials, whose key would no "
                "longer be the one in that Secret: name another user",
                reason="UserNotRotatable",
            )
        if user is None:
            raise self._not_found()
        if not user.made:
            raise static_user(self._api.endpoint, f"user '{user.name}' is static user")
        if not user.active:
            raise Terminal(
                f"{self._api.endpoint}: user {self._user} is not active, and would be refused with every key: activate "
                "it, or name another user",
                reason="UserNotRotatable",
            )
        check_rights(self._api, caller, ("update_users",), (self._user,))

    def _not_found(self) -> Terminal:
        return Terminal(
            f"{self._api.endpoint} has no user {self._user} whose key could be replaced: make it, or correct "
            "spec.identity.weaviate.user",
            reason="UserNotFound",
        )

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Another key for the user. The one before, published or lost, is refused from now on."""
        try:
            token = await self._api.rotate(self._user)
        except NotFound:
            raise self._not_found() from None
        return IssuedKey(self._user, KeyMaterial(token=token, username=self._user))

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether Weaviate tells whose key it is: it refuses nobody whom it knows, whatever the roles."""
        return await self._api.owner(key) is not None

    async def revoke(self, key: LiveKey) -> None:
        """Replace the key by one that nobody learns. The user stays."""
        try:
            await self._api.rotate(self._user)
        except NotFound:
            return

    async def live(self) -> list[LiveKey]:
        """None: the user was made by a person."""
        return []

    async def predecessor(self) -> None:
        """None: the value of its key is not known."""
        return

    async def close(self) -> None:
        """Release connections."""
        await self._api.close()


def open_issuer(assignment: Assignment) -> WeaviateUserInPlace:
    """As every strategy's module has it. Raises Terminal (``InvalidSpec``) where roles are named."""
    require_token(assignment)
    if assignment.identity.get("roles"):
        raise Terminal(
            "spec.identity.weaviate.roles does not go with strategy InPlace, which leaves the user's roles as they "
            "are: leave them out",
            reason="InvalidSpec",
        )
    return WeaviateUserInPlace(assignment)
