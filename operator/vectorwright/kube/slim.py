"""The few calls that the parent process makes, on the standard library alone.

aiohttp costs 18 MiB of memory; a parent that reads and writes one Lease every two seconds can do without. Paths, bodies
and errors are those of :class:`vectorwright.kube.client.KubeClient`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from vectorwright import __version__
from vectorwright.errors import Retryable

from .answers import error_for
from .connection import KubeConnection
from .resources import ResourceType

_MAX_BODY = 1024 * 1024
_MAX_HEAD = 64 * 1024

Object = dict[str, Any]


class _Dropped(Exception):  # noqa: N818 - not an error of the call: the kept connection had been closed meanwhile
    """A connection that was kept open turned out to be closed before any byte of the answer."""


class SlimClient:
    """One kept-alive connection; one call at a time. ``timeout`` in seconds covers a whole call."""

    def __init__(self, connection: KubeConnection, *, timeout: float = 3.0) -> None:
        self._connection = connection
        self._timeout = timeout
        self._context: ssl.SSLContext | None = connection.ssl_context()
        parts = urlsplit(connection.server)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def get(self, resource: ResourceType, name: str, namespace: str | None = None) -> Object:
        """The object. Raises NotFound, Terminal, Retryable."""
        return await self._call("GET", resource.path(namespace, name), f"get {resource.plural}/{name}")

    async def create(self, resource: ResourceType, body: Object, namespace: str | None = None) -> Object:
        """Create the object. Raises Conflict (reason ``AlreadyExists``), Terminal, Retryable."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        metadata: Object = body.get("metadata") or {}
        name = metadata.get("name")
        return await self._call("POST", resource.path(namespace), f"create {resource.plural}/{name}", body)

    async def replace(self, resource: ResourceType, name: str, namespace: str | None, body: Object) -> Object:
        """Replace the object if ``metadata.resourceVersion`` is still its version. Raises NotFound, Conflict, …"""
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | body
        return await self._call("PUT", resource.path(namespace, name), f"replace {resource.plural}/{name}", body)

    async def check(self) -> None:
        """One cheap request that every authenticated user may make. Raises Retryable, Terminal."""
        await self._call("GET", "/version", "get /version")

    async def close(self) -> None:
        """Close the connection. Safe to call again."""
        streams, self._streams = self._streams, None
        if streams is not None:
            await _shut(streams[1])

    async def _call(self, method: str, path: str, doing: str, body: Object | None = None) -> Object:
        data = json.dumps(body).encode() if body is not None else b""
        try:
            async with self._lock, asyncio.timeout(self._timeout):
                status, headers, answer = await self._exchange_with_retry(method, path, data)
                if status == 401 and self._connection.token is not None:
                    # The file may hold a newer token than the one in memory.
                    status, headers, answer = await self._exchange_with_retry(method, path, data, fresh=True)
        except TimeoutError:
            raise Retryable(
                f"{doing}: no answer from the API server in {self._timeout:g} s", reason="Timeout"
            ) from None
        except (OSError, EOFError, ValueError, _Dropped) as error:
            raise Retryable(f"{doing}: the API server cannot be reached ({_describe(error)})") from None
        if status >= 300:
            raise error_for(status, answer, doing=doing, retry_after=headers.get("retry-after"))
        try:
            parsed = json.loads(answer)
        except ValueError:
            raise Retryable(f"{doing}: the API server's answer is not JSON") from None
        return parsed if isinstance(parsed, dict) else {}

    async def _exchange_with_retry(
        self, method: str, path: str, data: bytes, *, fresh: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        token = self._connection.token
        if token is not None and token.blocking:
            authorization = await asyncio.to_thread(self._connection.authorization, fresh=fresh)
        else:
            authorization = self._connection.authorization(fresh=fresh)
        try:
            return await self._exchange(method, path, data, authorization)
        except _Dropped:
            return await self._exchange(method, path, data, authorization)

    async def _exchange(
        self, method: str, path: str, data: bytes, authorization: str | None
    ) -> tuple[int, dict[str, str], bytes]:
        kept = self._streams is not None
        if self._streams is None:
            self._streams = await self._connect()
        reader, writer = self._streams
        done = False
        try:
            head = [
                f"{method} {self._prefix}{path} HTTP/1.1",
                f"Host: {self._authority}",
                f"User-Agent: vectorwright/{__version__}",
                "Accept: application/json",
            ]
            if authorization is not None:
                head.append(f"Authorization: {authorization}")
            if data:
                head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
            writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + data)
            try:
                await writer.drain()
                raw = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                if kept and not getattr(error, "partial", b""):
                    raise _Dropped from None
                raise
            except asyncio.LimitOverrunError:
                raise ValueError("an endless head") from None
            status, headers = _parse_head(raw)
            body = await _read_body(reader, status, headers)
            done = headers.get("connection", "").lower() != "close"
            return status, headers, body
        finally:
            if not done:
                # Whatever happened, what follows on this connection would not be the answer to the next request.
                self._streams = None
                writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = (self._connection.tls_server_name or self._host) if self._context is not None else None
        return await asyncio.open_connection(
            self._host, self._port, ssl=self._context, server_hostname=name, limit=_MAX_HEAD
        )


async def _shut(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _parse_head(raw: bytes) -> tuple[int, dict[str, str]]:
    lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise ValueError("not HTTP")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        key, separator, value = line.partition(":")
        if separator:
            headers[key.strip().lower()] = value.strip()
    return int(rest[:3]), headers


async def _read_body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _read_chunks(reader)
    length = headers.get("content-length")
    if length is None:
        headers["connection"] = "close"
        body = await reader.read(_MAX_BODY + 1)
        while len(body) <= _MAX_BODY and (more := await reader.read(_MAX_BODY)):
            body += more
    else:
        if int(length) > _MAX_BODY:
            raise ValueError("an answer over 1 MiB")
        body = await reader.readexactly(int(length))
    if len(body) > _MAX_BODY:
        raise ValueError("an answer over 1 MiB")
    return body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16)
        if size < 0 or len(body) + size > _MAX_BODY:
            raise ValueError("an answer over 1 MiB")
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                continue
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)


def _describe(error: Exception) -> str:
    """A class name and, of system errors, the system's words: nothing that could hold a credential."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) if isinstance(error, ValueError) else type(error).__name__
