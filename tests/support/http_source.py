"""What tests of the http source share: addresses as runs see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.sources import LOOPBACK, SECRET, fetched, listed, run_spec

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.contracts import Fetched, Source
from vectorwright.ingest.sources.registry import open_source


@asynccontextmanager
async def opened(directory: Path, *urls: str, limit: int | None = None, **source: Any) -> AsyncIterator[Source]:
    parse = {"maxDocumentBytes": limit} if limit else {}
    made = open_source(run_spec({"http": {"urls": list(urls), **source}}, network=LOOPBACK, parse=parse), directory)
    try:
        yield made
    finally:
        await made.close()


async def get(directory: Path, *urls: str, **settings: Any) -> list[Fetched]:
    async with opened(directory, *urls, **settings) as source:
        await source.pin()
        return await fetched(source, await listed(source))


async def failure(directory: Path, url: str, **settings: Any) -> Terminal | Retryable:
    (found,) = await get(directory, url, **settings)
    assert found.data is None
    assert isinstance(found.error, Terminal | Retryable)
    assert SECRET not in found.error.message
    return found.error
