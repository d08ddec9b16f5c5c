"""From a VectorStore or EmbeddingModel and its Secrets to what is needed to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import orjson

from vectorwright.api.v1alpha1.common import Credentials, Tls, seconds
from vectorwright.api.v1alpha1.vectorstore import VectorStoreSpec
from vectorwright.errors import Terminal
from vectorwright.observability.logs import register_secret
from vectorwright.stores.registry import Connection, StoreCredentials, TlsSettings

from .cache import Key
from .digests import secret_digest

DEFAULT_TIMEOUT = 30.0
DEFAULT_CONCURRENCY = 8
CA_KEY = "ca.crt"


class DataSource(Protocol):
    """Where the data of Secrets, or of ConfigMaps, comes from."""

    async def get(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """The data of one object; None when it does not exist."""
        ...


class LocalSockets(Protocol):
    """Where stores that run beside the operator listen."""

    async def socket(self, path: str | None) -> Path:
        """The Unix socket of the server that owns ``path``; None means the store in memory."""
        ...


class Credentialed(Protocol):
    """Whoever can read credentials: the operator through its watches, a command through single requests."""

    @property
    def secrets(self) -> DataSource:
        """Secrets."""
        ...

    @property
    def config_maps(self) -> DataSource:
        """ConfigMaps."""
        ...

    @property
    def local_stores(self) -> LocalSockets | None:
        """Stores beside the operator, where there are any."""
        ...


class Reader(Protocol):
    """Who remembers which Secrets and ConfigMaps each object reads."""

    @property
    def uses(self) -> dict[Key, frozenset[tuple[str, str, str]]]:
        """(kind, namespace, name) by object."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """A Secret or ConfigMap that an object reads."""

    kind: str
    namespace: str
    name: str


async def read_data(context: Credentialed, reference: Reference) -> Mapping[str, bytes]:
    """What a Secret or ConfigMap holds. Raises Terminal (``SecretNotFound``, ``ConfigMapNotFound``), Retryable."""
    watched = context.secrets if reference.kind == "Secret" else context.config_maps
    data = await watched.get(reference.namespace, reference.name)
    if data is None:
        raise Terminal(
            f"{reference.kind} {reference.namespace}/{reference.name} does not exist: create it",
            reason=f"{reference.kind}NotFound",
        )
    return data


def _text(data: Mapping[str, bytes], key: str, reference: Reference) -> str:
    if key not in data:
        known = ", ".join(sorted(data)) or "none"
        raise Terminal(
            f"{reference.kind} {reference.namespace}/{reference.name} has no key {key!r} (it has: {known})",
            reason=f"{reference.kind}KeyMissing",
        )
    try:
        text = data[key].decode().strip()
    except UnicodeDecodeError:
        raise Terminal(
            f"{reference.kind} {reference.namespace}/{reference.name}, key {key!r}: not UTF-8 text",
            reason=f"{reference.kind}KeyInvalid",
        ) from None
    if not text:
        raise Terminal(
            f"{reference.kind} {reference.namespace}/{reference.name}, key {key!r} is empty",
            reason=f"{reference.kind}KeyInvalid",
        )
    return text


async def read_credentials(
    context: Credentialed, namespace: str, credentials: Credentials | None, used: list[Reference]
) -> StoreCredentials:
    """What the Secret holds: each key that is named must be there; of the usual ones, those that are.

    ``used`` is told of the Secret before it is read, so that its arrival wakes who waits for it.
    Raises Terminal (``SecretNotFound``, ``SecretKeyMissing``, ``SecretKeyInvalid``).
    """
    if credentials is None:
        return StoreCredentials()
    reference = Reference("Secret", namespace, credentials.name)
    used.append(reference)
    data = await read_data(context, reference)
    values: dict[str, str | None] = {}
    for part, named in (
        ("token", credentials.token_key),
        ("username", credentials.username_key),
        ("password", credentials.password_key),
    ):
        wanted = named or (part if part in data else None)
        values[part] = _text(data, wanted, reference) if wanted else None
    if not any(values.values()):
        raise Terminal(
            f"Secret {namespace}/{credentials.name} has none of the keys token, username, password "
            f"(it has: {', '.join(sorted(data)) or 'none'}): add one, or name the key in the credentials block",
            reason="SecretKeyMissing",
        )
    for secret in (values["token"], values["password"]):
        if secret:
            register_secret(secret)
    return StoreCredentials(**values)


async def read_tls(context: Credentialed, namespace: str, tls: Tls | None, used: list[Reference]) -> TlsSettings:
    """The TLS settings with the certificate authorities read. ``used`` and errors as :func:`read_credentials`."""
    if tls is None:
        return TlsSettings()
    authority = None
    for kind, named in (("Secret", tls.ca_secret), ("ConfigMap", tls.ca_config_map)):
        if named is not None:
            reference = Reference(kind, namespace, named.name)
            used.append(reference)
            authority = _text(await read_data(context, reference), named.key or CA_KEY, reference)
    return TlsSettings(authority, tls.server_name, bool(tls.insecure_skip_verify))


def remember_uses(context: Reader, key: Key, references: list[Reference]) -> None:
    """Record which Secrets and ConfigMaps an object reads, so that it is woken when one of them changes."""
    used = frozenset((item.kind, item.namespace, item.name) for item in references)
    if used:
        context.uses[key] = used
    else:
        context.uses.pop(key, None)


async def _provider_settings(context: Credentialed, spec: VectorStoreSpec) -> dict[str, object]:
    """The provider's block as JSON, with stores that run beside the operator resolved to their socket."""
    provider = spec.provider
    block = getattr(spec, provider).dump()
    if "path" not in block and not block.get("local"):
        return dict(block)
    if context.local_stores is None:
        raise Terminal(
            f"spec.{provider}: a store beside the operator needs the operator's --local-stores DIR; "
            f"otherwise set spec.{provider}.server to the address of a vectorwright store-server",
            reason="LocalStoresNotAllowed",
        )
    socket = await context.local_stores.socket(block.get("path"))
    return {**block, "server": f"unix://{socket}"}


def provider_of(spec: VectorStoreSpec) -> str:
    """The one provider key that is set. Raises Terminal (``InvalidSpec``) when none or several are."""
    try:
        return spec.provider
    except ValueError as error:
        raise Terminal(str(error), reason="InvalidSpec") from None


async def store_address(context: Credentialed, key: Key, spec: VectorStoreSpec, used: list[Reference]) -> Connection:
    """How a store is reached, without credentials. Raises Terminal when the provider or a certificate is wrong."""
    provider = provider_of(spec)
    tls = await read_tls(context, key.namespace, spec.tls, used)
    limits = spec.limits
    return Connection(
        provider=provider,
        settings=await _provider_settings(context, spec),
        tls=tls,
        timeout=seconds(limits.timeout) if limits and limits.timeout else DEFAULT_TIMEOUT,
        max_concurrency=(limits.max_concurrency if limits else None) or DEFAULT_CONCURRENCY,
    )


async def store_connection(
    context: Credentialed, key: Key, spec: VectorStoreSpec, used: list[Reference], *, data: bool = False
) -> Connection:
    """How to open a store with its control credentials, or (``data``) with those for workers.

    Raises Terminal when the provider, a Secret or a certificate is wrong.
    """
    provider_of(spec)
    chosen = (spec.data_credentials or spec.control_credentials) if data else spec.control_credentials
    credentials = await read_credentials(context, key.namespace, chosen, used)
    return replace(await store_address(context, key, spec, used), credentials=credentials)


def connection_digest(connection: Connection) -> str:
    """Changes whenever anything of a connection does, credentials included. Tells nothing of their values."""
    credentials = connection.credentials
    content = orjson.dumps(
        [
            connection.provider,
            connection.settings,
            [credentials.token, credentials.username, credentials.password],
            [connection.tls.ca, connection.tls.server_name, connection.tls.insecure_skip_verify],
            connection.timeout,
            connection.max_concurrency,
        ],
        option=orjson.OPT_SORT_KEYS,
    )
    return secret_digest(content)
