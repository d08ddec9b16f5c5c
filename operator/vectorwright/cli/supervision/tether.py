"""The child's end of what ties it to its parent: it dies with the parent, and it dies with the lease.

Two things see to that:

- a thread reads what the parent says over a socket pair: the newest deadline, a wish for metrics, the order to stop.
  The end of the stream means that the parent is gone: the whole process group is killed;
- a kernel timer (SIGALRM, default action), wound up with each word of the parent, kills the process at the deadline
  even while the interpreter itself hangs, and as the first thing when a frozen process is thawed too late.

``PR_SET_PDEATHSIG`` would be a few milliseconds faster than the thread, and that is its fault: it kills this process
before the thread can kill what this process started.

Lines from the parent: ``lease SECONDS`` (a deadline on :func:`vectorwright.kube.clock.now`, or ``inf``), ``metrics``,
``stop``. Lines to it: ``beat SECONDS`` (when the event loop last turned, once it has) for each ``lease``, and
``metrics BYTES`` with that many bytes after it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from vectorwright.kube import clock
from vectorwright.kube.tenure import Tenure

SILENCE_S = 45.0
"""A parent speaks every second, and ends a child that hangs for 30 s itself: after this long, nobody is in control."""
_FIRST_WORD_S = 10.0
_LEASE = b"lease "
_POLL_S = 1.0
_SEND_S = 5.0


class NoParentError(Exception):
    """The process was started as a child but has no parent that speaks to it."""


def check_parent(parent: int) -> None:
    """Raise NoParentError when ``parent`` (a process id) is no longer the parent of this process."""
    if os.getppid() != parent:
        raise NoParentError("the parent process is gone")


class Tether:
    """See the module. ``metrics`` gives the exposition; it is called on the tether's own thread."""

    def __init__(self, channel: socket.socket, tenure: Tenure, metrics: Callable[[], bytes]) -> None:
        self._channel = channel
        self._tenure = tenure
        self._metrics = metrics
        self._last_beat: float | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = bytearray()

    @classmethod
    def from_stdin(cls, tenure: Tenure, metrics: Callable[[], bytes]) -> Tether:
        """Take the socket that the parent gave as standard input; what this process starts must not inherit it."""
        try:
            channel = socket.socket(fileno=os.dup(0))
        except OSError:
            raise NoParentError(
                "--child is for the operator's own use: start 'vectorwright operator' instead"
            ) from None
        channel.set_inheritable(False)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return cls(channel, tenure, metrics)

    def attach(self, stop: asyncio.Event) -> None:
        """Wait for the parent's first word, then follow it on a thread. Call on the event loop that is to be stopped.

        Raises NoParentError when the parent says nothing for ten seconds.
        """
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._channel.settimeout(_FIRST_WORD_S)
        try:
            lines = [self._next_line()]
        except TimeoutError:
            raise NoParentError("the parent process says nothing") from None
        # Whoever took long to start finds old deadlines before the newest one: only that one says until when to live.
        lines += self._waiting_lines()
        deadlines = [line for line in lines if line.startswith(_LEASE)]
        for line in [line for line in lines if line not in deadlines] + deadlines[-1:]:
            self._obey(line)
        threading.Thread(target=self._follow, name="tether", daemon=True).start()

    def beat(self) -> None:
        """The event loop turns. Cheap: call it once a second or so, from the loop."""
        self._last_beat = clock.now()

    def _follow(self) -> None:
        while True:
            left = self._tenure.remaining()
            if left <= 0:
                _die()
            self._channel.settimeout(min(_POLL_S, left))
            try:
                line = self._next_line()
            except TimeoutError:
                continue
            self._obey(line)

    def _next_line(self) -> bytes:
        while (end := self._held.find(b"\n")) < 0:
            try:
                received = self._channel.recv(4096)
            except ConnectionError:
                received = b""
            if not received:
                _die()
            self._held += received
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def _waiting_lines(self) -> list[bytes]:
        """What the parent has said already and nobody read."""
        found: list[bytes] = []
        self._channel.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                found.append(self._next_line())
        return found

    def _obey(self, line: bytes) -> None:
        word, _, value = line.decode("ascii", "replace").partition(" ")
        if word == "lease":
            self._extend(float(value))
            if self._last_beat is not None:
                self._send(f"beat {self._last_beat!r}\n".encode())
        elif word == "metrics":
            body = self._metrics()
            self._send(f"metrics {len(body)}\n".encode() + body)
        elif word == "stop" and self._stop is not None and self._loop is not None:
            # The loop may have ended by itself in this moment.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    def _extend(self, deadline: float) -> None:
        self._tenure.set_deadline(deadline)
        signal.setitimer(signal.ITIMER_REAL, min(SILENCE_S, max(0.001, deadline - clock.now())))

    def _send(self, data: bytes) -> None:
        self._channel.settimeout(_SEND_S)
        try:
            self._channel.sendall(data)
        except TimeoutError:
            # Half an answer would garble all that follow. A parent that reads nothing for seconds is frozen, and
            # a frozen parent cannot renew the lease.
            _die()
        except ConnectionError:
            _die()


def _die() -> NoReturn:
    """End this process and all that it started, now. Nothing is logged: a full pipe must not keep us alive."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(128 + signal.SIGKILL)
