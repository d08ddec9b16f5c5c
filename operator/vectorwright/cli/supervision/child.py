"""The parent's end of its child: start it, keep it told of the deadline, hear its heartbeat, end it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import vectorwright
from vectorwright.kube import clock

_log = logging.getLogger(__name__)

STARTUP_S = 60.0
"""How long a child may take until its event loop turns for the first time: importing is slow on a cold, small node."""
STALE_S = 30.0
"""A heartbeat older than this means that something blocks the event loop: every watch of the operator stands still."""
_METRICS_S = 2.0


class Child:
    """One child process. It leads a process group of its own, which is ended with it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._started = clock.now()
        self._last_beat: float | None = None
        self._metrics: asyncio.Future[bytes] | None = None
        self.exited: asyncio.Task[int] = asyncio.create_task(process.wait(), name="child exit")
        self._listener = asyncio.create_task(self._listen(), name="child channel")

    @classmethod
    async def start(cls, command: Sequence[str], deadline: float) -> Child:
        """Start ``command``, with ``--child`` and our process id after it, to work until ``deadline``.

        Raises ``OSError`` when no process can be started.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    "--child",
                    str(os.getpid()),
                    stdin=theirs.fileno(),
                    env=_environment(),
                    start_new_session=True,
                )
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        child = cls(process, reader, writer)
        child.extend(deadline)
        return child

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        return self._process.pid

    def extend(self, deadline: float) -> None:
        """Tell the newest deadline, and ask for a heartbeat with it."""
        self._say(f"lease {deadline!r}\n")

    def stale(self) -> bool:
        """Whether its event loop has not turned for too long."""
        if self._last_beat is None:
            return clock.now() - self._started > STARTUP_S
        return clock.now() - self._last_beat > STALE_S

    @property
    def heartbeat_age(self) -> float | None:
        """Seconds since its event loop turned; None before the first time."""
        return None if self._last_beat is None else max(0.0, clock.now() - self._last_beat)

    async def metrics(self) -> bytes:
        """Its metrics in Prometheus' text format; empty when it does not answer in two seconds."""
        if self._metrics is None:
            # Scrapes at the same time share one answer.
            self._metrics = asyncio.get_running_loop().create_future()
            self._say("metrics\n")
        try:
            async with asyncio.timeout(_METRICS_S):
                return await asyncio.shield(self._metrics)
        except TimeoutError:
            return b""

    def ask_to_stop(self) -> None:
        """Have it finish what it does and exit."""
        self._say("stop\n")
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started, now."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> int:
        """After it exited: end what is left of its group, close the channel. Returns the exit status (-N: signal N)."""
        status = await self.exited
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._listener.cancel()
        await asyncio.gather(self._listener, return_exceptions=True)
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        return status

    def _say(self, line: str) -> None:
        if not self._writer.is_closing():
            self._writer.write(line.encode())

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                word, _, value = line.decode("ascii", "replace").strip().partition(" ")
                if word == "beat":
                    # The time of the turn, not of its arrival: it may have waited here while this process was frozen.
                    self._last_beat = float(value)
                elif word == "metrics":
                    body = await self._reader.readexactly(int(value))
                    if self._metrics is not None:
                        self._metrics.set_result(body)
                        self._metrics = None
        except (OSError, EOFError, ValueError) as error:
            _log.debug("the child's channel ended: %s", type(error).__name__)
        finally:
            if self._metrics is not None:
                self._metrics.set_result(b"")
                self._metrics = None


def child_command(arguments: Sequence[str]) -> list[str]:
    """The command of a child that gets the flags ``arguments``. ``-P`` keeps the working directory off its path."""
    return [sys.executable, "-P", "-m", "vectorwright", "operator", *arguments]


def _environment() -> dict[str, str]:
    """Our own, with the package's place where ``-P`` (no working directory on the path) would hide it."""
    environment = dict(os.environ)
    source = Path(vectorwright.__file__).resolve().parents[1]
    if source.name != "site-packages":
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(source), before] if before else [str(source)])
    return environment
