"""TLS in front of a server that speaks none, with an authority of its own."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.support.async_front import AsyncFront, Streams, passed_on

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""Length 8, then the request code 80877103 (PostgreSQL's documentation, "Message Formats")."""

_REFUSED = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry: this port takes TLS connections only\0\0"


class TlsFront(AsyncFront):
    """Passes every byte on to a server that speaks no TLS.

    ``ca_file`` vouches for its certificate, which names 127.0.0.1 and localhost. With ``postgres`` the client first
    asks for TLS in PostgreSQL's way (SSLRequest), and one that does not is refused as by ``hostssl`` lines alone. With
    ``grpc`` it says that it speaks HTTP/2, and nothing else.
    """

    def __init__(self, backend_port: int, ca_file: Path, *, postgres: bool = False, grpc: bool = False) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(ca_file)
        self.ca_file = ca_file
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(self._context)
        if grpc:
            self._context.set_alpn_protocols(["h2"])  # gRPC talks to nobody who does not say it
        self._backend_port = backend_port
        self._postgres = postgres
        super().__init__()
        self.url = f"https://127.0.0.1:{self.port}"

    async def _listen(self) -> asyncio.Server:
        at_once = None if self._postgres else self._context
        return await asyncio.start_server(self._served, self.host, 0, ssl=at_once)

    async def serve(self, client: Streams) -> None:
        """TLS with the client, what it says to the server."""
        if not self._postgres or await self._start_tls(*client):
            await passed_on(client, await asyncio.open_connection("127.0.0.1", self._backend_port))

    async def _start_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        asked = await reader.readexactly(8) == _SSL_REQUEST
        writer.write(b"S" if asked else b"E" + (len(_REFUSED) + 4).to_bytes(4, "big") + _REFUSED)
        await writer.drain()
        if asked:
            await writer.start_tls(self._context)
        return asked


@pytest.fixture
def tls_front() -> Iterator[Callable[..., TlsFront]]:
    """``tls_front(port, grpc=False)`` puts TLS in front of a server; the answer has ``url``, ``port``, ``ca_file``."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-tls-"))
    fronts: list[TlsFront] = []

    def begin(backend_port: int, *, grpc: bool = False) -> TlsFront:
        front = TlsFront(backend_port, base / f"ca-{len(fronts)}.pem", grpc=grpc)
        fronts.append(front)
        return front

    yield begin
    for front in fronts:
        front.close()
    shutil.rmtree(base)
