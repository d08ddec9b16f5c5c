"""Where tables in a bucket are, and how the two libraries that reach it are told: :mod:`obstore` for the small objects
of our own, :mod:`lancedb` for the tables. Neither is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from vectorwright.errors import Terminal

from ..registry import Connection

PLACES = ("s3", "gcs", "azure")
RETRIES = 2
"""Times that a request is sent again after 429, 5xx or a lost connection, with backoff; then the caller is told."""
RETRY_SECONDS = 10
"""Seconds after which it is not sent again, whatever the number of times."""
_SCHEMES = {"s3": "s3", "gcs": "gs", "azure": "az"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place for tables. Nothing that it shows holds a credential."""

    kind: str
    """s3, gcs or azure."""
    name: str
    """The bucket, or the container."""
    prefix: str
    """Folder in it, without slashes at its ends; "" is all of it."""
    endpoint: str | None
    account: str | None
    timeout: float
    obstore: Mapping[str, Any] = field(repr=False)
    """Configuration for obstore."""
    lance: Mapping[str, str] = field(repr=False)
    """Storage options for lancedb."""
    client: Mapping[str, Any] = field(repr=False)
    """Options of obstore's HTTP client."""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def uri(self) -> str:
        """Where the tables are, as lancedb names it."""
        return "/".join(filter(None, [f"{_SCHEMES[self.kind]}://{self.name}", self.prefix]))

    @property
    def label(self) -> str:
        """The same for people."""
        where = self.endpoint or (f"account {self.account}" if self.account else "")
        return f"{self.uri} at {where}" if where else self.uri

    def key(self, *parts: str) -> str:
        """The key of an object below the prefix."""
        return "/".join([*([self.prefix] if self.prefix else []), *parts])

    def retry(self) -> dict[str, Any]:
        """How obstore tries again."""
        first, most = timedelta(seconds=min(0.1, self.timeout / 10)), timedelta(seconds=2)
        return {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=min(RETRY_SECONDS, self.timeout)),
            "backoff": {"init_backoff": first, "max_backoff": most, "base": 2},
        }


def bucket_of(connection: Connection) -> Bucket | None:
    """The place that the settings name; None where they name a store server.

    Raises Terminal (``InvalidSpec``, ``TLSNotSupported``) where they contradict themselves.
    """
    settings = connection.settings
    named = [kind for kind in PLACES if settings.get(kind) is not None]
    if not named:
        return None
    if len(named) > 1 or settings.get("server") or settings.get("path"):
        raise Terminal("lance: exactly one of server, path, s3, gcs and azure is needed")
    if connection.tls.ca or connection.tls.server_name:
        raise Terminal(
            "lance in a bucket trusts the authorities of the image, and no other name than the endpoint's: leave out "
            "tls.caSecret, tls.caConfigMap and tls.serverName",
            reason="TLSNotSupported",
        )
    match named[0]:
        case "s3":
            return _s3(connection, settings["s3"])
        case "gcs":
            return _gcs(connection, settings["gcs"])
    return _azure(connection, settings["azure"])


def _place(
    connection: Connection,
    kind: str,
    name: str,
    block: Mapping[str, Any],
    shared: Mapping[str, str | None],
    *,
    lance_prefix: str,
) -> Bucket:
    """``shared`` is what both libraries are told, by obstore's names; lancedb's begin with ``lance_prefix``."""
    credentials = connection.credentials
    endpoint = (block.get("endpoint") or "").rstrip("/") or None
    told = {key: value for key, value in shared.items() if value is not None}
    plain = bool(endpoint and endpoint.startswith("http://"))
    seconds = connection.timeout
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=min(seconds, 5.0)),
    }
    lance = {f"{lance_prefix}{key}": value for key, value in told.items()}
    lance |= {
        "timeout": f"{seconds:g}s",
        "connect_timeout": f"{min(seconds, 5.0):g}s",
        "client_max_retries": str(RETRIES),
        "client_retry_timeout": str(RETRY_SECONDS),
        "download_retry_count": "0",  # the ones above are enough; by default each of those is tried four times
    }
    if plain:
        client["allow_http"] = True
        lance["allow_http"] = "true"
    if connection.tls.insecure_skip_verify:
        client["allow_invalid_certificates"] = True
        lance["allow_invalid_certificates"] = "true"
    return Bucket(
        kind=kind,
        name=name,
        prefix=(block.get("prefix") or "").strip("/"),
        endpoint=endpoint,
        account=block.get("account"),
        timeout=seconds,
        obstore=told,
        lance=lance,
        client=client,
        secrets=tuple(filter(None, (credentials.token, credentials.username, credentials.password))),
    )


def _s3(connection: Connection, block: Mapping[str, Any]) -> Bucket:
    """username is the access key's id, password the secret access key, token the session token; without any, the
    pod's own identity (a role for its service account, or the machine's)."""
    credentials = connection.credentials
    given = (credentials.username, credentials.password)
    if any(given) and not all(given):
        raise Terminal(
            "lance on S3 needs both parts of an access key: username (its id) and password (the secret access key)",
            reason="MissingCredentials",
        )
    if credentials.token and not all(given):
        raise Terminal(
            "lance on S3: token is a session token and goes with an access key (username and password)",
            reason="MissingCredentials",
        )
    endpoint = (block.get("endpoint") or "").rstrip("/") or None
    virtual = block.get("virtualHosted")
    if virtual is None:
        virtual = endpoint is None
    if virtual and endpoint is not None:
        # With an endpoint, both libraries expect the bucket in its host name.
        scheme, _, host = endpoint.partition("://")
        if not host.startswith(f"{block['bucket']}."):
            endpoint = f"{scheme}://{block['bucket']}.{host}"
    encryption = block.get("serverSideEncryption") or {}
    shared: dict[str, str | None] = {
        "access_key_id": credentials.username,
        "secret_access_key": credentials.password,
        "session_token": credentials.token,
        # A server of one's own takes any region that it was told; this is what they are told by default.
        "region": block.get("region") or ("us-east-1" if endpoint else None),
        "endpoint": endpoint,
        "virtual_hosted_style_request": "true" if virtual else "false",
        "server_side_encryption": encryption.get("algorithm"),
        "sse_kms_key_id": encryption.get("kmsKeyId"),
        "sse_bucket_key_enabled": "true" if encryption.get("bucketKey") else None,
    }
    return _place(connection, "s3", block["bucket"], block, shared, lance_prefix="aws_")


def _gcs(connection: Connection, block: Mapping[str, Any]) -> Bucket:
    """token is the JSON of a service account's key; without one, the pod's own identity."""
    shared: dict[str, str | None] = {"service_account_key": connection.credentials.token}
    return _place(connection, "gcs", block["bucket"], block, shared, lance_prefix="google_")


def _azure(connection: Connection, block: Mapping[str, Any]) -> Bucket:
    """password is the account's key, or token a shared access signature; without either, the pod's own identity."""
    credentials = connection.credentials
    if credentials.password and credentials.token:
        raise Terminal("lance on Azure needs one of password (the account's key) and token (a shared access signature)")
    shared: dict[str, str | None] = {
        "account_name": block["account"],
        "account_key": credentials.password,
        "endpoint": (block.get("endpoint") or "").rstrip("/") or None,
    }
    place = _place(connection, "azure", block["container"], block, shared, lance_prefix="azure_storage_")
    if not credentials.token:
        return place
    signature = credentials.token.removeprefix("?")
    return Bucket(
        **{
            **{name: getattr(place, name) for name in Bucket.__dataclass_fields__},
            "obstore": {**place.obstore, "sas_key": signature},
            "lance": {**place.lance, "azure_storage_sas_key": signature},
            "secrets": (*place.secrets, signature),
        }
    )
