"""What tests of the sources share: a run over one source, and what it lists and brings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from vectorwright.errors import Terminal
from vectorwright.ingest.contracts import Entry, Fetched, Source
from vectorwright.ingest.runspec import RunSpec

LOOPBACK = {"allowNetworks": ["127.0.0.1/32"]}
"""The only address of this machine that the tests let a source reach: all others stay refused."""

SECRET = "s3cret-t0ken"


def run_spec(source: dict[str, Any], **more: Any) -> RunSpec:
    return RunSpec.model_validate(
        {
            "runId": "run-1",
            "job": "ns/job",
            "sourceName": "ns/job",
            "source": source,
            "store": {
                "provider": "memory",
                "settings": {},
                "index": "i",
                "incarnation": "1",
                "dimension": 3,
                "metric": "cosine",
            },
            **more,
        }
    )


async def listed(source: Source) -> list[Entry]:
    return [entry async for entry in source.entries()]


async def fetched(source: Source, entries: list[Entry]) -> list[Fetched]:
    return [item async for item in source.fetch(entries)]


async def refusal(source: Source) -> Terminal:
    with pytest.raises(Terminal) as refused:
        await source.pin()
    return refused.value


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """A server on loopback that does with each connection what ``answer`` does; the port it listens on.

    When the block is left, every connection is closed, whatever ``answer`` waits for.
    """
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await answer(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.get_running_loop().create_task(serve(reader, writer)))

    async with await asyncio.start_server(begin, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def secret(directory: Path, **values: str) -> None:
    """Credentials as they are mounted."""
    files = directory / "credentials" / "source"
    files.mkdir(parents=True)
    for name, value in values.items():
        (files / name).write_text(value)
