"""What tests of the git source share: repositories as runs see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.sources import LOOPBACK, SECRET, fetched, listed, run_spec

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.contracts import Entry, Source
from vectorwright.ingest.sources.registry import open_source


def working_copies(directory: Path) -> list[Path]:
    """What runs in ``directory`` left there of git."""
    return list(directory.glob("git-*"))


@asynccontextmanager
async def opened(directory: Path, url: str, limit: int | None = None, **source: Any) -> AsyncIterator[Source]:
    parse = {"maxDocumentBytes": limit} if limit else {}
    made = open_source(run_spec({"git": {"url": url, **source}}, network=LOOPBACK, parse=parse), directory)
    try:
        yield made
    finally:
        await made.close()
        await made.close()
    assert not working_copies(directory)


async def entries_of(directory: Path, url: str, **source: Any) -> list[Entry]:
    async with opened(directory, url, **source) as made:
        await made.pin()
        return await listed(made)


async def contents_of(directory: Path, url: str, **source: Any) -> dict[str, bytes | str]:
    """Content, or the reason why there is none, by key."""
    async with opened(directory, url, **source) as made:
        await made.pin()
        found = await fetched(made, await listed(made))
    return {
        item.entry.key: item.data if item.data is not None else item.error.reason if item.error else ""
        for item in found
    }


async def pin_error(directory: Path, url: str, **source: Any) -> Terminal | Retryable:
    async with opened(directory, url, **source) as made:
        with pytest.raises((Terminal, Retryable)) as failed:
            await made.pin()
    error = failed.value
    assert isinstance(error, Terminal | Retryable)
    assert SECRET not in error.message
    return error


def processes_in(directory: Path) -> list[int]:
    """Processes that work in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(directory):
                found.append(int(process.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found
