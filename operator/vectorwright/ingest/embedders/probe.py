"""Asks a child of the worker command what a local model is."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict

import orjson

from vectorwright.api.v1alpha1.embeddingmodel import EmbeddingModelSpec
from vectorwright.errors import Retryable, Terminal, VectorwrightError

from .registry import EmbedderInfo, probe_here

PROBE_SECONDS = 60.0
"""Importing the model's libraries and reading 16 MB of weights takes a second; a busy node may need many."""

_ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")


def child_environment() -> dict[str, str]:
    """What a child of ours needs of the environment, without whatever else is in there."""
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}


async def probe_local(spec: EmbeddingModelSpec, *, timeout: float = PROBE_SECONDS) -> EmbedderInfo:  # noqa: ASYNC109
    """What a local model is, found by a child process that then ends.

    Raises Terminal as the child says, Retryable (``ProbeFailed``) where it died or took too long.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vectorwright",
        "worker",
        "--probe-embedder",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment(),
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await child.communicate(orjson.dumps(spec.dump()))
    except TimeoutError:
        message = f"loading the local model took longer than {timeout:.0f} s: is the node short of memory or CPU?"
        raise Retryable(message, reason="ProbeFailed") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return parse_answer(output, child.returncode or 0)


def parse_answer(output: bytes, code: int) -> EmbedderInfo:
    """The child's answer. Raises the error that it tells of, or Retryable where it makes no sense."""
    try:
        answer = orjson.loads(output)
        if "error" in answer:
            kind = Terminal if answer["terminal"] else Retryable
            raise kind(str(answer["error"]), reason=str(answer["reason"]))
        return EmbedderInfo(**answer)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"the child that loads the local model ended with code {code} and no answer; was it out of memory?"
        raise Retryable(message, reason="ProbeFailed") from None


def error_answer(error: VectorwrightError) -> bytes:
    """An error, as the child writes it."""
    failed = {"error": error.message, "reason": error.reason, "terminal": not isinstance(error, Retryable)}
    return orjson.dumps(failed) + b"\n"


async def answer_probe(spec: EmbeddingModelSpec) -> bytes:
    """What the child writes: the info, or the error, as one line of JSON."""
    try:
        info = await probe_here(spec, token=None, ca=None)
    except VectorwrightError as error:
        return error_answer(error)
    return orjson.dumps(asdict(info)) + b"\n"
