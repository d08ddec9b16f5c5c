"""Workers as children of the operator, for trials: scrubbed environment, private directory, gone with the operator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from vectorwright.api.v1alpha1.ingestionjob import IngestionJob
from vectorwright.errors import Retryable
from vectorwright.ingest.run_directory import CURRENT
from vectorwright.ingest.runspec import RunState

from .handover import RunFile, RunInputs, renewed_digest
from .runner_base import Look, WorkerBudget
from .worker_exchange import exchange

log = logging.getLogger(__name__)

PREFIX = "vw-run-"
"""Of a run's directory, before the operator's process id."""
GRACE = 15.0
"""Seconds that a worker has to finish its batches in flight before it is killed."""
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONPATH")
"""Of the operator's environment, what a worker sees."""


@dataclass(slots=True)
class _Child:
    process: asyncio.subprocess.Process
    directory: Path
    watcher: asyncio.Task[None]
    renewable: str
    """Digest of the credentials and certificates that it has."""
    files: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its directory is written to or removed."""


class ChildRunner:
    """Starts ``vectorwright worker`` as a child process."""

    def __init__(self, wake: Callable[[str, str], None]) -> None:
        self._wake = wake
        self._children: dict[tuple[str, str], _Child] = {}

    async def start(self, job: IngestionJob, name: str, inputs: RunInputs) -> None:
        """Start a worker in a private directory that holds its specification and files (mode 0600).

        Raises Retryable when it cannot be started.
        """
        key = (job.metadata.namespace, name)
        if key in self._children:
            return
        await asyncio.to_thread(_sweep)
        directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        try:
            await asyncio.to_thread(_write_files, directory, inputs)
            process = await _spawn(directory)
        except BaseException as error:
            shutil.rmtree(directory, ignore_errors=True)  # it holds credentials
            if isinstance(error, OSError):
                raise Retryable(
                    f"a worker could not be started: {error.strerror or type(error).__name__}",
                    reason="WorkerNotStarted",
                ) from None
            raise
        watcher = asyncio.create_task(self._watch(key, job.metadata.name, process), name=f"worker {name}")
        renewable = renewed_digest("", [file for file in inputs.files if file.renewable])
        self._children[key] = _Child(process, directory, watcher, renewable)

    async def _watch(self, key: tuple[str, str], job: str, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._wake(key[0], job)

    async def look(self, namespace: str, name: str, budget: WorkerBudget | None = None) -> Look:
        """Look at a child of this process; one of an operator that died is gone with it."""
        child = self._children.get((namespace, name))
        if child is None:
            return Look(exists=False)
        if child.process.returncode is None:
            socket = child.directory / "progress.sock"
            state = await exchange("http://worker", budget, socket=str(socket)) if socket.exists() else None
            return Look(exists=True, state=state)
        state = _result(child.directory / "result.json")
        died = None if state is not None else _how_it_died(child.process.returncode)
        return Look(exists=True, finished=True, state=state, died=died)

    async def renew(self, namespace: str, name: str, files: Sequence[RunFile]) -> bool:
        """Replace the credentials and certificates in a child's directory, all at once."""
        child = self._children.get((namespace, name))
        if child is None:
            return False
        async with child.files:
            digest = renewed_digest("", files)
            if child.renewable == digest:
                return True
            if self._children.get((namespace, name)) is not child:
                return False
            try:
                await asyncio.to_thread(_publish, child.directory, files)
            except OSError as error:
                log.warning("worker %s could not be handed changed credentials: %s", name, error.strerror)
                return False
            child.renewable = digest
        log.info("worker %s was handed changed credentials", name)
        return True

    async def stop(self, namespace: str, name: str) -> None:
        """Ask a child to stop, kill its whole group when it does not, and remove its directory."""
        child = self._children.pop((namespace, name), None)
        if child is None:
            return
        child.watcher.cancel()
        await _end(child.process)
        async with child.files:
            await asyncio.to_thread(shutil.rmtree, child.directory, ignore_errors=True)

    async def stop_all(self) -> None:
        """Stop every child."""
        await asyncio.gather(*(self.stop(*key) for key in list(self._children)))


async def _spawn(directory: Path) -> asyncio.subprocess.Process:
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vectorwright",
        "worker",
        "--directory",
        str(directory),
        "--unix",
        str(directory / "progress.sock"),
        "--termination-log",
        str(directory / "result.json"),
        "--exit-on-stdin-eof",
        stdin=asyncio.subprocess.PIPE,
        env={**environment, "HOME": str(directory), "TMPDIR": str(directory)},
        start_new_session=True,
    )


def _sweep() -> None:
    """Remove the directories of operators that were killed: they hold credentials."""
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        owner = place.name.removeprefix(PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if owner.isdecimal() and place.lstat().st_uid == os.getuid() and not Path(f"/proc/{owner}").exists():
                shutil.rmtree(place, ignore_errors=True)


def _write_files(directory: Path, inputs: RunInputs) -> None:
    content = {"run.json": inputs.spec.model_dump_json(by_alias=True, exclude_none=True).encode()}
    content |= {file.path: file.content for file in inputs.files if not file.renewable}
    for name, data in content.items():
        _write(directory, name, data)
    _publish(directory, [file for file in inputs.files if file.renewable])


def _publish(directory: Path, files: Sequence[RunFile]) -> None:
    """Write files as a kubelet does it for a pod: into a new folder, which one rename of a link puts in place."""
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    for file in files:
        _write(fresh, file.path, file.content)
    current, renamed = directory / CURRENT, directory / f"{CURRENT}_tmp"
    before = current.resolve() if current.is_symlink() else None
    renamed.unlink(missing_ok=True)  # of an attempt that failed
    renamed.symlink_to(fresh.name)
    renamed.replace(current)
    for top in {Path(file.path).parts[0] for file in files}:
        if not (directory / top).is_symlink():
            (directory / top).symlink_to(Path(CURRENT) / top)
    if before is not None:
        shutil.rmtree(before)


def _write(directory: Path, name: str, data: bytes) -> None:
    path = directory / name
    for folder in reversed(path.relative_to(directory).parents[:-1]):
        (directory / folder).mkdir(exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def _result(path: Path) -> RunState | None:
    try:
        return RunState.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _how_it_died(code: int) -> str:
    return f"the worker was killed by signal {-code}" if code < 0 else f"the worker ended with exit code {code}"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)  # what is left of its group: git, a parser
    await process.wait()
