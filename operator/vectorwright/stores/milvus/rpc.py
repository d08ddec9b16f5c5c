"""Calls to a Milvus server: one channel, a bound on how many are in flight, a deadline each, and no retries."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError

from vectorwright.errors import Retryable, Terminal

from ..http_errors import UNEXPECTED_ANSWER
from ..registry import Connection, TlsSettings
from .errors import rpc_error, status_error
from .stubs import milvus_pb2

DEFAULT_DATABASE = "default"
_PORTS = {"http": 19530, "https": 443}
"""Where Milvus listens, and where Zilliz Cloud does (their documentation)."""
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", -1),  # the server's own limit counts, and it says so
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # repeating is the caller's business
    # Neither proxies of the environment: credentials go where the spec says and nowhere else.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 55_000),
    # A server that comes back is found within seconds; the default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class MilvusApi:
    """One database of a Milvus server. ``endpoint`` is where it is, without credentials.

    ``apart`` gives it a connection of its own: clients of one address share one otherwise, and the pauses between the
    attempts to reach a server that was down.
    """

    def __init__(self, connection: Connection, *, apart: bool = False) -> None:
        self._apart = apart
        settings, credentials = connection.settings, connection.credentials
        parts = urlsplit(str(settings["url"]))
        self._secure = parts.scheme.lower() == "https"
        scheme = "https" if self._secure else "http"
        if parts.path.strip("/") or parts.query:
            raise Terminal(
                "spec.milvus.url holds a path, which gRPC has no place for: leave only scheme, host and port",
                reason="InvalidSpec",
            )
        host = (parts.hostname or "").lower()
        place = f"[{host}]" if ":" in host else host
        self._target = f"{place}:{parts.port or _PORTS[scheme]}"
        self.endpoint = f"{scheme}://{self._target}"
        self.database = str(settings.get("database") or DEFAULT_DATABASE)
        self._tls = connection.tls
        self._timeout = connection.timeout
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        token = credentials.token
        if token is None and credentials.username is not None:
            token = f"{credentials.username}:{credentials.password or ''}"
        encoded = base64.b64encode(token.encode()).decode() if token is not None else None
        self._secrets = (encoded, token, credentials.token, credentials.password)
        self._metadata = self._headers(encoded)
        self._credentials = _channel_credentials(connection.tls, self.endpoint) if self._secure else None
        self._channel: grpc.aio.Channel | None = None

    def _headers(self, token: str | None) -> tuple[tuple[str, str], ...]:
        if not (self.database.isascii() and self.database.isprintable()):
            raise Terminal("spec.milvus.database holds characters that no header takes", reason="InvalidSpec")
        return (("dbname", self.database), *((("authorization", token),) if token else ()))

    def _open(self) -> grpc.aio.Channel:
        # Made with the first call: a channel belongs to the event loop that runs then.
        if self._channel is None:
            options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", int(self._apart))]
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._target, options=options)
            else:
                if self._tls.server_name:
                    options.append(("grpc.ssl_target_name_override", self._tls.server_name))
                self._channel = grpc.aio.secure_channel(self._target, self._credentials, options=options)
        return self._channel

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.close()

    async def call(
        self,
        method: str,
        request: Any,
        answer: str = "",
        *,
        writes: bool = False,
        seconds: float | None = None,
        secrets: tuple[str, ...] = (),
    ) -> Any:
        """The answer to a call, a message of the kind ``answer`` (``common.Status`` where empty).

        ``request`` is a message, or the bytes of one. ``writes`` says that it carries records: a refusal then means
        those. ``secrets`` are those in it, which no error may show. Raises every kind of error.
        """
        hidden = (*self._secrets, *secrets)
        body = request if isinstance(request, bytes) else request.SerializeToString()
        async with self._slots:
            try:
                data = await self._open().unary_unary(f"/milvus.proto.milvus.MilvusService/{method}")(
                    body, timeout=seconds or self._timeout, metadata=self._metadata
                )
            except grpc.aio.AioRpcError as error:
                raise rpc_error(error, self.endpoint, writes=writes, secrets=hidden) from None
        message = (getattr(milvus_pb2, answer) if answer else _STATUS)()
        try:
            message.ParseFromString(data)
        except DecodeError:
            raise Retryable(
                f"what answers at {self.endpoint} does not speak Milvus' protocol ({method})", reason=UNEXPECTED_ANSWER
            ) from None
        problem = status_error(message.status if answer else message, self.endpoint, writes=writes, secrets=hidden)
        if problem is not None:
            raise problem
        return message


_STATUS = milvus_pb2.BoolResponse().status.__class__


def _channel_credentials(tls: TlsSettings, endpoint: str) -> grpc.ChannelCredentials:
    if tls.insecure_skip_verify:
        raise Terminal(
            f"{endpoint} is reached over gRPC, which always verifies certificates: leave out insecureSkipVerify and "
            "set the CA bundle in spec.tls, or reach it over http:// where the network is trusted",
            reason="UnsupportedTLS",
        )
    if tls.ca is None:
        paths = ssl.get_default_verify_paths()
        system = Path(paths.cafile or paths.openssl_cafile)
        roots = system.read_bytes() if system.is_file() else None
        return grpc.ssl_channel_credentials(root_certificates=roots)
    bundle = tls.ca.encode("ascii", "ignore")
    if b"-----BEGIN CERTIFICATE-----" not in bundle:
        raise Terminal(
            "the CA bundle of spec.tls holds no PEM certificate that can be read: check the key of the Secret or "
            "ConfigMap that it comes from",
            reason="InvalidCA",
        )
    return grpc.ssl_channel_credentials(root_certificates=bundle)
