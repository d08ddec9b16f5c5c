"""What servers on loopback have in common: they start, answer, stop, are killed, and start again at the same port."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from deploy.devcluster.processes import ManagedProcess, on_free_port, wait_for


class LoopbackServer(ABC):
    """A server that keeps its data in ``directory``.

    ``remove`` is a directory to delete should this process die without stopping the server.
    """

    title: ClassVar[str]
    """Its name, for people."""
    start_seconds: ClassVar[float] = 60.0
    """Servers answer after 1 to 3 s; more on a machine whose cores are all busy."""

    poll_seconds: ClassVar[float] = 0.05

    def __init__(self, directory: Path, port: int, remove: Path | None = None) -> None:
        self.directory = directory
        self.host = "127.0.0.1"
        self.port = port
        self._remove = remove
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def process(self) -> ManagedProcess:
        """The running program. Raises RuntimeError when the server is stopped."""
        if self._process is None:
            raise RuntimeError(f"this {self.title} server is stopped")
        return self._process

    def start(self) -> None:
        """Start the server (again) and return when it answers. Nothing happens when it runs."""
        if self._process is not None:
            return
        process = self._launch()
        try:
            wait_for(
                self._answers,
                what=f"{self.title} on {self.url}",
                timeout=self.start_seconds,
                process=process,
                every=self.poll_seconds,
            )
        except BaseException:
            process.stop()
            raise
        self._process = process

    @abstractmethod
    def _launch(self) -> ManagedProcess:
        """Start the program."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it can be used."""

    def stop(self) -> None:
        """Stop the server in good order; its data and its port stay for ``start()``."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self._process = None


S = TypeVar("S", bound=LoopbackServer)


def started(make: Callable[[int], S], directory: Path, port: int | None) -> S:
    """A running server that ``make`` makes for a port: on ``port``, or on a free one."""

    def begin(port: int) -> S:
        server = make(port)
        server.start()
        return server

    directory.mkdir(parents=True, exist_ok=True)
    return on_free_port(begin) if port is None else begin(port)
