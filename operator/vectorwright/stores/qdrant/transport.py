"""Calls of Qdrant's gRPC API over one channel."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from vectorwright.errors import Retryable, Terminal

from ..registry import Connection
from ..tls import ssl_context
from .errors import rpc_error, stranger

DEFAULT_GRPC_PORT = 6334
_OPTIONS: tuple[tuple[str, Any], ...] = (
    # The library's own 4 MiB would refuse a page of vectors.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Repeating is the caller's business.
    ("grpc.enable_retries", 0),
    # A server that is back is found within seconds; the default grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    # A connection that a firewall forgot is noticed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Credentials go where the spec says and nowhere else.
    ("grpc.enable_http_proxy", 0),
)

Answer = TypeVar("Answer", bound=Message)


class QdrantApi:
    """One server. ``endpoint`` is where its gRPC API is, without credentials. No request is made before the first call.

    Channels of a process to one address share a connection, unless one stands ``apart``: that reaches a replica of its
    own behind an address of several.

    Raises Terminal where the CA bundle or a credential is unusable.
    """

    def __init__(self, connection: Connection, *, apart: bool = False) -> None:
        settings, credentials = connection.settings, connection.credentials
        parts = urlsplit(str(settings["url"]))
        self._host = (parts.hostname or "").lower()
        place = f"[{self._host}]" if ":" in self._host else self._host
        self._port = int(settings.get("grpcPort") or DEFAULT_GRPC_PORT)
        self._target = f"{place}:{self._port}"
        self._secure = parts.scheme.lower() == "https"
        self.endpoint = f"{'https' if self._secure else 'http'}://{self._target}"
        self._timeout = connection.timeout
        self.server_timeout = max(1, math.ceil(connection.timeout))
        """Seconds, for requests that carry a timeout of their own."""
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        self._tls = connection.tls
        self._options = (*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)) if apart else _OPTIONS
        self._secrets = (credentials.token, credentials.password)
        token = credentials.token
        if token is None and credentials.username is not None:
            raise Terminal(
                "Qdrant takes an API key or a JWT, not a user name and password: put it under `token` in the Secret",
                reason="InvalidCredentials",
            )
        if token and not (token.isascii() and token.isprintable()):
            raise Terminal(
                "the API key holds characters that no header takes: check the Secret for stray ones",
                reason="InvalidCredentials",
            )
        self._metadata: tuple[tuple[str, str], ...] = (("api-key", token),) if token else ()
        if self._secure:
            ssl_context(self._tls)  # refuses a bundle that holds no certificate
        self._channel: grpc.aio.Channel | None = None
        self._opening = asyncio.Lock()
        self._calls: dict[str, Callable[..., Any]] = {}

    async def close(self) -> None:
        """Release the connection. Safe to call twice."""
        channel, self._channel, self._calls = self._channel, None, {}
        if channel is not None:
            await channel.close()

    async def call(
        self, method: str, request: Any, answer: type[Answer], *, writes: bool = False, longer: float = 0.0
    ) -> Answer:
        """Call ``method``, such as ``Points/Upsert``, with a message or the bytes of one.

        ``longer`` is added to the timeout, in seconds. Raises what :func:`.errors.rpc_error` tells.
        """
        async with self._slots:
            call = self._calls.get(method) or await self._prepare(method)
            try:
                found: bytes = await call(request, timeout=self._timeout + longer, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                raise rpc_error(error, self.endpoint, self._secrets, writes=writes) from None
        try:
            read: Answer = answer.FromString(found)
        except DecodeError:
            raise stranger(self.endpoint) from None
        return read

    async def _prepare(self, method: str) -> Callable[..., Any]:
        async with self._opening:
            if self._channel is None:
                self._channel = await self._open()
        call: Callable[..., Any] = self._channel.unary_unary(
            f"/qdrant.{method}", request_serializer=_serialized, response_deserializer=None
        )
        self._calls[method] = call
        return call

    async def _open(self) -> grpc.aio.Channel:
        if not self._secure:
            return grpc.aio.insecure_channel(self._target, options=self._options)
        options = list(self._options)
        roots: bytes | None
        if self._tls.insecure_skip_verify:
            roots, name = await self._whatever_it_shows()
            options.append(("grpc.ssl_target_name_override", name))
        else:
            roots = self._tls.ca.encode() if self._tls.ca is not None else _system_authorities()
            if self._tls.server_name:
                options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        return grpc.aio.secure_channel(
            self._target, grpc.ssl_channel_credentials(root_certificates=roots), options=options
        )

    async def _whatever_it_shows(self) -> tuple[bytes, str]:
        """The server's certificate and a name in it: gRPC always verifies, so it is given what makes that pass."""
        try:
            shown, name = await asyncio.to_thread(_shown_certificate, self._host, self._port, self._timeout)
        except TimeoutError:
            raise Retryable(f"{self.endpoint} did not answer in time", reason="Timeout") from None
        except ssl.SSLError:
            raise Retryable(
                f"the TLS handshake with {self.endpoint} failed: check that it speaks TLS on that port",
                reason="TLSHandshakeFailed",
            ) from None
        except OSError:
            raise Retryable(f"{self.endpoint} cannot be reached", reason="Unreachable") from None
        return shown.encode(), name


def _serialized(request: Any) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _system_authorities() -> bytes | None:
    """The system's authorities as PEM; None leaves gRPC its own."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode() or None


def _shown_certificate(host: str, port: int, timeout: float) -> tuple[str, str]:
    """(certificate as PEM, a name that it vouches for). Blocks; raises OSError."""
    shown = ssl.get_server_certificate((host, port), timeout=timeout)
    # Only a verified certificate is told in parts: this one is verified against itself.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=shown)
    with (
        socket.create_connection((host, port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        told: dict[str, Any] = dict(wrapped.getpeercert() or {})
    names = [str(value) for _, value in told.get("subjectAltName", ())]
    return shown, names[0].replace("*", "any", 1) if names else host
