"""A random token for a proxy in front of a store that knows no keys itself (Chroma): strategy Generate.

The proxy reads the token from the published Secret, so the Secret is where a token lives and where it ends.
"""

from __future__ import annotations

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import numbered
from .passwords import random_token
from .trial import accepted_by_store

DEFAULT_BYTES = 32


class GeneratedTokens:
    """Tokens that nobody but the Secret knows."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.traits = IssuerTraits(
            generates=True,
            provable=bool(assignment.identity.get("verifyThroughStore")),
            known_before_publication=False,
        )

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`."""
        return numbered(self._assignment.owner, revision)

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """A new token."""
        identity = self._assignment.identity
        return KeyMaterial(
            token=random_token(int(identity.get("bytes") or DEFAULT_BYTES), identity.get("prefix") or "")
        )

    async def check(self) -> None:
        """Nothing is needed but the Secret."""

    async def create(self, request: KeyRequest) -> IssuedKey:
        """The token that was drafted: no store has to hear of it."""
        return IssuedKey(request.name, request.draft or self.draft(request))

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether the proxy lets a call pass with this token."""
        return await accepted_by_store(self._assignment.connection, key)

    async def revoke(self, key: LiveKey) -> None:
        """The token ends when the Secret no longer holds it."""

    async def live(self) -> list[LiveKey]:
        """None: no store keeps a list."""
        return []

    async def predecessor(self) -> IssuedKey | None:
        """None: a token in a Secret that was taken over was made by somebody else."""
        return None

    async def close(self) -> None:
        """Nothing is open."""


def open_issuer(assignment: Assignment) -> GeneratedTokens:
    """As every strategy's module has it."""
    return GeneratedTokens(assignment)
