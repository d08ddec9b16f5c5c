"""What tests of the sources share: a run over one source, and what it lists and brings."""

from __future__ import annotations

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


def secret(directory: Path, **values: str) -> None:
    """Credentials as they are mounted."""
    files = directory / "credentials" / "source"
    files.mkdir(parents=True)
    for name, value in values.items():
        (files / name).write_text(value)
