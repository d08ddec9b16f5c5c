"""Real Chroma servers on loopback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
from deploy.devcluster.processes import ManagedProcess
from deploy.servers.loopback import LoopbackServer, started


class ChromaServer(LoopbackServer):
    """A Chroma server that keeps its data in ``directory``; it can be stopped and started again on the same port."""

    title = "Chroma"

    def _launch(self) -> ManagedProcess:
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
        return ManagedProcess.start(
            command,
            log=self.directory.with_name(self.directory.name + ".log"),
            env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
            grace=3,
            remove=self._remove,
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/v2/heartbeat", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def start_chroma_server(directory: Path, port: int | None = None, *, remove: Path | None = None) -> ChromaServer:
    """A running server on ``port``, or on a free one.

    ``remove`` is a directory to delete should this process die without stopping the server.
    """
    return started(lambda port: ChromaServer(directory, port, remove), directory, port)
