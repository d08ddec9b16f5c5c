"""An HTTP client that connects only to addresses that the network policy has checked.

The name is resolved and checked for every request, and the connection goes to that address: nothing is looked up
twice, so a name server that changes its mind between check and use gains nothing. The name stays what it was in the
Host header and in the TLS handshake. Redirects are not followed here: each hop is a new request, and is checked like
one.
"""

from __future__ import annotations

import ssl

import httpx

from vectorwright import __version__
from vectorwright.ingest.network import DEFAULT_PORTS, AddressPolicy
from vectorwright.stores.registry import TlsSettings
from vectorwright.stores.tls import ssl_context

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TARGET = "vectorwright_redirect"
_LAST_PORT = 65_535

_TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=30.0, pool=None)
"""Seconds for one step. Callers bound the whole transfer."""

_KEPT_ALIVE = 32
"""Servers whose connections are kept for the next request; further ones get a new connection each time."""


class PinnedTransport(httpx.AsyncBaseTransport):
    """Sends each request to a checked address. Raises as :meth:`AddressPolicy.resolve` does.

    Connections are shared only between requests to one server by one name: two names may share an address, but a
    certificate was checked for one of them.
    """

    def __init__(self, policy: AddressPolicy, tls: TlsSettings) -> None:
        self._policy = policy
        self._server_name = tls.server_name
        self._context: ssl.SSLContext = ssl_context(tls)
        self._by_server: dict[tuple[str, str, int], httpx.AsyncHTTPTransport] = {}
        self._unshared = self._transport(keep=0)

    def _transport(self, keep: int) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=keep, keepalive_expiry=15.0)
        return httpx.AsyncHTTPTransport(verify=self._context, trust_env=False, limits=limits)

    def _for(self, server: tuple[str, str, int]) -> httpx.AsyncHTTPTransport:
        found = self._by_server.get(server)
        if found is None:
            if len(self._by_server) >= _KEPT_ALIVE:
                return self._unshared
            found = self._by_server[server] = self._transport(keep=4)
        return found

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request, to the first of the name's addresses that takes the connection."""
        url = request.url
        host = url.raw_host.decode("ascii")
        port = url.port or DEFAULT_PORTS[url.scheme]
        addresses = await self._policy.resolve(host, port)
        transport = self._for((url.scheme, host, port))
        extensions = {**request.extensions, "sni_hostname": self._server_name or host}
        failure: httpx.TransportError | None = None
        for address in addresses:
            pinned = httpx.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
            try:
                return _keep_redirect(await transport.handle_async_request(pinned))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError("no address")

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._unshared, *self._by_server.values()):
            await transport.aclose()


def _keep_redirect(response: httpx.Response) -> httpx.Response:
    """Put the target of a redirect out of httpx's reach: it reads it even where it does not follow, and fails in odd
    ways on a hostile one."""
    if response.status_code in _REDIRECTS and "location" in response.headers:
        response.extensions[_TARGET] = response.headers["location"]
        del response.headers["location"]
    return response


def redirect_target(response: httpx.Response, asked: httpx.URL) -> httpx.URL | None:
    """Where an answer redirects to, without user information and fragment; None where it does not.

    Raises ``ValueError`` when that is not an http or https address.
    """
    location = response.extensions.get(_TARGET)
    if location is None:
        return None
    try:
        target = asked.join(location)
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from None
    if not is_web_address(target):
        raise ValueError("not an http or https address")
    return target.copy_with(userinfo=b"", fragment=None)


def is_web_address(url: httpx.URL) -> bool:
    """Whether it names a scheme, a host and perhaps a port that can be asked."""
    return url.scheme in {"http", "https"} and bool(url.host) and (url.port or 0) <= _LAST_PORT


def pinned_client(policy: AddressPolicy, tls: TlsSettings) -> httpx.AsyncClient:
    """A client over :class:`PinnedTransport`, without proxies, cookies of others' environments or redirects.

    Raises Terminal ``InvalidCA`` where the certificate authorities cannot be read.
    """
    return httpx.AsyncClient(
        transport=PinnedTransport(policy, tls),
        trust_env=False,
        follow_redirects=False,
        timeout=_TIMEOUT,
        headers={"User-Agent": f"vectorwright/{__version__}", "Accept-Encoding": "gzip"},
    )


def origin(url: httpx.URL) -> tuple[str, bytes, int]:
    """Scheme, host and port: credentials go to the origin that they were given for, and nowhere else."""
    return url.scheme, url.raw_host, url.port or DEFAULT_PORTS.get(url.scheme, 0)
