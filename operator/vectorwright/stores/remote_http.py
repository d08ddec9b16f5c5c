"""Requests to a store server and what its answers mean."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from .http_errors import UNEXPECTED_ANSWER, status_error, transport_error
from .registry import Connection
from .safe_text import safe_text
from .tls import ssl_context
from .wire import WireError, decode_error, decode_json

_LENGTH = struct.Struct("<I")
_MAX_FRAME = 2**30
_MAX_MESSAGE = 800
"""Characters of an error that a store server tells: its own messages are shorter."""


class StoreServerApi:
    """One provider of a store server. ``endpoint`` is where it is, without credentials."""

    def __init__(self, connection: Connection) -> None:
        """Raises Terminal where the address, the credentials or the TLS settings cannot be used."""
        server = str(connection.settings.get("server") or "")
        socket = server.removeprefix("unix://") if server.startswith("unix:///") else None
        parts = urlsplit(server)
        if socket is None and (parts.scheme.lower() not in {"http", "https"} or not parts.hostname):
            raise Terminal(
                f"spec.{connection.provider}.server must be the address of a store server, such as "
                "http://store.search.svc:8090",
                reason="InvalidAddress",
            )
        self.endpoint = server if socket else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        folder = connection.settings.get("path")
        self._params = {"folder": str(folder)} if folder else None
        self._timeout = connection.timeout
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        self._token = connection.credentials.token
        self._extensions: dict[str, Any] = {}
        if connection.tls.server_name:
            self._extensions["sni_hostname"] = connection.tls.server_name
        self._client = self._open(connection, socket)

    def _open(self, connection: Connection, socket: str | None) -> httpx.AsyncClient:
        base = "http://store-server" if socket else self.endpoint.rstrip("/")
        secure = base.startswith("https:")
        # Scrolls hold a connection of their own for as long as their reader wishes, so connections have no limit here:
        # requests have (self._slots).
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=connection.max_concurrency)
        transport = httpx.AsyncHTTPTransport(
            verify=ssl_context(connection.tls) if secure else False, uds=socket, limits=limits, trust_env=False
        )
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            return httpx.AsyncClient(
                base_url=f"{base}/v1/{connection.provider}",
                headers=headers,
                timeout=connection.timeout,
                transport=transport,
                trust_env=False,
                follow_redirects=False,
            )
        except UnicodeEncodeError:
            raise Terminal(
                "the token holds characters that no HTTP header takes: check the Secret for stray ones",
                reason="InvalidCredentials",
            ) from None

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._client.aclose()

    async def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a successful answer. ``path`` begins with a slash and is quoted by the caller."""
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self._client.request(
                        method, path, content=body, params=self._params, extensions=dict(self._extensions)
                    )
            except TimeoutError:
                raise self._late() from None
            except httpx.HTTPError as error:
                raise transport_error(error, self.endpoint) from None
        if not response.is_success:
            raise self._refusal(response)
        return response.content

    async def json(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """The JSON object of a successful answer."""
        answer = await self.call(method, path, body)
        try:
            return decode_json(answer)
        except WireError:
            raise self.stranger() from None

    @asynccontextmanager
    async def frames(self, path: str, body: bytes) -> AsyncIterator[AsyncGenerator[bytes]]:
        """The frames of a scroll, without signs of life. Every wait for bytes may take as long as a request may."""
        request = self._client.build_request(
            "POST", path, content=body, params=self._params, extensions=dict(self._extensions)
        )
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.send(request, stream=True)
        except TimeoutError:
            raise self._late() from None
        except httpx.HTTPError as error:
            raise transport_error(error, self.endpoint) from None
        try:
            if not response.is_success:
                await self._read(response)
                raise self._refusal(response)
            yield self._frames(response)
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await response.aread()
        except TimeoutError:
            raise self._late() from None
        except httpx.HTTPError as error:
            raise transport_error(error, self.endpoint) from None

    async def _frames(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        buffer = bytearray()
        try:
            async for data in response.aiter_raw():
                buffer += data
                while len(buffer) >= _LENGTH.size:
                    (length,) = _LENGTH.unpack_from(buffer)
                    if length > _MAX_FRAME:
                        raise self.stranger()
                    stop = _LENGTH.size + length
                    if len(buffer) < stop:
                        break
                    if length:
                        yield bytes(buffer[_LENGTH.size : stop])
                    del buffer[:stop]
        except httpx.HTTPError as error:
            raise transport_error(error, self.endpoint) from None

    def _late(self) -> Retryable:
        return Retryable(f"{self.endpoint} did not answer within {self._timeout:g} s", reason="Timeout")

    def stranger(self, status: int = 200) -> Retryable:
        """What an answer is that no store server gives."""
        return Retryable(
            f"{self.endpoint} answered HTTP {status} with something that is not a vectorwright store-server's: check "
            "the address and the proxies before it",
            reason=UNEXPECTED_ANSWER,
        )

    def _refusal(self, response: httpx.Response) -> VectorwrightError:
        status = response.status_code
        if status in {401, 403}:  # told in our words: whoever answered may repeat what it was sent
            return status_error(response, self.endpoint)
        told = self._told(response)
        if told is not None:
            return told
        return self.stranger(status) if status in {400, 404, 409, 422} else status_error(response, self.endpoint)

    def _told(self, response: httpx.Response) -> VectorwrightError | None:
        """The error that a store server told, the very one that it met; None where somebody else answered."""
        if not response.headers.get("content-type", "").startswith("application/json"):
            return None
        try:
            return self.told(decode_json(response.content))
        except WireError:
            return None

    def told(self, body: Mapping[str, Any]) -> VectorwrightError:
        """The error that a store server told. Raises WireError.

        Who is asked may be somebody else who only looks like one, so its text is bounded and without the token.
        """
        error = decode_error(body)
        error.message = safe_text(error.message, (self._token,), _MAX_MESSAGE)
        error.args = (error.message,)
        return error
