"""Documents at a list of http and https addresses."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from vectorwright.api.v1alpha1.ingestion_source import HttpSource
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.ingest.contracts import Entry, Fetched
from vectorwright.ingest.network import DEFAULT_PORTS, AddressPolicy, shown_url
from vectorwright.ingest.parsers.limits import too_large
from vectorwright.ingest.run_directory import at_one_moment
from vectorwright.observability.logs import register_secret
from vectorwright.stores.base import Metadata

from .answers import status_error, transport_error
from .listing import listing_hash
from .mounted import read_credentials, tls_settings
from .pinned import MAX_REDIRECTS, is_web_address, origin, pinned_client, redirect_target

SPEC = "spec.source.http"
TRANSFER_TIMEOUT = 300.0
"""Seconds that one document may take, redirects included: 8 MiB at 30 kB/s."""

_IN_FLIGHT = 4
"""Documents fetched at once, fewer where they may be large: together they hold at most :data:`_IN_FLIGHT_BYTES`."""
_IN_FLIGHT_BYTES = 64 << 20

_RESOLVED_AT_ONCE = 16
_HEADER_LENGTH = 256
"""Characters of a header that are kept as metadata."""


@dataclass(frozen=True, slots=True)
class _Download:
    data: bytes
    media_type: str | None
    metadata: Metadata


def _address(text: str) -> httpx.URL:
    """An address of the spec. Raises Terminal ``InvalidSpec``; the message never holds user information."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise Terminal(f"{SPEC}.urls holds {shown_url(text)!r}, which is not an address") from None
    if not is_web_address(url):
        raise Terminal(f"{SPEC}.urls holds {shown_url(text)!r}; addresses begin with http:// or https:// and a host")
    if url.userinfo:
        raise Terminal(
            f"{SPEC}.urls holds credentials for {url.host}: everyone who can read the job can read them. Put them into "
            f"a Secret and name it in {SPEC}.credentials"
        )
    return url.copy_with(fragment=None)


class _Body:
    """Collects a body up to a limit, taking off gzip or deflate as it comes: a small answer can unpack to gigabytes."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._packed = encoding not in {"", "identity"}
        self._unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)

    def add(self, data: bytes) -> bool:
        """Take some of the body; False once it is over the limit."""
        if not self._packed:
            return self._keep(data)
        while data:
            if self._unpacker.eof:
                # gzip files may be joined, one behind the other.
                self._unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            if not self._keep(self._unpacker.decompress(data, self._limit - self._size + 1)):
                return False
            data = self._unpacker.unconsumed_tail or self._unpacker.unused_data
        return True

    def _keep(self, data: bytes) -> bool:
        self._size += len(data)
        self._parts.append(data)
        return self._size <= self._limit

    @property
    def complete(self) -> bool:
        """Whether what was packed came to its end."""
        return not self._packed or self._unpacker.eof or not self._parts

    def data(self) -> bytes:
        """The body."""
        return b"".join(self._parts)


def _header(response: httpx.Response, name: str) -> str | None:
    value = response.headers.get(name, "").strip()[:_HEADER_LENGTH]
    return value if value and value.isprintable() else None


class WebDocuments:
    """The source of a run over a list of addresses. The key is the address, without a fragment.

    Credentials are sent to the origins that the spec lists, never to those that they redirect to.
    """

    def __init__(self, source: HttpSource, directory: Path, policy: AddressPolicy, limit: int) -> None:
        self._policy = policy
        self._limit = limit
        self._urls = sorted({str(url): url for url in map(_address, source.urls)}.items())
        self._directory, self._credentials = directory, source.credentials
        self._authorization = self._read_authorization()
        self._client = pinned_client(policy, tls_settings(directory, source.tls))

    async def pin(self) -> str:
        """Hash of the list of addresses.

        Raises Terminal ``AddressRefused`` when one of them may not be reached. A host that does not exist, or a name
        server that is down, is an error of the documents on it, when they are fetched.
        """
        slots = asyncio.Semaphore(_RESOLVED_AT_ONCE)

        async def check(host: str, port: int) -> VectorwrightError | None:
            async with slots:
                try:
                    await self._policy.resolve(host, port)
                except (Terminal, Retryable) as error:
                    return error
                return None

        servers = {(u.raw_host.decode("ascii"), u.port or DEFAULT_PORTS[u.scheme]) for _, u in self._urls}
        for error in await asyncio.gather(*(check(*server) for server in sorted(servers))):
            if error is not None and error.reason == "AddressRefused":
                raise error
        return listing_hash((key,) for key, _ in self._urls)

    async def entries(self) -> AsyncIterator[Entry]:
        """All addresses, sorted. What is there is not known before it is fetched."""
        for key, _ in self._urls:
            yield Entry(key=key, metadata={"url": key})

    async def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
        """The documents, a few fetched at once, in the order asked for."""
        in_flight = max(1, min(_IN_FLIGHT, _IN_FLIGHT_BYTES // self._limit))
        waiting = iter(entries)
        running: deque[asyncio.Task[Fetched]] = deque()
        try:
            while True:
                while len(running) < in_flight and (entry := next(waiting, None)) is not None:
                    running.append(asyncio.create_task(self._fetch(entry)))
                if not running:
                    return
                result = await running[0]
                running.popleft()
                yield result
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _fetch(self, entry: Entry) -> Fetched:
        try:
            found = await self._download(entry.key)
        except (Terminal, Retryable) as error:
            return Fetched(entry, error=error)
        digest = hashlib.sha256(found.data).hexdigest()
        known = replace(
            entry,
            token=digest,
            size=len(found.data),
            media_type=found.media_type,
            metadata={**entry.metadata, **found.metadata, "checksum": f"sha256:{digest}"},
        )
        return Fetched(known, data=found.data)

    def _read_authorization(self) -> str | None:
        """The header, as the files of the Secret are now. Raises Terminal (``SecretKeyMissing``)."""
        found = at_one_moment(self._directory, lambda place: read_credentials(place, self._credentials))
        if found is None:
            return None
        for secret in (found.token, found.password):
            register_secret(secret or "")
        return f"Bearer {found.token}" if found.token else found.basic_header

    def _renew(self) -> bool:
        """Whether the Secret has other credentials by now, which are sent from now on."""
        try:
            found = self._read_authorization()
        except Terminal:
            return False  # its files are being removed, or lost their keys: what there was may still do
        changed, self._authorization = found != self._authorization, found
        return changed

    async def _download(self, key: str) -> _Download:
        """One attempt, and another one where the Secret changed since. Raises Terminal or Retryable."""
        self._renew()
        try:
            return await self._attempt(key)
        except Terminal as error:
            if error.reason != "AccessDenied" or not self._renew():
                raise
        return await self._attempt(key)

    async def _attempt(self, key: str) -> _Download:
        shown = shown_url(key)
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT):
                return await self._follow(httpx.URL(key))
        except TimeoutError:
            raise Retryable(f"{shown} took more than {TRANSFER_TIMEOUT:.0f} s", reason="Timeout") from None
        except httpx.HTTPError as error:
            raise transport_error(error, shown, SPEC) from None
        except zlib.error:
            raise Retryable(f"{shown} sent a body that does not unpack", reason="BadAnswer") from None

    async def _follow(self, listed: httpx.URL) -> _Download:
        url = listed
        for _ in range(MAX_REDIRECTS + 1):
            trusted = origin(url) == origin(listed)
            headers = {"Authorization": self._authorization} if self._authorization and trusted else {}
            response = await self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
            try:
                target = redirect_target(response, url)
                if target is None:
                    return await self._read(response, str(listed), credentials=bool(headers))
                url = target
            except ValueError:
                raise Terminal(
                    f"{shown_url(str(listed))} redirects to something that is not an address", reason="BadRedirect"
                ) from None
            finally:
                await response.aclose()
        raise Terminal(
            f"{shown_url(str(listed))} redirects more than {MAX_REDIRECTS} times: list the final address",
            reason="TooManyRedirects",
        )

    async def _read(self, response: httpx.Response, key: str, *, credentials: bool) -> _Download:
        if response.status_code != 200:
            raise status_error(response, shown_url(key), SPEC, credentials=credentials)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise Terminal(
                f"{shown_url(key)} packs its answer in a way that was not asked for", reason="UnsupportedEncoding"
            )
        length = response.headers.get("content-length", "")
        stated = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
        oversized = Terminal(too_large(shown_url(key), self._limit), reason="DocumentTooLarge")
        if stated > self._limit:
            raise oversized
        body = _Body(encoding, self._limit)
        async for part in response.aiter_raw():
            if not body.add(part):
                raise oversized
        if not body.complete:
            raise Retryable(f"{shown_url(key)} broke off in the middle of the document", reason="BadAnswer")
        metadata: Metadata = {}
        for name in ("etag", "last-modified", "content-type"):
            value = _header(response, name)
            if value is not None:
                metadata[name.replace("-", "_")] = value
        return _Download(body.data(), _header(response, "content-type"), metadata)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
