"""Real Chroma servers on loopback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
from deploy.devcluster.processes import ManagedProcess, on_free_port, wait_for

_START_SECONDS = 60.0
"""Chroma answers after 1 to 3 s; more on a machine whose cores are all busy."""


class ChromaServer:
    """A Chroma server that keeps its data in ``directory``; it can be stopped and started again on the same port."""

    def __init__(self, directory: Path, port: int, remove: Path | None = None) -> None:
        self.directory = directory
        self._remove = remove
        self.host = "127.0.0.1"
        self.port = port
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def process(self) -> ManagedProcess:
        """The running program. Raises RuntimeError when the server is stopped."""
        if self._process is None:
            raise RuntimeError("this Chroma server is stopped")
        return self._process

    def start(self) -> None:
        """Start the server (again) and return when it answers. Nothing happens when it runs."""
        if self._process is not None:
            return
        program = Path(sys.executable).with_name("chroma")
        command: list[str | Path] = [
            program,
            "run",
            "--path",
            self.directory,
            "--host",
            self.host,
            "--port",
            str(self.port),
        ]
        process = ManagedProcess.start(
            command,
            log=self.directory.with_name(self.directory.name + ".log"),
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
            grace=3,
            remove=self._remove,
        )
        try:
            wait_for(self._answers, what=f"Chroma on {self.url}", timeout=_START_SECONDS, process=process)
        except BaseException:
            process.stop()
            raise
        self._process = process

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v2/heartbeat", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Stop the server in good order; its data and its port stay for ``start()``."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self._process = None


def start_chroma_server(directory: Path, port: int | None = None, *, remove: Path | None = None) -> ChromaServer:
    """A running server on ``port``, or on a free one.

    ``remove`` is a directory to delete should this process die without stopping the server.
    """

    def begin(port: int) -> ChromaServer:
        server = ChromaServer(directory, port, remove)
        server.start()
        return server

    directory.mkdir(parents=True, exist_ok=True)
    return on_free_port(begin) if port is None else begin(port)
