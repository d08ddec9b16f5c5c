"""The listener for probes and scrapes: three paths, and no patience for anybody who wastes its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from vectorwright.errors import Terminal
from vectorwright.observability import health
from vectorwright.observability.health import Answer, HealthServer, parent_exposition
from vectorwright.settings import BindAddress

LOOPBACK = BindAddress("127.0.0.1", 0)


async def ok() -> Answer:
    return Answer(200, b"ok\n")


async def failing() -> Answer:
    return Answer(503, b"no\n")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = HealthServer({"/healthz": ok, "/readyz": failing})
    yield (await server.start(LOOPBACK)).port
    await server.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            writer.transport.abort()


async def exchange(port: int, request: bytes) -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        (b"GET /healthz HTTP/1.1", b"200 OK", b"ok\n"),
        (b"GET /healthz?verbose HTTP/1.0", b"200 OK", b"ok\n"),
        (b"GET /readyz HTTP/1.1", b"503 Service Unavailable", b"no\n"),
        (b"HEAD /healthz HTTP/1.1", b"200 OK", b""),
        (b"GET /secret HTTP/1.1", b"404 Not Found", b"there are /healthz, /readyz and /metrics\n"),
        (b"POST /healthz HTTP/1.1", b"405 Method Not Allowed", b"only GET and HEAD\n"),
        (b"hello", b"400 Bad Request", b"not HTTP/1\n"),
    ],
)
async def test_requests(port: int, request_line: bytes, status: bytes, body: bytes) -> None:
    answer = await exchange(port, request_line + b"\r\nHost: x\r\n\r\n")
    head, _, got = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in head
    assert got == body


async def test_a_head_without_end_is_refused(port: int) -> None:
    assert (await exchange(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)).startswith(b"HTTP/1.1 431 ")


async def test_who_says_nothing_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_HEAD_S", 0.2)
    async with connected(port) as (reader, writer):
        writer.write(b"GET /healthz")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 2) == b""


async def test_a_crowd_does_not_keep_it_from_answering_later(port: int) -> None:
    crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
    for _, writer in crowd:
        writer.transport.abort()
    await asyncio.sleep(0.1)
    assert (await exchange(port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"ok\n")


async def test_a_taken_port_is_told_in_a_sentence(port: int) -> None:
    with pytest.raises(Terminal, match=f"cannot listen on 127.0.0.1:{port}: .*choose another --metrics-bind-address"):
        await HealthServer({}).start(BindAddress("127.0.0.1", port))


async def test_all_interfaces_share_the_chosen_port() -> None:
    server = HealthServer({"/healthz": ok})
    chosen = await server.start(BindAddress("", 0))
    assert (await exchange(chosen.port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"ok\n")
    await server.close()


def test_the_parents_own_metrics() -> None:
    text = parent_exposition(leading=False, child_starts=3, heartbeat_age=None).decode()
    assert "vectorwright_leader 0\n" in text
    assert "vectorwright_child_starts_total 3\n" in text
    assert "heartbeat" not in text
    assert (
        "vectorwright_heartbeat_age_seconds 1.500\n"
        in parent_exposition(leading=True, child_starts=3, heartbeat_age=1.5).decode()
    )
