"""Calls of the administration APIs of hosted stores: timed, within the tenure, and never repeated by themselves.

Bodies hold credentials in both directions, so nothing here logs, and what is shown of an answer are the vendor's own
words, made safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.kube.tenure import process_tenure
from vectorwright.stores.http_errors import UNEXPECTED_ANSWER, status_error, transport_error
from vectorwright.stores.registry import Connection, TlsSettings
from vectorwright.stores.safe_text import safe_text
from vectorwright.stores.tls import ssl_context

MAX_PAGES = 1_000
"""Pages of one listing: more are a server that goes round in circles."""
_NEEDS_WORDS = {400, 403, 404, 409, 412, 422}
"""Statuses that mean something only where the vendor itself says so: a proxy's 404 is no missing key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, with its body where that is a JSON object. Its repr shows neither body nor headers."""

    status: int
    headers: httpx.Headers = field(repr=False)
    body: Mapping[str, Any] | None = field(repr=False)
    """None where it is something else, such as a proxy's page. Nothing at all counts as an empty object."""

    @property
    def fine(self) -> bool:
        """Whether it is a success, and says so in JSON."""
        return 200 <= self.status < 300 and self.body is not None


class AdminHttp:
    """One API at one address. ``endpoint`` is shown to people: it holds no credentials. Nothing is asked yet."""

    def __init__(self, url: str, setting: str, tls: TlsSettings, timeout: float) -> None:
        """``setting`` is the field of the spec that names the address; ``timeout`` the seconds of one call."""
        parts = urlsplit(url)
        self.endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"
        self._setting, self._tls, self._timeout = setting, tls, timeout
        self._client: httpx.AsyncClient | None = None

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            secure = self.endpoint.startswith("https:")
            self._client = httpx.AsyncClient(
                base_url=self.endpoint,
                headers={"Accept": "application/json"},
                timeout=self._timeout,
                transport=httpx.AsyncHTTPTransport(
                    verify=ssl_context(self._tls) if secure else False, trust_env=False, retries=0
                ),
                # Neither proxies nor .netrc of the environment: credentials go where the spec says and nowhere else.
                trust_env=False,
                follow_redirects=False,
            )
        return self._client

    async def close(self) -> None:
        """Close connections. Safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        changes: bool = False,
    ) -> Answer:
        """Ask once. A call that ``changes`` something is begun only within the tenure, and ends within it.

        Raises Retryable (``Timeout``, ``Unreachable``, ``LeaseLost`` …), Terminal (``TLSVerificationFailed`` …). What
        an answer means is the caller's business.
        """
        left = process_tenure().require() if changes else None
        limit = self._timeout if left is None else min(self._timeout, left)
        sent = None if body is None else orjson.dumps(body)
        kind = {} if sent is None else {"Content-Type": "application/json"}
        extensions = {"sni_hostname": self._tls.server_name} if self._tls.server_name else {}
        try:
            async with asyncio.timeout(limit):
                response = await self._open().request(
                    method, path, headers={**headers, **kind}, params=params, content=sent, extensions=extensions
                )
        except TimeoutError:
            raise Retryable(f"{self.endpoint} did not answer within {limit:g} s", reason="Timeout") from None
        except httpx.HTTPError as error:
            raise transport_error(error, self.endpoint) from None
        return Answer(response.status_code, response.headers, _object(response.content))

    def refusal(self, answer: Answer, told: str, secrets: Iterable[str | None]) -> VectorwrightError:
        """What an answer that is no success means; ``told`` are the vendor's words, "" where somebody else answered.

        404 is NotFound, 400 and 422 Terminal (``InvalidRequest``), 429 Retryable (``Throttled``).
        """
        status = answer.status
        if answer.fine or 200 <= status < 300 or (not told and status in _NEEDS_WORDS):
            return self.stranger(status)
        detail = safe_text(told, secrets)
        if status in {400, 422}:
            return Terminal(f"{self.endpoint} refused the request: {detail}", reason="InvalidRequest")
        headers = {name: value for name, value in answer.headers.items() if name.lower() == "retry-after"}
        return status_error(httpx.Response(status, headers=headers), self.endpoint, detail)

    def stranger(self, status: int) -> Retryable:
        """The error for an answer that is not the vendor's."""
        return Retryable(
            f"{self.endpoint} answered HTTP {status} with something that is not of this API: check {self._setting} and "
            "the proxies before it",
            reason=UNEXPECTED_ANSWER,
        )


def open_api(connection: Connection, url: str | None, public: str, setting: str, store_url: str) -> AdminHttp:
    """The API at ``url``, or else at the vendor's ``public`` address. ``store_url`` is where the store itself is.

    The certificates of ``spec.tls`` are for addresses that the spec names: a public one that nobody named is verified
    by the system's authorities, unless the store is on that host, too.
    """
    chosen = url or public
    same_host = urlsplit(chosen).hostname == urlsplit(store_url).hostname
    tls = connection.tls if url or same_host else TlsSettings()
    return AdminHttp(chosen, setting, tls if same_host else replace(tls, server_name=None), connection.timeout)


def present(secret: str | None, what: str) -> str:
    """``secret``, where there is one without stray characters. Raises Terminal (``MissingCredentials``,
    ``InvalidCredentials``)."""
    if not secret:
        raise Terminal(f"{what} is missing in the Secret of spec.adminCredentials", reason="MissingCredentials")
    if not secret.isprintable():
        raise Terminal(f"{what} holds line breaks or the like: check the Secret", reason="InvalidCredentials")
    return secret


def usable(secret: str | None, what: str) -> str:
    """The same, where a header takes it."""
    found = present(secret, what)
    if not found.isascii() or " " in found:
        raise Terminal(
            f"{what} holds characters that no HTTP header takes: check the Secret for stray ones",
            reason="InvalidCredentials",
        )
    return found


def text_of(thing: Any, key: str) -> str:
    """The text under a key of a JSON object; "" where it is something else, or the whole is no object."""
    found = thing.get(key) if isinstance(thing, dict) else None
    return found if isinstance(found, str) else ""


def in_brackets(told: str, secrets: Iterable[str | None]) -> str:
    """A vendor's words, made safe, to be put behind our own; "" where there are none."""
    return f" ({safe_text(told, secrets)})" if told else ""


def _object(content: bytes) -> Mapping[str, Any] | None:
    if not content.strip():
        return {}
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
