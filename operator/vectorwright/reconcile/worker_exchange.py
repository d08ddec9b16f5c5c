"""The exchange with a running worker: its progress comes back, its budget goes out."""

from __future__ import annotations

from typing import Any

import aiohttp
from pydantic import ValidationError

from vectorwright.ingest.runspec import RunState

from .runner_base import WorkerBudget

TIMEOUT = 2.0
"""Seconds for one exchange: a worker that is busy is asked again at the next look."""
MAX_ANSWER = 256 * 1024
"""Bytes of an answer that are read."""


def _budget(budget: WorkerBudget) -> dict[str, Any]:
    told = {
        "requestsPerSecond": budget.requests_per_second,
        "bytesPerSecond": budget.bytes_per_second,
        "embedRequestsPerMinute": budget.embed_requests_per_minute,
        "embedTokensPerMinute": budget.embed_tokens_per_minute,
        "sourceRequestsPerSecond": budget.source_requests_per_second,
    }
    return {name: value for name, value in told.items() if value is not None}


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The whole answer, which may come in many pieces; what is longer than a worker's answer can be is cut."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER:
            break
    return bytes(body)


async def exchange(base: str, budget: WorkerBudget | None, *, socket: str | None = None) -> RunState | None:
    """Ask for progress and hand out the budget. None when the worker does not answer, or not sensibly.

    ``base`` is ``http://address:port``; ``socket`` the path of a Unix socket to use instead of TCP.
    """
    connector = aiohttp.UnixConnector(path=socket) if socket else aiohttp.TCPConnector()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            if budget is not None and (told := _budget(budget)):
                async with session.post(f"{base}/budget", json=told) as answer:
                    await _read(answer)
            async with session.get(f"{base}/progress") as answer:
                if answer.status != 200:
                    return None
                return RunState.model_validate_json(await _read(answer))
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
        return None
