"""Parsing and chunking in processes that can be killed.

A document can make a parser loop, crash or eat memory. So it is parsed in a child process with a time limit and a
memory limit; when one is broken, the child is killed, that document is rejected with the reason, and the next one gets
a new child. Children have an empty environment and end with the worker, however that ends.

A 2 KB Markdown document takes 0.2 ms there and back, half of it parsing and chunking (one core, measured).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import vectorwright
from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.api.v1alpha1.ingestionjob import Parse
from vectorwright.errors import Retryable

from .chunking import check_settings
from .contracts import Document, Fetched, Rejected
from .parsers.child import EXIT_OUT_OF_MEMORY
from .parsers.documents import parse_bytes
from .parsers.limits import document_limit, time_limit, too_large
from .parsers.wire import LENGTH, decode_answer, encode_frame, encode_request

__all__ = ["ParserPool", "parse_bytes"]

BASE_MEMORY = 1 << 30
"""Bytes that a child may use, beyond eight times the largest document: a parsed HTML page takes about eight times its
size, and the interpreter with a tokenizer 150 MiB."""
MEMORY_A_BYTE = 8

LEAST_ANSWER = 64 << 20
"""Bytes that an answer may always have; beyond it, eight times the largest document (overlap repeats text)."""

START_TIMEOUT = 60.0
"""Seconds: a child starts in half a second, ten times slower on a busy node."""

_BOOTSTRAP = "import sys; sys.path.append(sys.argv[1]); from vectorwright.ingest.parsers.child import serve; serve()"
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT")
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    # The others reserve memory beforehand, which counts against the limit.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class _Died(Exception):  # noqa: N818 - an event, not an error of ours
    """The child is gone. ``code`` is its exit status, negative for a signal."""

    def __init__(self, code: int, *, fresh: bool) -> None:
        super().__init__(code)
        self.code = code
        self.fresh = fresh
        """Whether it had parsed nothing before."""


class _Child:
    """One parser process, started when it is needed."""

    def __init__(self, settings: bytes, time_limit: float, answer_limit: int) -> None:
        self._settings = settings
        self._time_limit = time_limit
        self._answer_limit = answer_limit
        self._process: asyncio.subprocess.Process | None = None
        self._served = 0

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            _BOOTSTRAP,
            str(Path(vectorwright.__file__).parent.parent),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment | _ENVIRONMENT,
            cwd="/",
            limit=1 << 20,
        )
        self._process, self._served = process, 0
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._send(process, self._settings)
                await self._receive(process)
        except (_Died, TimeoutError) as error:
            await self.kill()
            how = f"ended with status {error.code}" if isinstance(error, _Died) else "did not start in time"
            raise Retryable(f"the parser's process {how}", reason="ParserUnavailable") from None
        except asyncio.CancelledError:
            await self.kill()
            raise
        return process

    async def _died(self, process: asyncio.subprocess.Process) -> _Died:
        fresh = self._served == 0
        await self.kill()
        return _Died(process.returncode or 0, fresh=fresh)

    async def _send(self, process: asyncio.subprocess.Process, *parts: bytes) -> None:
        assert process.stdin is not None  # noqa: S101 - for the type checker: it was made with a pipe
        try:
            for part in parts:
                process.stdin.write(part)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._died(process) from None

    async def _receive(self, process: asyncio.subprocess.Process) -> list[Document | Rejected]:
        assert process.stdout is not None  # noqa: S101 - as above
        try:
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            if length > self._answer_limit + LENGTH.size:
                raise await self._died(process)
            return decode_answer(await process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionResetError, ValueError, TypeError):
            raise await self._died(process) from None

    async def parse(self, fetched: Fetched, data: bytes) -> list[Document | Rejected]:
        """The documents. Raises :class:`_Died`, and ``TimeoutError`` after the child was killed."""
        process = self._process
        if process is None or process.returncode is not None:
            await self.kill()
            process = await self._start()
        try:
            async with asyncio.timeout(self._time_limit):
                await self._send(process, encode_request(fetched.entry, data), data)
                found = await self._receive(process)
        except (TimeoutError, asyncio.CancelledError):
            # What it would still answer belongs to nobody.
            await self.kill()
            raise
        self._served += 1
        return found

    async def kill(self) -> None:
        """End the process at once. Safe to call when there is none."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            # Not process.kill(): that reaps an ended child behind asyncio's back, and its status is lost.
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        # Reads what is left, so that the pipes are closed.
        await asyncio.shield(process.communicate())


class ParserPool:
    """Parses and chunks documents in ``processes`` child processes, each one document at a time.

    Raises Terminal at once when the chunk settings cannot be used (``InvalidSpec``, ``TokenizerMissing``).
    """

    def __init__(
        self,
        parse: Parse,
        chunk: ChunkSettings,
        precomputed_field: str | None = None,
        *,
        processes: int = 1,
        memory_bytes: int | None = None,
    ) -> None:
        check_settings(chunk)
        self._document_limit = document_limit(parse)
        self._time_limit = time_limit(parse)
        self._memory = memory_bytes or BASE_MEMORY + MEMORY_A_BYTE * self._document_limit
        answer_limit = max(LEAST_ANSWER, MEMORY_A_BYTE * self._document_limit)
        settings = encode_frame(
            {
                "parse": parse.dump(),
                "chunk": chunk.dump(),
                "field": precomputed_field,
                "memory": self._memory,
                "answer": answer_limit,
                "parent": os.getpid(),
            }
        )
        self._children = [_Child(settings, self._time_limit, answer_limit) for _ in range(processes)]
        self._idle: asyncio.Queue[_Child] = asyncio.Queue()
        for child in self._children:
            self._idle.put_nowait(child)

    async def parse(self, fetched: Fetched) -> list[Document | Rejected]:
        """The documents in what was fetched. A document that cannot be parsed comes back as Rejected:

        ``DocumentTooLarge`` over the limit; ``ParseTimeout`` over the time limit; ``ParserOutOfMemory`` over the memory
        limit; ``ParserCrashed`` when the parser died of it; ``ParseFailed`` and the parsers' own reasons otherwise. A
        fetch that failed comes back with the reason of its error.

        Raises Retryable ``ParserUnavailable`` when no parser can be started.
        """
        entry, data = fetched.entry, fetched.data
        if fetched.error is not None or data is None:
            reason, message = ("NotFetched", f"{entry.key} was not fetched")
            if fetched.error is not None:
                reason, message = fetched.error.reason, fetched.error.message
            return [Rejected(entry.key, reason, message)]
        if len(data) > self._document_limit:
            message = too_large(entry.key, self._document_limit, len(data))
            return [Rejected(entry.key, "DocumentTooLarge", message)]
        child = await self._idle.get()
        try:
            return await self._parse_with(child, fetched, data)
        finally:
            self._idle.put_nowait(child)

    async def _parse_with(self, child: _Child, fetched: Fetched, data: bytes) -> list[Document | Rejected]:
        key = fetched.entry.key
        last = False
        while True:
            try:
                return await child.parse(fetched, data)
            except TimeoutError:
                message = (
                    f"{key}: parsing and chunking took more than {self._time_limit:g} s: raise spec.parse.timeout, or "
                    "leave it out of the source"
                )
                return [Rejected(key, "ParseTimeout", message)]
            except _Died as death:
                # A used child may have died of what came before, and SIGKILL comes from outside: ask a fresh one, once.
                if not last and (not death.fresh or death.code == -signal.SIGKILL):
                    last = True
                    continue
                return [self._rejected(key, death.code)]

    def _rejected(self, key: str, code: int) -> Rejected:
        if code == EXIT_OUT_OF_MEMORY:
            megabytes = self._memory >> 20
            message = f"{key}: parsing and chunking it takes more than {megabytes} MiB of memory"
            return Rejected(key, "ParserOutOfMemory", message)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return Rejected(key, "ParserCrashed", f"{key}: the parser's process died of it ({how})")

    async def close(self) -> None:
        """End all child processes. Safe to call twice."""
        for child in self._children:
            await child.kill()
