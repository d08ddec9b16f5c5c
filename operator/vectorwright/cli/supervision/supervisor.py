"""Keep one child running: start it again when it dies or hangs, with growing pauses, and end it when told to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vectorwright.kube import clock

from .child import Child

_log = logging.getLogger(__name__)

POLL_S = 1.0
"""How often the child is told the deadline and asked for its heartbeat."""
_STALE_POLLS = 3
"""So many polls in a row must find the heartbeat stale: after this process itself was frozen, the first finds an old
one in the channel."""
STEADY_S = 60.0
"""A child that ran this long was not failing at its start: the pauses begin anew."""


class GaveUpError(Exception):
    """The child died again and again. Another candidate, or a restart by the kubelet, may do better."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Pauses in seconds before a child is started again; after as many failures in a row plus one, giving up."""

    pauses: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0)


class Supervisor:
    """Runs children one after another for one term of leadership. ``deadline()`` says until when one may work."""

    def __init__(
        self,
        command: Sequence[str],
        deadline: Callable[[], float],
        policy: RestartPolicy | None = None,
    ) -> None:
        self._command = command
        self._deadline = deadline
        self._policy = policy or RestartPolicy()
        self._ending = asyncio.Event()
        self._kill_at = float("inf")
        self._kill_at_changed = asyncio.Event()
        self.child: Child | None = None
        self.starts = 0
        self.failures = 0
        """In a row, up to now."""

    def end(self, kill_at: float) -> None:
        """Have the child end, and kill it at ``kill_at`` on :func:`clock.now`. An earlier moment may be given later."""
        self._kill_at = min(self._kill_at, kill_at)
        self._kill_at_changed.set()
        self._ending.set()

    async def run(self) -> None:
        """Return when ``end()`` was called and no child is left. Raises GaveUpError, with no child left, too."""
        while not self._ending.is_set():
            try:
                self.child = await Child.start(self._command, self._deadline())
            except OSError as error:
                what = f"no child process could be started: {error.strerror}"
            else:
                self.starts += 1
                _log.info("the working process %d has started", self.child.pid)
                what = await self._accompany(self.child)
                self.child = None
                if self._ending.is_set():
                    return
            self.failures += 1
            if self.failures > len(self._policy.pauses):
                raise GaveUpError(f"{what}; that was failure {self.failures} in a row")
            pause = self._policy.pauses[self.failures - 1]
            _log.error("%s; it is started again in %g s (failure %d in a row)", what, pause, self.failures)
            await self._wait_for_end(pause)

    async def _accompany(self, child: Child) -> str:
        """Until the child is gone. Returns what became of it."""
        stale_polls, began = 0, clock.now()
        what = ""
        while not child.exited.done() and not self._ending.is_set():
            await self._first_of(child, POLL_S)
            if clock.now() - began >= STEADY_S:
                self.failures = 0  # while it runs: whoever asks whether this one is able to lead is told so
            child.extend(self._deadline())
            stale_polls = stale_polls + 1 if child.stale() else 0
            if stale_polls >= _STALE_POLLS:
                age = child.heartbeat_age
                what = "did not begin to work" if age is None else f"was blocked for {age:.0f} s"
                child.kill()
                await child.exited
        if self._ending.is_set():
            await self._finish(child)
        pid = child.pid
        status = await child.close()
        return f"the working process {pid} {what}" if what else f"the working process {pid} {_exit(status)}"

    async def _finish(self, child: Child) -> None:
        """Ask, wait until the moment that ``end()`` gave, kill."""
        if clock.now() < self._kill_at and not child.exited.done():
            child.ask_to_stop()
        while not child.exited.done():
            left = self._kill_at - clock.now()
            if left <= 0:
                _log.warning("the working process %d did not end in time and is killed", child.pid)
                child.kill()
                await child.exited
                return
            self._kill_at_changed.clear()
            child.extend(self._deadline())
            moved = asyncio.ensure_future(self._kill_at_changed.wait())
            await asyncio.wait({child.exited, moved}, timeout=min(left, POLL_S), return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()

    async def _first_of(self, child: Child, seconds: float) -> None:
        ending = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait({child.exited, ending}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()

    async def _wait_for_end(self, seconds: float) -> None:
        ending = asyncio.ensure_future(self._ending.wait())
        await asyncio.wait({ending}, timeout=seconds)
        ending.cancel()


def _exit(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
