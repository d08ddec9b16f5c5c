"""Which module makes which keys. SDKs are imported by those modules, and those only when such a key is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.errors import Terminal

from .base import Assignment, KeyIssuer


@dataclass(frozen=True, slots=True)
class IdentityKind:
    """A block of ``spec.identity``: the providers and strategies that it goes with."""

    providers: frozenset[str]
    """Provider keys of a VectorStore; empty for every one."""
    modules: Mapping[Strategy, str]
    """Strategy → module with ``open_issuer(assignment) -> KeyIssuer``. The first is the default."""
    needs_admin: bool = True

    @property
    def default(self) -> Strategy:
        """The strategy where the spec names none: never InPlace."""
        return next(iter(self.modules))


def _kind(providers: tuple[str, ...], modules: Mapping[Strategy, str], *, needs_admin: bool = True) -> IdentityKind:
    full = {strategy: f"vectorwright.rotation.{module}" for strategy, module in modules.items()}
    return IdentityKind(frozenset(providers), full, needs_admin)


KINDS: Mapping[str, IdentityKind] = {
    "pinecone": _kind(("pinecone",), {Strategy.DUAL_KEY: "pinecone_keys"}),
    "qdrantToken": _kind(("qdrant",), {Strategy.TOKEN: "qdrant_tokens"}),
    "qdrantCloud": _kind(("qdrant",), {Strategy.DUAL_KEY: "qdrant_cloud_keys"}),
    "qdrantServer": _kind(("qdrant",), {Strategy.DUAL_KEY: "qdrant_server_keys"}, needs_admin=False),
    "weaviate": _kind(
        ("weaviate",), {Strategy.DUAL_IDENTITY: "weaviate_users", Strategy.IN_PLACE: "weaviate_in_place"}
    ),
    "milvus": _kind(("milvus",), {Strategy.DUAL_IDENTITY: "milvus_users", Strategy.IN_PLACE: "milvus_in_place"}),
    "postgres": _kind(
        ("pgvector",), {Strategy.DUAL_IDENTITY: "postgres_roles", Strategy.IN_PLACE: "postgres_in_place"}
    ),
    "generated": _kind((), {Strategy.GENERATE: "generated"}, needs_admin=False),
}
"""By the key of ``spec.identity``."""


def choose(identity: str, provider: str, strategy: Strategy | None) -> Strategy:
    """The strategy in effect. Raises Terminal (``InvalidSpec``) for what does not go together."""
    kind = KINDS[identity]
    if kind.providers and provider not in kind.providers:
        fitting = ", ".join(name for name, other in KINDS.items() if not other.providers or provider in other.providers)
        raise Terminal(
            f"spec.identity.{identity} does not go with a store of provider {provider}: set one of {fitting}",
            reason="InvalidSpec",
        )
    chosen = strategy or kind.default
    if chosen not in kind.modules:
        raise Terminal(
            f"spec.strategy: {chosen} does not go with spec.identity.{identity}, which takes {', '.join(kind.modules)}",
            reason="InvalidSpec",
        )
    return chosen


def open_issuer(identity: str, strategy: Strategy, assignment: Assignment) -> KeyIssuer:
    """Open an issuer; no call is made yet. Raises Terminal, among others ``MissingExtra`` without the store's SDK."""
    try:
        module = importlib.import_module(KINDS[identity].modules[strategy])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vectorwright"):
            raise
        provider = assignment.connection.provider
        raise Terminal(
            f"keys of {provider} need the package {error.name!r}: install vectorwright[{provider}]",
            reason="MissingExtra",
        ) from None
    return cast("KeyIssuer", module.open_issuer(assignment))
