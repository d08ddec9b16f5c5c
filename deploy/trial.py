"""The operator as a process on this machine, beside a cluster: for the demo, the tests and the benchmarks."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from deploy.devcluster.processes import ManagedProcess, log_tail, on_free_port, wait_for

READY_SECONDS = 60.0
"""The operator is ready after 2 s, after a kill 10 s later, when the lease of the killed one has run out; more on a
machine whose cores are all busy."""


class TrialOperator:
    """``vectorwright operator`` on a free port, with in-process runs and local stores, in a directory of its own."""

    def __init__(
        self,
        kubeconfig: Path,
        *flags: str,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        trial: bool = True,
        remove: Path | None = None,
    ) -> None:
        """``flags`` come after the trial's own, which ``trial=False`` leaves out.

        ``remove`` is a directory to delete should this process die without stopping the operator; its own, where it
        makes that itself.
        """
        self._owned = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="vectorwright-operator-"))
        self._remove = self.directory if self._owned else remove
        self.kubeconfig = kubeconfig
        self._flags: Sequence[str] = flags
        self._trial = trial
        self._environment = dict(environment or {})
        self._process: ManagedProcess | None = None
        self._earlier = 0
        self.url = ""

    @property
    def log(self) -> Path:
        """Everything that the operator and its workers wrote, over all its starts."""
        return self.directory / "operator.log"

    @property
    def pid(self) -> int:
        """Process id of the operator's parent process. Raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("this operator is stopped")
        return self._process.pid

    def processes(self) -> list[ManagedProcess]:
        """Its parent process, while it runs; the others end with that one."""
        return [] if self._process is None else [self._process]

    def start(self, *, wait: bool = True) -> Self:
        """Start it (again); ``wait`` for it to lead. Raises ProcessError with the end of the log."""
        self._earlier = len(self.text())
        on_free_port(lambda port: self._start_at(port, wait=wait))
        return self

    def _start_at(self, port: int, *, wait: bool) -> None:
        self._process = self._start(port)
        if wait:
            wait_for(self.leads, what="the operator", timeout=READY_SECONDS, process=self._process)

    def _start(self, port: int) -> ManagedProcess:
        self.url = f"http://127.0.0.1:{port}"
        command: list[str | Path] = [
            Path(sys.executable).with_name("vectorwright"),
            "operator",
            "--kubeconfig",
            self.kubeconfig,
            "--metrics-bind-address",
            f"127.0.0.1:{port}",
            "--log-format",
            "text",
        ]
        if self._trial:
            command += ["--allow-in-process", "--local-stores", self.directory / "stores"]
            command += ["--allow-networks", "127.0.0.0/8"]
        return ManagedProcess.start(
            [*command, *self._flags],
            log=self.log,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environment},
            grace=30,
            remove=self._remove,
        )

    def get(self, path: str) -> str:
        """The answer to GET ``path`` of the operator's own endpoints. Raises OSError."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def leads(self) -> bool:
        """Whether it answers, and works: it holds the lease or needs none. An earlier start does not count."""
        try:
            self.get("/readyz")
            leads = "\nvectorwright_leader 1\n" in self.get("/metrics")
            return leads and "working as installation" in self.text()[self._earlier :]
        except (OSError, http.client.HTTPException):
            return False

    def text(self) -> str:
        """The log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        """The end of the log."""
        return log_tail(self.log, 40)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL. Its child processes go with it."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def stop(self) -> None:
        """End it in good order. Safe to call again."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its directory, stores and all, where it made that itself."""
        self.stop()
        if self._owned:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()
