"""Requests to Weaviate's REST API and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import orjson

from vectorwright.errors import BatchRejected, Retryable, Terminal, VectorwrightError

from ..http_client import StoreHttp
from ..http_errors import UNEXPECTED_ANSWER, status_error
from ..registry import Connection
from ..safe_text import safe_text


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
        self._token = connection.credentials.token
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        self._http = StoreHttp(connection, slots, "/v1", headers, transport=transport)
        self.endpoint = self._http.endpoint

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        await self._http.close()

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
        response = await self._http.request(method, path, body=content, params=params, seconds=seconds)
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
