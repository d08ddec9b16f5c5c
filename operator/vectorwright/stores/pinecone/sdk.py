"""The clients of the Pinecone SDK on one connection pool, and every call through them: bounded, timed, translated.

The SDK repeats requests by itself, three times, also where its caller does not want that: here it never does. It
takes a CA bundle only as a file and makes a pool an index. So its HTTP clients are given ours, which is the one place
where its insides are touched; ``tests/contract/test_pinecone.py`` holds what is relied on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

import httpx
import msgspec
import orjson
from pinecone import AsyncPinecone
from pinecone._internal.adapters.indexes_adapter import IndexesAdapter
from pinecone._internal.constants import CONTROL_PLANE_API_VERSION
from pinecone.async_client.async_index import AsyncIndex
from pinecone.async_client.indexes import AsyncIndexes
from pinecone.errors.exceptions import PineconeError, ResponseParsingError
from pinecone.models.indexes.index import IndexModel

from vectorwright import __version__
from vectorwright.errors import Retryable, Terminal

from ..registry import Connection
from ..tls import ssl_context
from .errors import stranger, translate
from .freshness import Freshness, Place, freshness_of

T = TypeVar("T")

DEFAULT_URL = "https://api.pinecone.io"
API_VERSION = CONTROL_PLANE_API_VERSION
"""Version of the API that the SDK speaks, such as ``2026-07``."""
MAX_CLIENTS = 64
"""Index clients that are kept: one is a few KB, and a session of the operator may see thousands of indexes."""


class _Pool(httpx.AsyncBaseTransport):
    """The one connection pool. Clients on it can be closed or forgotten, the pool stays until :meth:`shut`."""

    def __init__(
        self, connection: Connection, control_plane: SplitResult, inner: httpx.AsyncBaseTransport | None
    ) -> None:
        self._server_name = connection.tls.server_name
        self._control_host = control_plane.hostname
        self._inner = inner or httpx.AsyncHTTPTransport(
            verify=False if control_plane.scheme == "http" else ssl_context(connection.tls),
            limits=httpx.Limits(max_connections=connection.max_concurrency, keepalive_expiry=30),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # Each index has a host and a certificate of its own: the name that a spec gives is the control plane's.
        if self._server_name and request.url.host == self._control_host:
            request.extensions = {**request.extensions, "sni_hostname": self._server_name}
        return await self._inner.handle_async_request(request)

    async def shut(self) -> None:
        await self._inner.aclose()


class IndexClient:
    """The data plane of one index."""

    def __init__(self, host: str, api_key: str, http: httpx.AsyncClient) -> None:
        self.index = AsyncIndex(host=host, api_key=api_key, additional_headers=_HEADERS)
        self._http = self.index._http  # noqa: SLF001 - see the module
        self._http._client = http  # noqa: SLF001

    async def post(self, path: str, body: bytes) -> dict[str, Any]:
        """Send a body that is encoded already: the answer's JSON. Raises what the SDK raises, or ``JSONDecodeError``.

        For calls whose answer the SDK does not look at: whoever answers a delete with a page has deleted nothing.
        """
        return _object(await self._http.post(path, content=body, headers={"content-type": "application/json"}))

    async def delete_namespace(self, name: str) -> None:
        """Delete a namespace. Raises like :meth:`post`."""
        _object(await self._http.delete(f"/namespaces/{quote(name, safe='')}"))


def _object(response: httpx.Response) -> dict[str, Any]:
    answer = orjson.loads(response.content or b"{}")
    if not isinstance(answer, dict):
        raise orjson.JSONDecodeError("not an object", "", 0)
    return answer


_HEADERS = {"Accept": "application/json"}
"""Given to the SDK's clients, which otherwise take more headers from the environment."""


class _Listing(msgspec.Struct):
    indexes: list[msgspec.Raw]


class _Named(msgspec.Struct):
    name: str


def _readable(raw: bytes) -> IndexModel | str:
    try:
        return IndexesAdapter.to_index_model(raw)
    except ResponseParsingError:
        return msgspec.json.decode(raw, type=_Named).name


class PineconeApi:
    """One project, reached with one key. ``endpoint`` is its control plane, without credentials."""

    def __init__(self, connection: Connection, transport: httpx.AsyncBaseTransport | None = None) -> None:
        url = str(connection.settings.get("controlUrl") or DEFAULT_URL).rstrip("/")
        parts = urlsplit(url)
        self.endpoint = f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path}"
        self.plain_http = parts.scheme == "http"
        """Whether hosts of indexes that are told without a scheme are asked over plain HTTP, like the control plane."""
        token = connection.credentials.token
        if not token:
            raise Terminal(
                "Pinecone needs an API key: put it as `token` into the Secret of controlCredentials",
                reason="MissingCredentials",
            )
        self._token = token
        self._namespace = connection.namespace
        self._timeout = connection.timeout
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        self._pool = _Pool(connection, parts, transport)
        try:
            self._pinecone = AsyncPinecone(
                api_key=token, host=self.endpoint, timeout=connection.timeout, additional_headers=_HEADERS
            )
        except PineconeError:
            raise Terminal(
                "the API key holds characters that no HTTP header takes: check the Secret for stray ones",
                reason="InvalidCredentials",
            ) from None
        self._http = self._pinecone._http  # noqa: SLF001 - see the module
        self._headers: Mapping[str, str] = {
            **self._http._headers,  # noqa: SLF001
            "User-Agent": f"vectorwright/{__version__} {self._http._headers['User-Agent']}",  # noqa: SLF001
        }
        self._http._client = self._client(self.endpoint)  # noqa: SLF001
        self._indexes: OrderedDict[Place, IndexClient] = OrderedDict()

    def _client(self, base_url: str, freshness: Freshness | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=base_url,
            headers=dict(self._headers),
            timeout=self._timeout,
            transport=self._pool,
            follow_redirects=False,
            # Neither proxies nor .netrc of the environment: credentials go where the spec says and nowhere else.
            trust_env=False,
            event_hooks={"response": [freshness.see]} if freshness else {},
        )

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        self._indexes.clear()
        await self._pool.shut()

    async def control(self, call: Callable[[AsyncIndexes], Awaitable[T]]) -> T:
        """Ask the control plane. Raises only errors of ours."""
        return await self._bounded(lambda: call(self._pinecone.indexes), self.endpoint, writes=False)

    async def listing(self) -> list[IndexModel | str]:
        """All indexes; of one that the SDK cannot read, made by a newer API, the name alone.

        The SDK's own listing leaves those out, which would look like a loss, and takes ``{}`` for an empty project.
        """
        response = await self._bounded(lambda: self._http.get("/indexes"), self.endpoint, writes=False)
        try:
            return [_readable(bytes(raw)) for raw in msgspec.json.decode(response.content, type=_Listing).indexes]
        except (msgspec.ValidationError, msgspec.DecodeError):
            raise stranger(self.endpoint) from None

    async def data(self, place: Place, call: Callable[[IndexClient], Awaitable[T]], *, writes: bool = False) -> T:
        """Ask the data plane of an index. Raises only errors of ours."""
        client = self._index(place)
        return await self._bounded(lambda: call(client), place.host, writes=writes)

    def freshness(self, place: Place) -> Freshness:
        """How far the index is behind what was written to it here."""
        return freshness_of(place, self._namespace)

    def _index(self, place: Place) -> IndexClient:
        client = self._indexes.get(place)
        if client is None:
            http = self._client(place.host, self.freshness(place))
            client = self._indexes[place] = IndexClient(place.host, self._token, http)
            if len(self._indexes) > MAX_CLIENTS:
                self._indexes.popitem(last=False)
        self._indexes.move_to_end(place)
        return client

    async def _bounded(self, call: Callable[[], Awaitable[T]], endpoint: str, *, writes: bool) -> T:
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout):
                    return await call()
            except (PineconeError, httpx.HTTPError) as error:
                raise translate(error, endpoint, (self._token,), writes=writes) from None
            except TimeoutError:
                raise Retryable(f"{endpoint} did not answer within {self._timeout:g} s", reason="Timeout") from None
            except (orjson.JSONDecodeError, UnicodeDecodeError):
                raise stranger(endpoint) from None
