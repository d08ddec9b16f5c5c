"""The parent's little HTTP client: whatever comes back, a call ends in time, with an answer or one of our errors."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme
from tests.support.scripted_http import answer, refusal, scripted

from vectorwright.errors import Conflict, NotFound, Retryable
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.resources import LEASES
from vectorwright.kube.slim import SlimClient

CHUNKED = (
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\n{"a":\r\n3\r\n 1}\r\n0\r\nTrailer: x\r\n\r\n'
)
UNTIL_CLOSED = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"a": 1}'


@pytest.mark.parametrize("raw", [answer(200, {"a": 1}), CHUNKED, UNTIL_CLOSED])
async def test_answers_of_every_framing_are_read(raw: bytes) -> None:
    async with scripted(lambda _n, _l: raw) as (url, seen):
        client = SlimClient(KubeConnection(server=url))
        for _ in range(3):
            assert await client.get(LEASES, "lead", "team") == {"a": 1}
        await client.close()
    assert seen == ["GET /apis/coordination.k8s.io/v1/namespaces/team/leases/lead HTTP/1.1"] * 3


async def test_refusals_are_the_same_errors_as_elsewhere() -> None:
    answers = [refusal(404, "NotFound"), refusal(409, "AlreadyExists"), refusal(503, "Busy")]
    async with scripted(lambda n, _: answers[n - 1]) as (url, _):
        client = SlimClient(KubeConnection(server=url))
        with pytest.raises(NotFound):
            await client.get(LEASES, "lead", "team")
        with pytest.raises(Conflict):
            await client.create(LEASES, {"metadata": {"name": "lead"}}, "team")
        with pytest.raises(Retryable):
            await client.replace(LEASES, "lead", "team", {})
        await client.close()


async def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    def script(number: int, _: str) -> bytes | None:
        return None if number == 2 else answer(200, {"n": number})

    async with scripted(script) as (url, seen):
        client = SlimClient(KubeConnection(server=url))
        assert await client.get(LEASES, "lead", "team") == {"n": 1}
        assert await client.get(LEASES, "lead", "team") == {"n": 3}
        await client.close()
    assert len(seen) == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
        b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{"a"',
        answer(200, b"<html>"),
    ],
)
async def test_rubbish_is_retryable(raw: bytes) -> None:
    async with scripted(lambda _n, _l: raw) as (url, _):
        client = SlimClient(KubeConnection(server=url), timeout=1)
        with pytest.raises(Retryable):
            await client.get(LEASES, "lead", "team")
        await client.close()


async def test_a_server_that_dribbles_is_given_up_in_time() -> None:
    gone = asyncio.Event()

    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _n in range(1000):
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            gone.set()
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with server:
        client = SlimClient(
            KubeConnection(server=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), timeout=0.4
        )
        begun = asyncio.get_running_loop().time()
        with pytest.raises(Retryable) as late:
            await client.check()
        assert asyncio.get_running_loop().time() - begun < 10
        assert late.value.reason == "Timeout"
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_server_of_another_authority_is_not_spoken_to() -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = SlimClient(KubeConnection(server=url, ca=trustme.CA().cert_pem.bytes().decode()))
        with pytest.raises(Retryable, match="certificate is not trusted"):
            await client.check()
        assert not asked.is_set()
