"""Tokens for a self-hosted Qdrant server, signed with its API key: strategy Token.

The server keeps no list of tokens. One is valid while it is not older than its ``exp`` (and :data:`LEEWAY`), while the
API key that signed it is one of the server's two, and, with a revocation collection, while its point is in there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from vectorwright.errors import Conflict, Terminal
from vectorwright.stores.qdrant.transport import QdrantApi

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import numbered, revision_of
from .passwords import random_token
from .qdrant_jwt import claims_of, sign
from .qdrant_revocation import MARK, NAME, Entry, RevocationList, conditions
from .qdrant_trial import refusal, require_version

LEEWAY = 31.0
"""Seconds for which an expired token is taken: the server allows 30, and both clocks are read in whole seconds."""
OLDEST = (1, 13)
"""Of the store. Tokens came with 1.9."""
AHEAD = timedelta(seconds=60)
"""A token that lives so long must be taken at once: the server's clock is less than this and the leeway ahead."""
BEHIND = timedelta(seconds=90)
"""A token that expired so long ago must be refused: the server's clock is less than this, without the leeway, behind.
"""
_FIELD = "spec.identity.qdrantToken"


class QdrantTokens:
    """Tokens of one identity. The admin's ``token`` is the server's API key, or its alternative one."""

    def __init__(self, assignment: Assignment) -> None:
        self._connection = assignment.connection
        self._identity = assignment.identity
        self._owner = assignment.owner
        key = assignment.connection.credentials.token
        if not key:
            raise Terminal(
                "spec.adminCredentials: the Secret holds no token: it must be the server's API key, which signs tokens",
                reason="MissingCredentials",
            )
        self._signing = KeyMaterial(token=key)
        self._api = QdrantApi(assignment.connection)
        collection = assignment.identity.get("revocationCollection")
        self._list = (
            RevocationList(self._api, assignment.connection.timeout, str(collection), assignment.owner)
            if collection
            else None
        )
        self.traits = IssuerTraits(generates=True, revocable=self._list is not None, expires=True, leeway=LEEWAY)

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`."""
        return numbered(self._owner, revision)

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """The token. With a revocation collection it is valid when :meth:`create` has written its point, not before."""
        if request.not_after is None:
            raise Terminal("a token needs an expiry: set spec.keyLifetime", reason="InvalidSpec")
        claims: dict[str, Any] = {
            "exp": int(request.not_after.timestamp()),
            "access": self._access(),
            "subject": str(self._identity.get("subject") or f"{self._owner.namespace}/{self._owner.name}"),
        }
        if self._list is not None:
            matches = conditions(request.name, secrets.token_hex(8))
            claims["value_exists"] = {"collection": self._list.collection, "matches": matches}
        return self._signed(claims)

    async def check(self) -> None:
        """Raises Terminal (``AccessDenied``, ``AdminRightMissing``, ``AuthorizationDisabled``, ``JwtNotEnabled``,
        ``ClockSkew``, ``UnsupportedVersion``, ``InvalidSpec``), Retryable.
        """
        await require_version(self._connection, OLDEST, "a token")
        if told := await refusal(self._connection, self._signing.token):
            raise Terminal(told, reason="AccessDenied")
        place = self._api.endpoint
        if await refusal(self._connection, random_token()) is None:
            raise Terminal(
                f"{place} takes any key: give the server an API key (service.api_key) and service.jwt_rbac: true",
                reason="AuthorizationDisabled",
            )
        if told := await refusal(self._connection, self._probe(AHEAD)):
            raise self._not_taken(told)
        if await refusal(self._connection, self._probe(-BEHIND)) is None:
            raise Terminal(
                f"{place} takes a token that expired {BEHIND.seconds} seconds ago: its clock is behind the operator's, "
                "so tokens live longer than they should; set the clocks",
                reason="ClockSkew",
            )
        if self._list is not None:
            await self._list.check()

    def _not_taken(self, told: str) -> Terminal:
        """Why a token that was signed this moment is refused, while its signing key is taken."""
        place = self._api.endpoint
        if "ExpiredSignature" in told:
            return Terminal(
                f"{place} takes a token for expired that has {AHEAD.seconds} seconds to live: its clock is ahead of "
                "the operator's; set the clocks",
                reason="ClockSkew",
            )
        if "InvalidSignature" in told:
            return Terminal(
                f"{place} takes the token of spec.adminCredentials as a key, but not what it signs: it must be "
                "service.api_key or service.alt_api_key, neither a read-only key nor a token",
                reason="AdminRightMissing",
            )
        return Terminal(
            f"{place} takes keys, but no tokens: set service.jwt_rbac to true "
            "(QDRANT__SERVICE__JWT_RBAC) and restart it",
            reason="JwtNotEnabled",
        )

    async def create(self, request: KeyRequest) -> IssuedKey:
        """The token that was drafted; signed again where the admin's key has changed since.

        Raises Terminal, Retryable, and Conflict for the name of the token that is published.
        """
        drafted = claims_of(request.draft.token) if request.draft is not None else None
        material = self._signed(drafted) if drafted is not None else self.draft(request)
        claims = drafted or claims_of(material.token) or {}
        expires = datetime.fromtimestamp(claims["exp"], UTC)
        if self._list is not None:
            mark, published = _mark(claims, request.name), claims_of(request.current.token if request.current else None)
            if mark is None:
                raise Terminal(f"the token drafted for {request.name} is not one of it", reason="InvalidRequest")
            if published is not None and published != claims and _mark(published, request.name) is not None:
                raise Conflict(
                    f"token {request.name} is published: another one of its name would end it", reason="KeyInUse"
                )
            await self._list.add(Entry(request.name, mark, expires))
        return IssuedKey(request.name, material, expires)

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether the server takes the token."""
        return await refusal(self._connection, key.token) is None

    async def revoke(self, key: LiveKey) -> None:
        """Delete the point of the token; without a revocation collection it ends when it expires, and this does
        nothing."""
        if self._list is not None:
            await self._list.remove(key.id)

    async def live(self) -> list[LiveKey]:
        """The tokens that have a point; none without a revocation collection: no list is kept."""
        if self._list is None:
            return []
        revisions = {name: revision_of(self._owner, name) for name in await self._list.names()}
        return [LiveKey(name, name, revision) for name, revision in revisions.items() if revision is not None]

    async def predecessor(self) -> IssuedKey | None:
        """None: nothing names an earlier token."""
        return None

    async def close(self) -> None:
        """Close the connection. Safe to call twice."""
        await self._api.close()

    def _access(self) -> str | list[dict[str, str]]:
        collections: list[Mapping[str, str]] | None = self._identity.get("collections")
        if collections:
            return [{"collection": one["collection"], "access": one["access"]} for one in collections]
        access = self._identity.get("access")
        if access not in {"r", "m"}:
            raise Terminal(f"{_FIELD}: set access or collections", reason="InvalidSpec")
        return str(access)

    def _probe(self, life: timedelta) -> str:
        """A token for a trial: it may read for a moment, and is shown to nobody but the server."""
        return sign({"exp": int((datetime.now(UTC) + life).timestamp()), "access": "r"}, self._signing.token or "")

    def _signed(self, claims: Mapping[str, Any]) -> KeyMaterial:
        return KeyMaterial(token=sign(claims, self._signing.token or ""))


def _mark(claims: Mapping[str, Any], name: str) -> str | None:
    """The mark of a token of that name."""
    matches = (claims.get("value_exists") or {}).get("matches") or []
    found = {match.get("key"): match.get("value") for match in matches}
    mark = found.get(MARK)
    return mark if found.get(NAME) == name and isinstance(mark, str) else None


def open_issuer(assignment: Assignment) -> QdrantTokens:
    """As every strategy's module has it."""
    return QdrantTokens(assignment)
