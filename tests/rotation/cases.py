"""What the common suite of key issuers asks of a strategy and store. A case is a class in a module of ``issuers/``.

A module there names its classes in ``CASES``; nothing else has to be touched.

Keys in place (``traits.overlaps`` false): the identity was made by people, ``name_of`` is its name for every revision,
``live()`` is empty before the first key (what it lists may be swept), and ``revoke`` ends the key that is in use now:
it is called at the very end only, never for the key before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Protocol

import pytest
from tests.rotation.exchanges import Exchanges, Front

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import (
    Assignment,
    IssuerTraits,
    KeyIssuer,
    KeyMaterial,
    KeyRequest,
)
from vectorwright.stores.base import OwnershipMark

METHODS = frozenset({"check", "create", "accepts", "revoke", "live"})
LIFETIME = timedelta(hours=1)
"""Of keys that expire."""
BY_HAND = "by-hand-of-the-tests"
"""Name of the key that ``make_by_hand`` makes where people name keys as they like."""
OURS = ("vw-team-a-", BY_HAND)
"""How names begin of keys that these tests make: in a place that is used for more, those of others are let be."""


class IssuerCase(ABC):
    """One identity at one real server (or double), made once a test. ``name`` of an assignment is the resource's name:
    each has its own keys."""

    id: ClassVar[str]
    """``postgres-DualIdentity``: of the parametrized tests."""
    identity: ClassVar[str]
    """Key of :data:`vectorwright.rotation.registry.KINDS`."""
    strategy: ClassVar[Strategy]
    traits: ClassVar[IssuerTraits]
    """As the issuer is to have them. Tests are chosen by them."""
    calls: ClassVar[frozenset[str]] = METHODS
    """The methods that ask the server. Those that do not cannot fail with it; without ``live`` no keys are listed."""
    refusal_seconds: ClassVar[float] = 5.0
    """Within this time a revoked key must be refused."""
    acceptance_seconds: ClassVar[float] = 5.0
    """Within this time a new key must be accepted."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.request = request
        self.exchanges = Exchanges()
        self._fronts: dict[tuple[str, int], Front] = {}

    @abstractmethod
    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        """What an issuer is opened with: the admin's credentials, and every address through :meth:`through`.

        ``identity`` changes fields of the identity's block. The connection's time-out is 10 s or less.
        """

    def through(self, host: str, port: int) -> tuple[str, int]:
        """Host and port that stand before a server, so that tests can cut the issuer off. The same for the same."""
        if (host, port) not in self._fronts:
            self._fronts[host, port] = self.exchanges.front(host, port)
        front = self._fronts[host, port]
        return front.host, front.port

    @abstractmethod
    async def use(self, key: KeyMaterial) -> bool:
        """Whether a consumer's call succeeds: by the vendor's client, not by our code, beside the fronts."""

    @abstractmethod
    async def make_by_hand(self) -> KeyMaterial:
        """A key that is no resource's, in the same project, account or server: as a person makes it."""

    @abstractmethod
    async def inventory(self) -> set[str]:
        """Names (as ``name_of`` gives them) of all keys at the server that are not revoked, the admin's left out; by
        another way than our code. Whoever made them."""

    async def published(self, *keys: KeyMaterial) -> None:  # noqa: B027 - most servers know by themselves
        """What the Secret holds now: for servers that read their keys from it (``known_before_publication`` false)."""

    # What a check refuses. A case leaves out what its store does not have.

    def wrong_admin(self) -> Assignment:
        """Credentials of an admin that the server refuses."""
        raise NotImplementedError

    def without_right(self) -> Assignment:
        """Credentials of an admin that are valid and may not make keys."""
        raise NotImplementedError

    right_reasons: ClassVar[frozenset[str]] = frozenset({"AdminRightMissing"})
    """What is said then. ``AccessDenied`` only where the store does not tell the two apart."""

    def missing_role(self) -> Assignment:
        """A role, or whatever else the identity names and the server must have, that does not exist."""
        raise NotImplementedError

    missing_reason: ClassVar[str] = "RoleNotFound"

    def changed_identity(self) -> dict[str, Any]:
        """What :meth:`assignment` takes for another identity of the same resource: another role, another user."""
        raise NotImplementedError

    async def predecessor_named(self) -> tuple[Assignment, KeyMaterial]:
        """A resource that names the key in use before it, where its identity can; and that key."""
        raise NotImplementedError

    def secrets(self) -> list[str]:
        """Values of the admin that must show nowhere."""
        credentials = self.assignment().connection.credentials
        return [value for value in (credentials.token, credentials.password) if value]

    def close(self) -> None:
        """What the fixtures of ``request`` do not end by themselves. Call it from an override."""
        self.exchanges.close()

    # Helpers of the tests.

    @classmethod
    def has(cls, method: str) -> bool:
        """Whether the case overrides one of the above."""
        return getattr(cls, method) is not getattr(IssuerCase, method)

    @property
    def in_place(self) -> bool:
        """Whether a new key ends the one before."""
        return not self.traits.overlaps

    def other(self, key: KeyMaterial) -> KeyMaterial:
        """A key like ``key`` that was never made."""
        return KeyMaterial(
            token=None if key.token is None else _spoiled(key.token),
            username=key.username,
            password=None if key.password is None else _spoiled(key.password),
        )


def _spoiled(secret: str) -> str:
    """As long, of the same letters, and another one: the letters of each half change their sides."""
    middle = len(secret) // 2
    return secret[:middle].swapcase() + secret[middle:][::-1]


def key_request(
    issuer: KeyIssuer, revision: int, current: KeyMaterial | None = None, draft: KeyMaterial | None = None
) -> KeyRequest:
    """A key that is to be made now, with a draft where the issuer makes one."""
    now = datetime.now(UTC).replace(microsecond=0)
    made = KeyRequest(
        revision, issuer.name_of(revision), now, now + LIFETIME if issuer.traits.expires else None, current=current
    )
    return replace(made, draft=draft or issuer.draft(made))


def owner(name: str, installation: str = "tests") -> OwnershipMark:
    """The mark of a resource of tests. ``installation`` is one of the test's own where its server is not."""
    return OwnershipMark(installation, "team-a", name)


class OpenIssuer(Protocol):
    """The fixture ``open_issuer``."""

    def __call__(self, assignment: Assignment | None = None) -> KeyIssuer: ...
