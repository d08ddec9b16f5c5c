"""Processes that end with the process that started them, and the small helpers around them."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

_T = TypeVar("_T")
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_FIRST_PORT = 10000
_PORT_ATTEMPTS = 1000
_PORT_TAKEN = ("address already in use", "address in use", "addrinuse")


class ProcessError(RuntimeError):
    """A program could not be started, ended early, or did not do what was waited for in time."""


class PortTakenError(ProcessError):
    """A program ended because somebody else took its port first: try another one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from a later one with the same pid by the time it started.

    ``started`` is opaque: clock ticks since boot on Linux, the output of ``ps -o lstart=`` elsewhere.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process ``pid`` as it is now, or None when it has ended (a zombie has)."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def signal(self, number: int) -> bool:
        """Send a signal to this process, never to another that got its pid. False when it is gone."""
        if not self.alive():
            return False
        try:
            if hasattr(os, "pidfd_open"):
                self._signal_by_handle(number)
            else:
                os.kill(self.pid, number)
        except OSError:
            return False
        return True

    def _signal_by_handle(self, number: int) -> None:
        """On Linux a handle cannot come to mean another process between the check and the signal."""
        handle = os.pidfd_open(self.pid)
        try:
            if self.alive():
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _start_time(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in {b"Z", b"X"} else fields[19].decode()
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


class ManagedProcess:
    """A program under a supervisor (see supervisor.py): it is stopped when this process ends, even by SIGKILL."""

    def __init__(self, supervisor: subprocess.Popen[bytes], pid: int, log: Path, argv: Sequence[str], grace: float):
        self._supervisor = supervisor
        self._grace = grace
        self.pid = pid
        self.log = log
        self.argv = tuple(argv)
        self.identities = tuple(
            identity for identity in (Identity.of(supervisor.pid), Identity.of(pid)) if identity is not None
        )

    @classmethod
    def start(
        cls,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
        remove: Path | None = None,
        control_group: str | None = None,
    ) -> ManagedProcess:
        """Start ``argv`` with its output in ``log`` (appended).

        ``user`` is (uid, gid) to run as, for root only. ``grace`` is the seconds between ``stop_signal`` and SIGKILL.
        ``remove`` is a directory that the supervisor deletes when this process dies without stopping the program;
        ``control_group`` is one that it removes whenever the program has ended.
        Raises ProcessError when the program cannot be executed.
        """
        program = [os.fspath(part) for part in argv]
        status_read, status_write = os.pipe()
        command = [sys.executable, "-I", "-S", str(_SUPERVISOR), "--status-fd", str(status_write)]
        command += ["--owner", str(os.getpid()), "--grace", str(grace)]
        command += ["--stop-signal", str(int(stop_signal))]
        if user is not None:
            command += ["--user", str(user[0]), "--group", str(user[1])]
        if remove is not None:
            command += ["--remove", str(remove)]
        if control_group is not None:
            command += ["--control-group", control_group]
        try:
            with log.open("ab") as output:
                supervisor = subprocess.Popen(
                    [*command, "--", *program],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    pass_fds=[status_write],
                    start_new_session=True,
                )
        finally:
            os.close(status_write)
        with os.fdopen(status_read) as status:
            answer = status.readline().strip()
        word, _, rest = answer.partition(" ")
        if word != "pid":
            supervisor.wait()
            raise ProcessError(f"cannot start {program[0]}: {rest or log_tail(log) or 'its supervisor died'}")
        return cls(supervisor, int(rest), log, program, grace)

    def poll(self) -> int | None:
        """None while the program runs, else its exit status (128 + N when signal N ended it)."""
        return self._supervisor.poll()

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; raises subprocess.TimeoutExpired after ``timeout`` seconds."""
        return self._supervisor.wait(timeout)

    def signal(self, number: int) -> None:
        """Send a signal to the program itself; nothing happens when it has ended."""
        for identity in self.identities[1:]:
            identity.signal(number)

    def kill(self) -> None:
        """End the program as a crash would: SIGKILL, no chance to clean up. Returns when it is gone."""
        self.signal(signal.SIGKILL)
        self._supervisor.wait()

    def stop(self) -> None:
        """End the program in good order; SIGKILL after the grace period. Safe to call again."""
        if self._supervisor.poll() is not None:
            return
        self._supervisor.terminate()
        try:
            self._supervisor.wait(self._grace + 10)
        except subprocess.TimeoutExpired:
            self.kill()

    def disown(self) -> None:
        """Let the program outlive this process; whoever is to stop it later needs ``identities``."""
        self._supervisor.send_signal(signal.SIGUSR1)
        # subprocess warns when a Popen is dropped whose end was not seen; here it is meant to go on.
        self._supervisor.returncode = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment; another process may still take it first.

    It is none of those that the system gives to connections and to whoever asks for any port: a program that binds it
    seconds later finds it as free as it is now, unless another one draws the same number.
    """
    for _ in range(_PORT_ATTEMPTS):
        port = random.SystemRandom().randrange(_FIRST_PORT, _first_ephemeral_port())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise ProcessError(f"no free port on 127.0.0.1: tried {_PORT_ATTEMPTS} from {_FIRST_PORT} on")


@functools.cache
def _first_ephemeral_port() -> int:
    """Where the ports begin that the system gives away by itself: 32768 on Linux, unless its settings differ."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        first = 32768
    return first if first > _FIRST_PORT + _PORT_ATTEMPTS else 65536


def on_free_port(start: Callable[[int], _T], attempts: int = 5) -> _T:
    """Call ``start(port)``, again with another port when it raises PortTakenError."""
    for _ in range(attempts - 1):
        with contextlib.suppress(PortTakenError):
            return start(free_port())
    return start(free_port())


def wait_for(
    check: Callable[[], object],
    *,
    what: str,
    timeout: float,
    process: ManagedProcess | None = None,
    every: float = 0.05,
) -> None:
    """Return as soon as ``check()`` is true.

    Raises ProcessError after ``timeout`` seconds, or as soon as ``process`` has ended (PortTakenError when its log says
    that the port is in use), with the end of its log.
    """
    deadline = time.monotonic() + timeout
    while True:
        if process is not None and (status := process.poll()) is not None:
            tail = log_tail(process.log)
            kind = PortTakenError if any(sign in tail.lower() for sign in _PORT_TAKEN) else ProcessError
            raise kind(f"{what}: {process.argv[0]} ended with status {status}\n{tail}")
        if check():
            return
        if time.monotonic() > deadline:
            tail = "" if process is None else "\n" + log_tail(process.log)
            raise ProcessError(f"{what}: not after {timeout:g} s{tail}")
        time.sleep(every)


def log_tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file, or an empty string when there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def stop_all(processes: Sequence[Sequence[Identity]], grace: float) -> None:
    """End processes that another run started, each given as (supervisor, program).

    The supervisors are asked to stop, and what is left after ``grace`` seconds is killed.
    """
    everything = [identity for pair in processes for identity in pair]
    for pair in processes:
        for supervisor in pair[:1]:
            supervisor.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(identity.alive() for identity in everything) and time.monotonic() < deadline:
        time.sleep(0.05)
    for identity in everything:
        identity.signal(signal.SIGKILL)
    while any(identity.alive() for identity in everything):
        time.sleep(0.02)
