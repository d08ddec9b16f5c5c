"""Calls to Weaviate's gRPC API and what its failures mean.

The messages are those that the ``weaviate-client`` package ships. Its client is not used: it repeats calls by itself,
and costs more a record. Importing the messages takes about 50 MB and a second, so that is done when the first call is
made, and never for what concerns collections alone.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from vectorwright.errors import BatchTooLarge, Retryable, Terminal, VectorwrightError

from ..http_errors import THROTTLED, UNEXPECTED_ANSWER, retry_after
from ..registry import Connection
from ..safe_text import safe_text
from ..tls import VERIFICATION_FAILED

DEFAULT_GRPC_PORT = 50051
_MODULES = (
    "base_pb2",
    "base_search_pb2",
    "batch_pb2",
    "batch_delete_pb2",
    "search_get_pb2",
    "aggregate_pb2",
    "weaviate_pb2_grpc",
)
_CONNECTION_SIGNS = ("failed to connect", "connection", "socket", "transport", "dns", "name resolution", "goaway")
_BUSY_SIGNS = (
    "memory",
    "read-only",
    "readonly",
    "consistency level",
    "replicas",
    "leader",
    "context deadline",
    "context canceled",
    "disk",
    "shutting down",
    "shutdown",
    "not ready",
    "too many",
    # What one node says of another.
    "connection",
    "eof",
    "timeout",
    "timed out",
    "unavailable",
    "loading",
)
"""What Weaviate's messages hold when its state, not the request, is why it fails."""


class NoSuchTenant(Exception):  # noqa: N818 - caught where it means that there is nothing
    """The collection has no tenant of that name."""


class NoSuchCollection(Exception):  # noqa: N818 - as above
    """The server does not know the collection."""


class Declined(Exception):  # noqa: N818 - as above
    """The server failed for a reason that only its text tells. ``told`` may be shown."""

    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.told = told


def is_busy(told: str) -> bool:
    """Whether a message of Weaviate's is about its state, so that trying again may help."""
    text = told.lower()
    return any(sign in text for sign in _BUSY_SIGNS)


class Messages:
    """The protobuf modules, by their names."""

    def __init__(self) -> None:
        package = importlib.import_module("weaviate.proto.v1")
        self.base, self.near, self.batch, self.batch_delete, self.search, self.aggregate, self.stubs = (
            getattr(package, name) for name in _MODULES
        )


_messages: Messages | None = None


async def load_messages() -> Messages:
    """The modules, imported by the first who asks, beside the event loop. Raises Terminal (``MissingExtra``)."""
    global _messages  # noqa: PLW0603 - modules are imported once a process
    if _messages is None:
        try:
            _messages = await asyncio.to_thread(Messages)
        except ModuleNotFoundError as error:
            raise Terminal(
                f"the weaviate provider needs the package {error.name!r}: install vectorwright[weaviate]",
                reason="MissingExtra",
            ) from None
    return _messages


class WeaviateGrpc:
    """The gRPC API of a server; one channel, opened with the first call. ``address`` is shown in messages."""

    def __init__(self, connection: Connection, slots: asyncio.Semaphore) -> None:
        settings = connection.settings
        url = urlsplit(str(settings["url"]))
        self.host = str(settings.get("grpcHost") or url.hostname or "")
        self.port = int(settings.get("grpcPort") or DEFAULT_GRPC_PORT)
        self.address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self._tls = connection.tls if url.scheme.lower() == "https" else None
        if self._tls is not None and self._tls.insecure_skip_verify:
            raise Terminal(
                "spec.tls.insecureSkipVerify: Weaviate is spoken to over gRPC, which always verifies the server's "
                "certificate: give the CA bundle, and the server name where it is another",
                reason="UnsupportedTLS",
            )
        self._timeout = connection.timeout
        self._slots = slots
        self._token = connection.credentials.token
        self._metadata = (("authorization", f"Bearer {self._token}"),) if self._token else ()
        self._channel: Any = None
        self._stub: Any = None

    async def close(self) -> None:
        """Close the channel. Safe to call twice."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def reach(self) -> None:
        """Raises Retryable where nobody listens on the port."""
        try:
            async with asyncio.timeout(self._timeout):
                _, writer = await asyncio.open_connection(self.host, self.port)
        except TimeoutError:
            raise self._late() from None
        except OSError:
            raise Retryable(
                f"{self._where} cannot be reached: check spec.weaviate.grpcPort", reason="Unreachable"
            ) from None
        writer.close()

    async def call(self, method: str, request: Any, *, writes: bool = False) -> Any:
        """Call a method of the service.

        Raises NoSuchTenant, NoSuchCollection, Declined, and our errors; BatchTooLarge only where the call ``writes``.
        """
        import grpc  # noqa: PLC0415 - 12 MB, for those who call

        async with self._slots:
            if self._stub is None:
                self._channel = self._open(grpc)
                self._stub = (await load_messages()).stubs.WeaviateStub(self._channel)
            try:
                answer = await getattr(self._stub, method)(request, timeout=self._timeout, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                raise self._refusal(error, writes=writes) from None
        if answer is None:  # what came could not be parsed
            raise self._stranger("no message of its own")
        return answer

    def _open(self, grpc: Any) -> Any:
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            # Trying again is the caller's business, and proxies of the environment are nobody's.
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            # A server that is back is found within seconds; the default waits up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]
        if self._tls is None:
            return grpc.aio.insecure_channel(self.address, options)
        if self._tls.server_name:
            options.append(("grpc.ssl_target_name_override", self._tls.server_name))
        credentials = grpc.ssl_channel_credentials(root_certificates=_roots(self._tls.ca))
        return grpc.aio.secure_channel(self.address, credentials, options)

    def _late(self) -> Retryable:
        return Retryable(f"{self._where} did not answer within {self._timeout:g} s", reason="Timeout")

    def _stranger(self, what: str) -> Retryable:
        return Retryable(
            f"{self._where} answered with something that is not Weaviate's ({what}): check spec.weaviate.grpcPort",
            reason=UNEXPECTED_ANSWER,
        )

    @property
    def _where(self) -> str:
        return f"the gRPC API of Weaviate at {self.address}"

    def _refusal(self, error: Any, *, writes: bool) -> Exception:
        """What a status means where the status itself tells; Weaviate's own failures are all UNKNOWN."""
        code, details = error.code().name, str(error.details() or "")
        if code == "DEADLINE_EXCEEDED":
            return self._late()
        if code == "RESOURCE_EXHAUSTED" and "larger than max" in details.lower():
            kind: type[VectorwrightError] = BatchTooLarge if writes else Terminal
            return kind(f"{self._where} refused the request for its size")
        if code == "RESOURCE_EXHAUSTED" or (code == "UNAVAILABLE" and "status: 429" in details):
            return Retryable(f"{self._where} is busy", reason=THROTTLED, after=_after(error))
        if code == "CANCELLED":
            return Retryable(f"{self._where} broke off the call", reason="Unreachable")
        if code in {"ABORTED", "ALREADY_EXISTS"}:
            return Retryable(f"{self._where} met a conflict ({code})")
        if code in {"UNIMPLEMENTED", "INTERNAL", "DATA_LOSS"} or "http2 header" in details:
            return self._stranger(code)
        return self._told(code, details)

    def _told(self, code: str, details: str) -> Exception:
        """What Weaviate says in words."""
        told, text = safe_text(details, (self._token,)), details.lower()
        if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"} or "unauthorized" in text or "forbidden" in text:
            return Terminal(f"{self._where} refused the credentials: check the Secret", reason="AccessDenied")
        if "certificate_verify_failed" in text:
            return Terminal(
                f"the certificate of {self._where} is not trusted: set the CA bundle or the server name in spec.tls",
                reason=VERIFICATION_FAILED,
            )
        if code == "UNAVAILABLE" and any(sign in text for sign in _CONNECTION_SIGNS):
            what = "cannot be reached, or broke off the connection"
            return Retryable(f"{self._where} {what}: check spec.weaviate", reason="Unreachable")
        if "tenant not found" in text:
            return NoSuchTenant()
        if code == "NOT_FOUND" or "could not find class" in text or ("class" in text and "not found" in text):
            return NoSuchCollection()
        if code == "UNAVAILABLE" or is_busy(told):
            return Retryable(f"{self._where} failed: {told}")
        return Declined(told)


def _after(error: Any) -> float | None:
    """Seconds that the server asks to be left alone for."""
    trailers = {str(key).lower(): str(value) for key, value in error.trailing_metadata() or ()}
    return retry_after(httpx.Headers(trailers))


def _roots(ca: str | None) -> bytes | None:
    """The CA bundle, or the system's own; gRPC otherwise brings authorities of its own."""
    if ca is not None:
        return ca.encode()
    found = ssl.get_default_verify_paths().cafile
    return Path(found).read_bytes() if found and Path(found).exists() else None
