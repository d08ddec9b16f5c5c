"""Requests to Weaviate's REST API and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from vectorwright.errors import BatchRejected, Retryable, Terminal, VectorwrightError

from ..http_errors import UNEXPECTED_ANSWER, status_error, transport_error
from ..registry import Connection
from ..safe_text import safe_text
from ..tls import ssl_context

DEFAULT_PORTS = {"http": 80, "https": 443}


def normalised(url: str) -> str:
    """The address without user information, query and default port, in lower case but for its path."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    place = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != DEFAULT_PORTS.get(scheme):
        place += f":{parts.port}"
    return f"{scheme}://{place}{parts.path.rstrip('/')}"


class Absent(Exception):  # noqa: N818 - caught where it is known what is absent
    """The server answered 404. ``certain``: in words of Weaviate's own, ``told``; it also does so without any."""

    def __init__(self, *, certain: bool, told: str = "") -> None:
        super().__init__()
        self.certain, self.told = certain, told


class Denied(Terminal):
    """The server refused the credentials (401), or what they may do (403).

    ``told`` is what Weaviate said to it, and may be shown; None where the words are not Weaviate's.
    """

    default_reason = "AccessDenied"

    def __init__(self, message: str, status: int, told: str | None) -> None:
        super().__init__(message)
        self.status, self.told = status, told


class Refused(Exception):  # noqa: N818 - as above
    """The server refused a request (400, 422) and said why. ``told`` may be shown."""

    def __init__(self, told: str) -> None:
        super().__init__(told)
        self.told = told


class WeaviateRest:
    """The REST API of a server. ``endpoint`` is where it is, without credentials.

    ``slots`` bounds the requests in flight; calls over gRPC share them.
    """

    def __init__(
        self, connection: Connection, slots: asyncio.Semaphore, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.endpoint = normalised(str(connection.settings["url"]))
        self._timeout = connection.timeout
        self._slots = slots
        self._token = connection.credentials.token
        self._extensions: dict[str, Any] = {}
        if connection.tls.server_name:
            self._extensions["sni_hostname"] = connection.tls.server_name
        headers = {"content-type": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        try:
            self._client = httpx.AsyncClient(
                base_url=f"{self.endpoint}/v1",
                headers=headers,
                # The timeout that counts is the one around the whole request.
                timeout=connection.timeout,
                limits=httpx.Limits(max_connections=connection.max_concurrency, keepalive_expiry=30),
                # Neither proxies nor .netrc of the environment: credentials go where the spec says and nowhere else.
                trust_env=False,
                follow_redirects=False,
                verify=ssl_context(connection.tls) if self.endpoint.startswith("https:") else False,
                transport=transport,
            )
        except UnicodeEncodeError:
            raise Terminal(
                "the credentials hold characters that no HTTP header takes: check the Secret for stray ones",
                reason="InvalidCredentials",
            ) from None

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        *,
        seconds: float | None = None,
    ) -> dict[str, Any] | list[Any]:
        """The answer's JSON, an empty object where it has none. ``path`` begins with a slash.

        ``seconds`` it may take at most; the connection's timeout otherwise. Raises Absent, Refused, and our errors:
        Denied among them.
        """
        content = None if body is None else orjson.dumps(body)
        timeout = self._timeout if seconds is None else min(seconds, self._timeout)
        async with self._slots:
            try:
                async with asyncio.timeout(timeout):
                    response = await self._client.request(
                        method, path, content=content, params=params, extensions=dict(self._extensions)
                    )
            except TimeoutError:
                raise Retryable(f"{self.endpoint} did not answer within {timeout:g} s", reason="Timeout") from None
            except httpx.HTTPError as error:
                raise transport_error(error, self.endpoint) from None
        if not response.is_success:
            raise self._refusal(response)
        if not response.content and method != "GET":
            return {}
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise self.stranger(response.status_code) from None
        if not isinstance(answer, dict | list):
            raise self.stranger(response.status_code)
        return answer

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """An answer that is an object. Raises as :meth:`call`."""
        answer = await self.call("GET", path, params=params)
        if not isinstance(answer, dict):
            raise self.stranger(200)
        return answer

    def stranger(self, status: int) -> Retryable:
        """The error for an answer that is not Weaviate's."""
        return Retryable(
            f"{self.endpoint} answered HTTP {status} with something that is not Weaviate's: check spec.weaviate.url "
            "and the proxies before it",
            reason=UNEXPECTED_ANSWER,
        )

    def _refusal(self, response: httpx.Response) -> VectorwrightError | Absent | Refused:
        status, detail = response.status_code, self._told(response)
        own = detail is not None
        if status == 404:
            # Weaviate says so with an empty body; a proxy has a page for it.
            return Absent(certain=own, told=detail or "") if own or not response.content else self.stranger(status)
        if status in {400, 422}:
            return Refused(detail) if detail is not None else self.stranger(status)
        if status == 409 and not own:
            return self.stranger(status)
        error = status_error(response, self.endpoint, detail or "")
        if status in {401, 403}:
            return Denied(error.message, status, detail)
        if isinstance(error, BatchRejected):  # 413: no records are written over REST
            return Terminal(error.message, reason="RequestRefused")
        return error

    def _told(self, response: httpx.Response) -> str | None:
        """The message of an error of Weaviate's own; None of anything else."""
        try:
            told = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(told, dict):
            return None
        errors = told.get("error")
        if isinstance(errors, list) and all(isinstance(one, dict) for one in errors):
            return safe_text("; ".join(str(one.get("message", "")) for one in errors), (self._token,))
        message = told.get("message")
        return safe_text(message, (self._token,)) if isinstance(message, str) else None
