"""The parser's process: reads documents from its standard input, writes their chunks to its standard output.

It holds nothing worth stealing and ends with its worker. What a document can do to it (loop, crash, use up memory)
costs that document alone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

from vectorwright.api.v1alpha1.ingestionjob import Chunk, Parse
from vectorwright.ingest.chunking import chunker_for
from vectorwright.ingest.contracts import Document, Fetched, Rejected

from .documents import parse_bytes
from .wire import LENGTH, REQUEST, decode_entry, encode_answer

EXIT_OUT_OF_MEMORY = 12
"""ENOMEM."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a defect of a parser raises on a strange document."""


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies. Linux only; elsewhere the closed pipe ends it."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit_resources(memory_bytes: int) -> None:
    """Bound what this process may use, and offer it first where memory is short."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # macOS takes this limit from nobody.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        # The worker is gone.
        os._exit(0)
    return data


def _answer(head: bytes, data: bytes, parse: Parse, chunk: Chunk, field: str | None, limit: int) -> bytes:
    entry = decode_entry(head)
    try:
        found: list[Document | Rejected] = parse_bytes(Fetched(entry, data=data), parse, chunk, field)
    except _FAULTS as error:
        message = f"{entry.key}: the parser failed on it ({type(error).__name__})"
        found = [Rejected(entry.key, "ParseFailed", message)]
    answer = encode_answer(found)
    if len(answer) > limit:
        message = f"{entry.key}: its chunks hold {len(answer)} bytes, more than {limit}: lower spec.chunk.overlap"
        return encode_answer([Rejected(entry.key, "OutputTooLarge", message)])
    return answer


def serve() -> None:
    """Answer requests until the worker closes the pipe."""
    source = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get between the frames.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    (length,) = LENGTH.unpack(_read(source, LENGTH.size))
    settings = orjson.loads(_read(source, length))
    end_with_parent(settings["parent"])
    parse = Parse.model_validate(settings["parse"])
    chunk = Chunk.model_validate(settings["chunk"])
    chunker_for(chunk)
    limit_resources(settings["memory"])
    answers.write(encode_answer([]))
    answers.flush()
    while True:
        head_length, data_length = REQUEST.unpack(_read(source, REQUEST.size))
        try:
            head, data = _read(source, head_length), _read(source, data_length)
            answers.write(_answer(head, data, parse, chunk, settings["field"], settings["answer"]))
            answers.flush()
        except MemoryError:
            os._exit(EXIT_OUT_OF_MEMORY)
