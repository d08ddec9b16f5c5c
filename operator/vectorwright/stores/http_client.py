"""Requests to a store that speaks HTTP: bounded, timed, never repeated, and sent where the spec says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from vectorwright.errors import Retryable, Terminal

from .http_errors import transport_error
from .registry import Connection
from .tls import ssl_context

_DEFAULT_PORTS = {"http": 80, "https": 443}
_IDLE_SECONDS = 30


def normalised(url: str) -> str:
    """The address without user information, query and default port, in lower case but for its path."""
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    place = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != _DEFAULT_PORTS.get(scheme):
        place += f":{parts.port}"
    return f"{scheme}://{place}{parts.path.rstrip('/')}"


class StoreHttp:
    """One server at ``connection.settings["url"]``. ``endpoint`` is where it is, without credentials.

    ``slots`` bounds the requests in flight.
    """

    def __init__(
        self,
        connection: Connection,
        slots: asyncio.Semaphore,
        path: str,
        headers: Mapping[str, str],
        *,
        auth: httpx.Auth | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``path`` is that of the API at the address. Nothing is asked yet. Raises Terminal (``InvalidCredentials``,
        and as :func:`.tls.ssl_context`)."""
        self.endpoint = normalised(str(connection.settings["url"]))
        self._timeout = connection.timeout
        self._slots = slots
        name = connection.tls.server_name
        self._extensions = {"sni_hostname": name} if name else {}
        try:
            self._client = httpx.AsyncClient(
                base_url=self.endpoint + path,
                headers={"content-type": "application/json", **headers},
                auth=auth,
                # The timeout that counts is the one around the whole request.
                timeout=connection.timeout,
                limits=httpx.Limits(max_connections=connection.max_concurrency, keepalive_expiry=_IDLE_SECONDS),
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

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        seconds: float | None = None,
    ) -> httpx.Response:
        """The answer, whatever its status. ``path`` begins with a slash and is quoted by the caller.

        ``seconds`` it may take at most; the connection's timeout otherwise. Raises Retryable (``Timeout``,
        ``Unreachable`` …), Terminal (``TLSVerificationFailed`` …).
        """
        timeout = self._timeout if seconds is None else min(seconds, self._timeout)
        async with self._slots:
            try:
                async with asyncio.timeout(timeout):
                    return await self._client.request(
                        method, path, content=body, params=params, extensions=dict(self._extensions)
                    )
            except TimeoutError:
                raise Retryable(f"{self.endpoint} did not answer within {timeout:g} s", reason="Timeout") from None
            except httpx.HTTPError as error:
                raise transport_error(error, self.endpoint) from None
