"""The files of a run: credentials and certificates, named as the worker looks for them."""

from __future__ import annotations

from collections.abc import Mapping

from vectorwright.api.v1alpha1.common import Credentials, Tls
from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.api.v1alpha1.ingestion_source import Source
from vectorwright.errors import Terminal

from .connections import CA_KEY, Reference, read_credentials, read_data
from .context import Context
from .handover import RunFile


async def credential_files(
    context: Context, namespace: str, use: str, credentials: Credentials | None, used: list[Reference]
) -> list[RunFile]:
    """Credentials for a use. What is read is added to ``used``. Raises Terminal where a Secret lacks them."""
    if credentials is None:
        return []
    values = await read_credentials(context, namespace, credentials, used)
    named = {
        "token": (credentials.token_key or "token", values.token),
        "username": (credentials.username_key or "username", values.username),
        "password": (credentials.password_key or "password", values.password),
    }
    return [
        RunFile(f"credentials/{use}/{part}", "Secret", credentials.name, key, value.encode())
        for part, (key, value) in named.items()
        if value is not None
    ]


async def authority_files(
    context: Context, namespace: str, use: str, tls: Tls | None, used: list[Reference]
) -> list[RunFile]:
    """The certificate authorities for a use, where the resource names any. ``used`` and errors as above."""
    if tls is None:
        return []
    for kind, named in (("Secret", tls.ca_secret), ("ConfigMap", tls.ca_config_map)):
        if named is not None:
            reference = Reference(kind, namespace, named.name)
            used.append(reference)
            data: Mapping[str, bytes] = await read_data(context, reference)
            key = named.key or CA_KEY
            if key not in data:
                raise Terminal(f"{kind} {namespace}/{named.name} has no key {key!r}", reason=f"{kind}KeyMissing")
            return [RunFile(f"tls/{use}/ca.crt", kind, named.name, key, data[key])]
    return []


async def embedder_files(
    context: Context, namespace: str, spec: EmbeddingModelSpec, used: list[Reference]
) -> list[RunFile]:
    """Credentials and certificates for an embedding model. ``used`` and errors as above."""
    files = await credential_files(context, namespace, "embedder", spec.credentials, used)
    return files + await authority_files(context, namespace, "embedder", spec.tls, used)


async def remote_source_files(context: Context, namespace: str, source: Source, used: list[Reference]) -> list[RunFile]:
    """Credentials and certificates for a source on another machine. ``used`` and errors as above."""
    remote = source.git or source.http
    if remote is None:
        return []
    files = await credential_files(context, namespace, "source", remote.credentials, used)
    return files + await authority_files(context, namespace, "source", remote.tls, used)
