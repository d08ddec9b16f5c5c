"""Which module speaks to which provider, and how a store is opened.

SDKs are imported by the provider's own module, and that module only when a store of the provider is opened.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from vectorwright.errors import Terminal

from .base import Capabilities, Store

MODULES: Mapping[str, str] = {
    "pinecone": "vectorwright.stores.pinecone.store",
    "qdrant": "vectorwright.stores.qdrant.store",
    "weaviate": "vectorwright.stores.weaviate.store",
    "milvus": "vectorwright.stores.milvus.store",
    "chroma": "vectorwright.stores.chroma.store",
    "pgvector": "vectorwright.stores.pgvector.store",
    "lance": "vectorwright.stores.lance.access",
    "faiss": "vectorwright.stores.remote",
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
    namespace: str = ""
    """Namespace that records are read and written in; "" is the default one of an index."""

    def same_place(self, other: Connection) -> bool:
        """Whether the other one differs by nothing but credentials and certificates."""
        return replace(other, credentials=self.credentials, tls=self.tls) == self


def open_store(connection: Connection) -> Store:
    """Open a store. No request is made yet.

    Raises Terminal when the provider is unknown (``UnknownProvider``), its SDK is not installed (``MissingExtra``), or
    the connection names a namespace that the store cannot have (``UnsupportedNamespace``).
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
    store = cast("Store", module.open_store(connection))
    check_namespace(connection.namespace, store.capabilities, connection.provider)
    return store


def check_namespace(namespace: str, capabilities: Capabilities, provider: str) -> None:
    """Raise Terminal (``UnsupportedNamespace``) for a namespace that the store cannot have. "" is always fine."""
    if not namespace:
        return
    if not capabilities.namespaces:
        raise Terminal(
            f"namespace {namespace[:100]!r}: {provider} has no namespaces within an index; leave it out, or make an "
            "index of its own",
            reason="UnsupportedNamespace",
        )
    if not re.fullmatch(capabilities.namespace_pattern, namespace):
        raise Terminal(
            f"namespace {namespace[:100]!r} is not one that {provider} takes ({capabilities.namespace_pattern})",
            reason="UnsupportedNamespace",
        )
