"""The worker process: one run, from its directory to its exit status.

It holds no token of the Kubernetes API and knows no resource: what it does is in ``run.json``, what it did is in its
exit status, its termination message and its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.observability.logs import log_context

from .contracts import Embedder
from .control_server import Address, ControlServer, serving
from .copying.run import copy_of
from .embedders.openai import concurrency
from .embedders.registry import fingerprint, resolved_revision
from .limits import Limits
from .parser_pool import ParserPool
from .pipeline import Run
from .progress import termination_message
from .renewing import RenewingEmbedder, open_run_origin, open_run_store
from .run_directory import read_run, read_secret
from .run_frame import RunFrame
from .runspec import EXIT_RETRYABLE, EXIT_SUCCESS, EXIT_TERMINAL, RunSpec, RunState
from .sources.registry import open_source

logger = logging.getLogger(__name__)

_LOCAL_CONCURRENCY = 1
"""Embeddings at a time of a model in this process: its tokenizer uses all cores by itself."""
_LOG_SECONDS = 30.0
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker is started."""

    directory: Path
    address: Address | None = None
    termination_log: Path | None = None
    exit_on_stdin_eof: bool = False


def exit_code(state: RunState) -> int:
    """The exit status that says what may be done about a run."""
    if state.phase is Phase.FAILED:
        return EXIT_RETRYABLE if state.retryable else EXIT_TERMINAL
    return EXIT_SUCCESS


async def work(options: WorkerOptions) -> int:
    """Run, and return the exit status. The final state is in the termination log by then."""
    run_id = "unknown"
    try:
        spec = read_run(options.directory)
        run_id = spec.run_id
        namespace, _, name = spec.job.rpartition("/")
        with log_context(kind="IngestionJob", namespace=namespace or None, name=name, correlation_id=run_id):
            state = await _supervised(spec, options)
    except VectorwrightError as error:
        logger.error("the run could not start", extra={"fields": {"reason": error.reason, "detail": error.message}})  # noqa: TRY400 - not a defect of ours
        state = _failed(run_id, error)
    except Exception:
        # A defect of ours: the log has the traceback, and the state must not be lost with it.
        defect = Retryable("the worker failed unexpectedly; its log tells more", reason="InternalError")
        _tell(options.termination_log, _failed(run_id, defect))
        raise
    _tell(options.termination_log, state)
    return exit_code(state)


def _failed(run_id: str, error: VectorwrightError) -> RunState:
    return RunState(
        run_id=run_id,
        phase=Phase.FAILED,
        reason=error.reason,
        message=error.message,
        retryable=isinstance(error, Retryable),
    )


async def _supervised(spec: RunSpec, options: WorkerOptions) -> RunState:
    """Execute the run while listening to the operator, to signals and to the parent."""
    limits = Limits.of(spec)
    async with AsyncExitStack() as stack:
        run = await _open(spec, options.directory, limits, stack)
        server = ControlServer(run.progress.state, limits)
        port = await stack.enter_async_context(serving(server, options.address))
        logger.info(
            "run started", extra={"fields": {"source": spec.source_name, "index": spec.store.index, "port": port}}
        )
        loop = asyncio.get_running_loop()
        executing = asyncio.ensure_future(run.execute())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, run.stop)
            stack.callback(loop.remove_signal_handler, number)
        if options.exit_on_stdin_eof:
            await stack.enter_async_context(_watching_parent(executing))
        watching = asyncio.ensure_future(_watch(run, limits, told=options.address is not None))
        try:
            return await executing
        except asyncio.CancelledError:
            if not executing.cancelled():
                raise
            orphaned = Retryable("the parent of the worker is gone", reason="Interrupted")
            return _failed(spec.run_id, orphaned)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _open(spec: RunSpec, directory: Path, limits: Limits, stack: AsyncExitStack) -> RunFrame[Any]:
    """Open everything that the run needs; the stack closes it."""

    async def closing(what: object) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await what.close()  # type: ignore[attr-defined]

    store = open_run_store(spec, directory)
    stack.push_async_callback(closing, store)
    if spec.source_store is not None:
        origin = open_run_origin(spec, spec.source_store, directory)
        stack.push_async_callback(closing, origin)
        return copy_of(spec, spec.source_store, store=store, origin=origin, limits=limits)
    read_secret(directory, "source")  # so that no line of the log can show it
    source = open_source(spec, directory)
    stack.push_async_callback(closing, source)
    parser = ParserPool(spec.parse, spec.chunk, spec.precomputed_field)
    stack.push_async_callback(closing, parser)
    embedder: Embedder | None = None
    calls = 1
    if spec.embedder is not None:
        await _check_fingerprint(spec)
        embedder = RenewingEmbedder(spec.embedder, directory)
        stack.push_async_callback(closing, embedder)
        calls = _LOCAL_CONCURRENCY if spec.embedder.spec.local is not None else concurrency(spec.embedder.spec)
    return Run(
        spec,
        store=store,
        source=source,
        parser=parser,
        embedder=embedder,
        embedder_concurrency=calls,
        limits=limits,
    )


async def _check_fingerprint(spec: RunSpec) -> None:
    """Raise Terminal (``ModelMismatch``) where this worker's model is not the one that the run was planned for."""
    if spec.embedder is None:
        return
    model = spec.embedder.spec
    revision = await asyncio.to_thread(resolved_revision, model)
    found = fingerprint(model, revision, bool(model.normalize))
    if found != spec.embedder.fingerprint:
        raise Terminal(
            f"this worker's embedding model (revision {revision}, fingerprint {found}) is not the one that the run was "
            f"planned for (fingerprint {spec.embedder.fingerprint}): run operator and workers from one image",
            reason="ModelMismatch",
        )


async def _watch(run: RunFrame[Any], limits: Limits, *, told: bool) -> None:
    """Every second: is the operator there? Every half minute: a line on progress."""
    loop = asyncio.get_running_loop()
    told_at = loop.time()
    while True:
        await asyncio.sleep(1.0)
        if told:
            limits.check_contact()
        if loop.time() - told_at >= _LOG_SECONDS:
            told_at = loop.time()
            state = run.progress.state()
            counts = {name: value for name, value in state.counts.dump().items() if value}
            logger.info("progress", extra={"fields": {"rate": state.rate} | counts})


class _UntilEof(asyncio.Protocol):
    """Cancels a task when the other end of a pipe is closed."""

    def __init__(self, task: asyncio.Future[RunState]) -> None:
        self._task = task

    def connection_lost(self, exc: Exception | None) -> None:
        self._task.cancel()


@asynccontextmanager
async def _watching_parent(task: asyncio.Future[RunState]) -> AsyncIterator[None]:
    """Cancel ``task`` at once when standard input ends: the parent is gone, and may be starting this run again."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: _UntilEof(task), sys.stdin)
    try:
        yield
    finally:
        transport.close()


def _tell(path: Path | None, state: RunState) -> None:
    """Write the termination message, whole or not at all."""
    if path is None:
        return
    data = termination_message(state)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        # In a pod the file is a mount: it cannot be replaced, and its folder is not ours. One write is all there is.
        with contextlib.suppress(OSError):
            temporary.unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
