"""Which module speaks to which provider, and how a store is opened.

SDKs are imported by the provider's own module, and that module only when a store of the provider is opened.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from vectorwright.errors import Terminal

from .base import Store

MODULES: Mapping[str, str] = {
    "chroma": "vectorwright.stores.chroma.store",
    "pgvector": "vectorwright.stores.pgvector.store",
    "lance": "vectorwright.stores.remote",
    "memory": "vectorwright.stores.remote",
}
"""Provider key of a VectorStore → module with ``open_store(connection) -> Store``."""


@dataclass(frozen=True, slots=True)
class StoreCredentials:
    """What a Secret held. Its repr shows nothing."""

    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How a server is verified. ``ca`` is a PEM bundle; None trusts the system's authorities."""

    ca: str | None = None
    server_name: str | None = None
    insecure_skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything that is needed to open a store."""

    provider: str
    settings: Mapping[str, Any]
    """The provider's block of the VectorStore, as JSON (camelCase), with local paths and sockets resolved.

    For stores behind a store server: ``server`` is ``http(s)://…`` or ``unix:///path/to/socket``.
    """
    credentials: StoreCredentials = field(default_factory=StoreCredentials)
    tls: TlsSettings = field(default_factory=TlsSettings)
    timeout: float = 30.0
    """Seconds that one request may take."""
    max_concurrency: int = 8
    """Requests in flight."""


def open_store(connection: Connection) -> Store:
    """Open a store. No request is made yet.

    Raises Terminal (``UnknownProvider``, ``MissingExtra``) when the provider is unknown or its SDK is not installed.
    """
    module_name = MODULES.get(connection.provider)
    if module_name is None:
        raise Terminal(
            f"provider {connection.provider!r} is not known; known are {', '.join(sorted(MODULES))}",
            reason="UnknownProvider",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vectorwright"):
            raise
        raise Terminal(
            f"the {connection.provider} provider needs the package {error.name!r}: "
            f"install vectorwright[{connection.provider}]",
            reason="MissingExtra",
        ) from None
    return cast("Store", module.open_store(connection))
