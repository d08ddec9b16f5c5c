"""The protocol between the rotation of keys and the stores that make them, and the values that cross it.

A :class:`KeyIssuer` makes the keys of one *identity* in one store: a project's API keys, the login roles of one base
role, the tokens of one server. It decides nothing: when a key is made, published and revoked is the machine's business.
Every method may be called again after a crash at any moment, and raises only the errors of :mod:`vectorwright.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from vectorwright.observability.logs import register_name, register_secret
from vectorwright.stores.base import OwnershipMark
from vectorwright.stores.registry import Connection, StoreCredentials

if TYPE_CHECKING:
    from vectorwright.kube.client import KubeClient


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """The value of a key: a token, or a user name and a password. Its repr shows nothing secret.

    Making one registers its secrets with the log's redaction; its user name, which is the id of a key, is shown.
    """

    token: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        secrets = [secret for secret in (self.token, self.password) if secret]
        for secret in secrets:
            register_secret(secret)
        if self.username and self.username not in secrets:
            register_name(self.username)

    @property
    def parts(self) -> dict[str, str]:
        """``token``, ``username`` and ``password``, those that there are."""
        named = {"token": self.token, "username": self.username, "password": self.password}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def credentials(self) -> StoreCredentials:
        """The same, as a store is opened with it."""
        return StoreCredentials(self.token, self.username, self.password)


@dataclass(frozen=True, slots=True)
class IssuerTraits:
    """What the machine has to know of how keys of a kind come and go."""

    generates: bool
    """Whether we make the value (:meth:`KeyIssuer.draft`): it is kept before the store hears of it. Otherwise the store
    makes it and shows it once."""
    overlaps: bool = True
    """Whether the key before stays valid until it is revoked. False: it dies when the new one is made."""
    revocable: bool = True
    """Whether a key can be revoked. False: it dies when it expires, and not before."""
    expires: bool = False
    """Whether keys have an expiry."""
    leeway: float = 0.0
    """Seconds for which the store still accepts a key that has expired."""
    provable: bool = True
    """Whether a call can tell a valid key from another one."""
    known_before_publication: bool = True
    """Whether a new key is accepted before it is published. False where what checks it reads it from the Secret."""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key that is to be made."""

    revision: int
    """Number of the key, from 1."""
    name: str
    """As :meth:`KeyIssuer.name_of` gave it for this revision."""
    issued_at: datetime
    not_after: datetime | None
    """When it is to expire; None where keys of this kind do not."""
    draft: KeyMaterial | None = None
    """What :meth:`KeyIssuer.draft` gave for it, where it gave something."""
    current: KeyMaterial | None = None
    """The key that is published now, where its value is known."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that was made."""

    id: str
    """Id at the store, never secret: shown in status, events and audit lines."""
    material: KeyMaterial
    not_after: datetime | None = None
    """When it expires, as the store or the key itself says."""


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key of this identity that the store knows, and that this resource made."""

    id: str
    name: str
    revision: int | None = None
    """Where the name tells it."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything that an issuer is opened with."""

    connection: Connection
    """How the store is reached. Its credentials are the admin's, empty where the spec names none."""
    identity: Mapping[str, Any]
    """The block of ``spec.identity`` that is set, as JSON (camelCase)."""
    owner: OwnershipMark
    """This resource: names of keys are derived from it."""
    client: KubeClient | None = None
    """The API server, for keys that a workload of the cluster holds."""


class KeyIssuer(Protocol):
    """Makes, proves and revokes the keys of one identity."""

    traits: IssuerTraits

    def name_of(self, revision: int) -> str:
        """Name of the key of a revision at the store: the same for the same resource and revision, for ever.

        Identities that take turns have two names, by ``revision % 2``.
        """
        ...

    def draft(self, request: KeyRequest) -> KeyMaterial | None:
        """The value of a key to be made, where we make it (``traits.generates``); no call, another one each time."""
        ...

    async def check(self) -> None:
        """Whether the admin's credentials may make such keys, and what the spec names exists. Changes nothing.

        Raises Terminal (``AccessDenied``, ``AdminRightMissing``, ``RoleNotFound``, ``ProjectNotFound``,
        ``UnsupportedVersion`` …), Retryable.
        """
        ...

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Make the key. Whatever has this name already was made by an attempt whose value is lost, or with this very
        draft: it is deleted and made again, or brought to the draft.

        May take several calls: Retryable (``InProgress``) with ``after`` asks for the next one.
        Raises Terminal, Retryable, Conflict.
        """
        ...

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether the store accepts a key, by a real call that needs it. False only when it was refused for what it is
        (401, 403, PostgreSQL's class 28). Everything else raises: Retryable, Terminal.
        """
        ...

    async def revoke(self, key: LiveKey) -> None:
        """End a key of this resource. Fine when it is gone already. May be asynchronous at the store.

        Where keys do not overlap (in place) it ends the one that is in use: for the very end only, never for the key
        before. May take several calls, as :meth:`create`. Raises Terminal, Retryable.
        """
        ...

    async def live(self) -> list[LiveKey]:
        """The keys that this resource made and that the store still knows, by their names. Never another's.

        Raises Terminal, Retryable.
        """
        ...

    async def predecessor(self) -> IssuedKey | None:
        """The key that was in use before the first rotation, where the spec hands it over by naming it; else None."""
        ...

    async def close(self) -> None:
        """Close connections. The issuer is not used afterwards."""
        ...
