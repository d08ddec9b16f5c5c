"""Real S3 servers on loopback: versitygw over a folder, built once from Go modules."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from deploy.devcluster.gobuild import ensure_built
from deploy.devcluster.processes import ManagedProcess
from deploy.servers.go_programs import versitygw_program
from deploy.servers.loopback import LoopbackServer, started


class VersitygwServer(LoopbackServer):
    """An S3 server whose buckets are the folders in ``directory / "buckets"``. One key opens all of them.

    It can be stopped or killed, and started again on the same port. ``requests(bucket)`` tells what was asked.
    """

    access_key = "versity-test-key"
    secret_key = "s3cret-that-never-shows"
    region = "us-east-1"

    title = "versitygw"

    def __init__(self, program: Path, directory: Path, port: int, *, remove: Path | None = None) -> None:
        super().__init__(directory, port, remove)
        self._program = program

    @property
    def _log(self) -> Path:
        return self.directory / "access.log"

    def _launch(self) -> ManagedProcess:
        (self.directory / "buckets").mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        command: list[str | Path] = [self._program, "--port", f"{self.host}:{self.port}", "--region", self.region]
        command += ["--quiet", "--access-log", self._log, "posix", self.directory / "buckets"]
        return ManagedProcess.start(
            command, log=self.directory / "server.log", env=environment, grace=10, remove=self._remove
        )

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def make_bucket(self, name: str) -> None:
        """Make a bucket, with nothing in it."""
        (self.directory / "buckets" / name).mkdir()

    def objects(self, bucket: str) -> list[str]:
        """The keys in a bucket, sorted."""
        base = self.directory / "buckets" / bucket
        found = (Path(folder, name).relative_to(base) for folder, _, names in os.walk(base) for name in names)
        return sorted(str(path) for path in found if not str(path).startswith(".sgwtmp"))

    def requests(self, bucket: str) -> list[str]:
        """What was asked of a bucket so far: the operations' names, in order."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        asked = [line.split() for line in lines]
        return [words[7] for words in asked if len(words) > 7 and words[1] == bucket]


def start_versitygw_server(
    directory: Path,
    port: int | None = None,
    *,
    remove: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> VersitygwServer:
    """A running server on ``port``, or on a free one; its program is built first where that was never done.

    ``remove`` is a directory to delete should this process die without stopping the server. Raises GoBuildError where
    there is no Go.
    """
    program = ensure_built(versitygw_program(), progress)
    return started(lambda port: VersitygwServer(program, directory, port, remove=remove), directory, port)
