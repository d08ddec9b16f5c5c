"""Real ``vectorwright worker`` processes, as the operator would start them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from vectorwright.ingest.runspec import RunState

ROOT = Path(__file__).resolve().parents[2]

StartWorker = Callable[..., "Worker"]


class Worker:
    """One worker process with a directory of its own, that listens on a socket in it."""

    def __init__(
        self,
        base: Path,
        run: dict[str, Any],
        *,
        files: dict[str, str] | None = None,
        prepare: Callable[[Path], object] | None = None,
        flags: tuple[str, ...] = (),
        pipe: bool = False,
    ) -> None:
        self.base = base
        self.unix = base / "w"
        self.termination_log = base / "termination"
        self._log = base / "log"
        (base / "run.json").write_bytes(orjson.dumps(run))
        for name, content in (files or {}).items():
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        if prepare is not None:
            prepare(base)
        command = [sys.executable, "-m", "vectorwright", "worker", "--directory", str(base), "--unix", str(self.unix)]
        command += ["--termination-log", str(self.termination_log), *flags]
        packages = os.pathsep.join(filter(None, (str(ROOT / "operator"), os.environ.get("PYTHONPATH"))))
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": packages},
                cwd=base,
            )

    def wait(self, timeout: float = 60.0) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    @property
    def state(self) -> RunState:
        """The termination message."""
        return RunState.model_validate_json(self.termination_log.read_bytes())

    @property
    def log(self) -> str:
        """Everything it wrote."""
        return self._log.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its log, parsed."""
        return [json.loads(line) for line in self.log.splitlines()]

    def client(self) -> httpx.Client:
        """Speaks to its port."""
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.unix)), base_url="http://worker", timeout=5)

    def wait_for(self, ready: Callable[[RunState], bool], timeout: float = 60.0) -> RunState:
        """Its progress, once it is as wanted."""
        ends = time.monotonic() + timeout
        with self.client() as client:
            while time.monotonic() < ends:
                assert self.process.poll() is None, self.log
                if not self._listens():
                    time.sleep(0.01)
                    continue
                try:
                    state = RunState.model_validate_json(client.get("/progress").content)
                except httpx.TransportError:
                    continue
                if ready(state):
                    return state
                time.sleep(0.01)
        raise AssertionError(f"the worker did not get there: {self.log}")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.unix)) == 0

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        shutil.rmtree(self.base)


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """``start_worker(run, files=, prepare=, flags=, pipe=)`` starts a worker on a run, killed after the test.

    ``prepare`` is called with its directory before it starts.
    """
    workers: list[Worker] = []

    def begin(run: dict[str, Any], **options: Any) -> Worker:
        # A short path: that of a socket has at most 103 bytes.
        workers.append(Worker(Path(tempfile.mkdtemp(prefix="vw-")), run, **options))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.close()
