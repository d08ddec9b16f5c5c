"""Requests to a Chroma server and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from ..http_errors import UNEXPECTED_ANSWER, status_error, transport_error
from ..registry import Connection
from ..safe_text import safe_text
from ..tls import ssl_context

DEFAULT_TENANT = "default_tenant"
DEFAULT_DATABASE = "default_database"
DEFAULT_PORTS = {"http": 80, "https": 443}


def normalised(url: str) -> str:
    """The address without user information, query and default port, in lower case but for its path."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    place = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != DEFAULT_PORTS.get(scheme):
        place += f":{parts.port}"
    return f"{scheme}://{place}{parts.path.rstrip('/')}"


class ChromaApi:
    """One tenant and database of a Chroma server. ``endpoint`` is where it is, without credentials."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        settings, credentials = connection.settings, connection.credentials
        self.endpoint = normalised(str(settings["url"]))
        self.tenant = str(settings.get("tenant") or DEFAULT_TENANT)
        self.database = str(settings.get("database") or DEFAULT_DATABASE)
        self._scope = f"/tenants/{quote(self.tenant, safe='')}/databases/{quote(self.database, safe='')}"
        self._timeout = connection.timeout
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        self._secrets = (credentials.token, credentials.password)
        self._extensions: dict[str, Any] = {}
        if connection.tls.server_name:
            self._extensions["sni_hostname"] = connection.tls.server_name
        headers = {"content-type": "application/json"}
        if credentials.token and settings.get("authHeader") == "X-Chroma-Token":
            headers["x-chroma-token"] = credentials.token
        elif credentials.token:
            headers["authorization"] = f"Bearer {credentials.token}"
        auth = None
        if not credentials.token and credentials.username is not None:
            auth = httpx.BasicAuth(credentials.username, credentials.password or "")
        try:
            self._client = httpx.AsyncClient(
                base_url=f"{self.endpoint}/api/v2",
                headers=headers,
                auth=auth,
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

    async def server(self, method: str, path: str) -> Any:
        """Call the server itself: ``/version`` and the like."""
        return await self._call(method, path)

    async def call(
        self,
        method: str,
        path: str = "",
        *,
        body: bytes | None = None,
        params: Mapping[str, int] | None = None,
        writes: bool = False,
    ) -> Any:
        """Call the database: the answer's JSON. ``path`` begins with a slash and is quoted by the caller.

        Raises NotFound and Conflict only where Chroma itself says so; a refusal (400, 422) is BatchRejected when the
        call ``writes`` records, and Terminal otherwise.
        """
        return await self._call(method, self._scope + path, body=body, params=params, writes=writes)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, int] | None = None,
        writes: bool = False,
    ) -> Any:
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    response = await self._client.request(
                        method, path, content=body, params=params, extensions=dict(self._extensions)
                    )
            except TimeoutError:
                raise Retryable(
                    f"{self.endpoint} did not answer within {self._timeout:g} s", reason="Timeout"
                ) from None
            except httpx.HTTPError as error:
                raise transport_error(error, self.endpoint) from None
        if not response.is_success:
            raise self._refusal(response, writes=writes)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise self._stranger(response) from None

    def _stranger(self, response: httpx.Response) -> Retryable:
        return Retryable(
            f"{self.endpoint} answered HTTP {response.status_code} with something that is not Chroma's: check "
            "spec.chroma.url and the proxies before it",
            reason=UNEXPECTED_ANSWER,
        )

    def _refusal(self, response: httpx.Response, *, writes: bool) -> VectorwrightError:
        status = response.status_code
        kind, detail = self._told(response)
        if kind is None:
            # A proxy's 404 is not an absent collection, and its 400 says nothing about records.
            return self._stranger(response) if status in {400, 404, 409, 422} else status_error(response, self.endpoint)
        if status == 404 and kind != "NotFoundError":
            return self._stranger(response)
        if status in {400, 422} and not writes:
            return Terminal(f"{self.endpoint} refused the request: {detail}", reason="InvalidRequest")
        return status_error(response, self.endpoint, detail)

    def _told(self, response: httpx.Response) -> tuple[str | None, str]:
        """(kind, message) of an error of Chroma's own; (None, "") of anything else."""
        try:
            told = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            return None, ""
        if not isinstance(told, dict) or not isinstance(told.get("error"), str):
            return None, ""
        return told["error"], safe_text(str(told.get("message") or told["error"]), self._secrets)
