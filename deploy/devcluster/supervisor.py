"""Run one program so that it cannot outlive the process that asked for it.

Executed as a script (``python -I -S supervisor.py … -- PROGRAM ARGS``), never imported by that process: it must start
in milliseconds, so it uses the standard library alone. It is single-threaded on purpose: the kernel's parent-death
signal follows the *thread* that forked, and the owner (a test run, the demo) has many.

The supervisor leaves when its program ends, with the program's exit status. It stops the program when it is told to
(SIGTERM, SIGINT, SIGHUP) or when its owner is gone, however the owner died; SIGUSR1 makes it forget its owner. If the
supervisor itself is killed, the kernel kills the program. Descendants that the program left behind are killed too.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_POLL_SECONDS = 0.25
"""How soon the death of the owner is noticed. A check is one system call."""

CONTROL_GROUPS = Path("/sys/fs/cgroup")

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class Supervisor:
    """The loop around one program. ``run()`` returns the exit status to leave with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._stop_asked = False
        self._orphaned = False
        self._exit_status: int | None = None
        self._pid = 0
        self._wakeup, wakeup_write = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGUSR1, self._on_disown)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)

    def _on_stop(self, *_: object) -> None:
        self._stop_asked = True

    def _on_disown(self, *_: object) -> None:
        self._options.owner = 0

    def run(self) -> int:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        if not self._start():
            return 127
        while self._exit_status is None and not self._should_stop():
            self._pause(_POLL_SECONDS)
            self._reap()
        if self._exit_status is None:
            self._signal_group(self._options.stop_signal)
            self._reap_until(lambda: self._exit_status is not None, self._options.grace)
        self._kill_rest()
        if self._options.control_group:
            remove_group(self._options.control_group)
        if self._orphaned and self._options.remove:
            self._remove_directory(self._options.remove)
        return self._exit_status if self._exit_status is not None else 128 + signal.SIGKILL

    def _should_stop(self) -> bool:
        if self._options.owner and os.getppid() != self._options.owner:
            # An owner that let go of us and left at once did so in this order: let the signal be handled first.
            self._pause(0.01)
            self._orphaned = self._options.owner != 0
        return self._stop_asked or self._orphaned

    def _start(self) -> bool:
        me = os.getpid()

        def die_with_supervisor() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != me:
                os._exit(1)

        user = self._options.user
        identity = {} if user is None else {"user": user, "group": self._options.group, "extra_groups": []}
        try:
            program = subprocess.Popen(
                self._options.program,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_supervisor,  # noqa: PLW1509 - this process has one thread
                **identity,
            )
        except (OSError, subprocess.SubprocessError) as error:
            os.write(self._options.status_fd, f"error {error}\n".encode())
            return False
        self._pid = program.pid
        os.write(self._options.status_fd, f"pid {program.pid}\n".encode())
        os.close(self._options.status_fd)
        # The status is collected by _reap(), which waits for every child: keep subprocess from waiting as well.
        program.returncode = 0
        return True

    def _pause(self, seconds: float) -> None:
        select.select([self._wakeup], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup, 4096)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                code = os.waitstatus_to_exitcode(status)
                self._exit_status = code if code >= 0 else 128 - code

    def _reap_until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._reap()
        while not done() and time.monotonic() < deadline:
            self._pause(0.05)
            self._reap()

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _kill_rest(self) -> None:
        """Kill what is left of the program's group, and every descendant that was handed to this subreaper."""
        if self._exit_status is None or _group_exists(self._pid):
            self._signal_group(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            self._reap()
            children = _children(os.getpid())
            if not children:
                return
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._pause(0.02)

    @staticmethod
    def _remove_directory(directory: str) -> None:
        """Other supervisors of the same run may still be writing there: try again until it is gone."""
        for _ in range(100):
            shutil.rmtree(directory, ignore_errors=True)
            if not os.path.lexists(directory):
                return
            time.sleep(0.1)


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _children(parent: int) -> list[int]:
    """Direct children of ``parent``; empty where there is no /proc."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def remove_group(name: str, root: Path = CONTROL_GROUPS) -> None:
    """Remove the control group ``name`` with all below it, in every hierarchy; its last processes may still end."""
    groups = [group for group in (root / name, *root.glob(f"*/{name}")) if group.is_dir()]
    for _ in range(100):
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if not any(group.exists() for group in groups):
            return
        time.sleep(0.1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a program that ends with its owner.")
    parser.add_argument("--owner", type=int, required=True, help="pid of the parent to live with")
    parser.add_argument("--status-fd", type=int, required=True, help="where to write 'pid N' or 'error …'")
    parser.add_argument("--stop-signal", type=int, default=int(signal.SIGTERM))
    parser.add_argument("--grace", type=float, default=10.0, help="seconds between the stop signal and SIGKILL")
    parser.add_argument("--user", type=int, help="numeric user to run the program as")
    parser.add_argument("--group", type=int, help="numeric group to run the program as")
    parser.add_argument("--remove", help="directory to remove when the owner died")
    parser.add_argument("--control-group", help="control group to remove after the end of the program")
    parser.add_argument("program", nargs="+")
    return Supervisor(parser.parse_args(arguments)).run()


if __name__ == "__main__":
    sys.exit(main())
