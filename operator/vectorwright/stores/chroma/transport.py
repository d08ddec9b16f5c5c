"""Requests to a Chroma server and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from ..http_client import StoreHttp
from ..http_errors import UNEXPECTED_ANSWER, status_error
from ..registry import Connection
from ..safe_text import safe_text

DEFAULT_TENANT = "default_tenant"
DEFAULT_DATABASE = "default_database"


class ChromaApi:
    """One tenant and database of a Chroma server. ``endpoint`` is where it is, without credentials."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        settings, credentials = connection.settings, connection.credentials
        self.tenant = str(settings.get("tenant") or DEFAULT_TENANT)
        self.database = str(settings.get("database") or DEFAULT_DATABASE)
        self._scope = f"/tenants/{quote(self.tenant, safe='')}/databases/{quote(self.database, safe='')}"
        self._secrets = (credentials.token, credentials.password)
        headers = {}
        if credentials.token and settings.get("authHeader") == "X-Chroma-Token":
            headers["x-chroma-token"] = credentials.token
        elif credentials.token:
            headers["authorization"] = f"Bearer {credentials.token}"
        auth = None
        if not credentials.token and credentials.username is not None:
            auth = httpx.BasicAuth(credentials.username, credentials.password or "")
        slots = asyncio.Semaphore(connection.max_concurrency)
        self._http = StoreHttp(connection, slots, "/api/v2", headers, auth=auth, transport=transport)
        self.endpoint = self._http.endpoint

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._http.close()

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
        response = await self._http.request(method, path, body=body, params=params)
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
