"""The operator's two processes around work that can misbehave on purpose, and marks that tell who worked when.

Run as a program it is the parent, or with ``--child`` the child, of the real supervision code; only the controllers are
replaced. Each child appends ``<pid> <time>`` to a file every 10 ms while it works: two children that share a file stand
for two operators that write to one store, and must never overlap.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vectorwright.cli.supervision import child as child_module
from vectorwright.cli.supervision.parent import Parent
from vectorwright.cli.supervision.supervisor import RestartPolicy
from vectorwright.cli.supervision.tether import check_parent
from vectorwright.cli.supervision.work import work
from vectorwright.kube import clock
from vectorwright.kube.connection import KubeConnection, load_connection
from vectorwright.kube.lease import Timings
from vectorwright.observability import metrics
from vectorwright.observability.logs import configure_logging
from vectorwright.settings import BindAddress, Settings

TIMINGS = Timings(lease=6.0, renew_deadline=3.5, retry=0.5, margin=0.5)


class OperatorProcess:
    """One operator started by a test: its parent process, its log, its HTTP listener. ``stop()`` leaves nothing."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.marks = log.parent / "marks"

    @classmethod
    def start(cls, command: list[str], directory: Path) -> OperatorProcess:
        """Start ``command`` with its output in a file of ``directory``."""
        log = directory / f"operator-{time.monotonic_ns()}.log"
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": path}, start_new_session=True
            )
        return cls(process, log)

    @classmethod
    def stand_in(
        cls, kubeconfig: Path, namespace: str, directory: Path, behaviour: str = "work", grace: float = 2.0
    ) -> OperatorProcess:
        """This file as an operator whose controllers show ``behaviour``; those of one directory share their marks.

        Its work has ``grace`` seconds to end.
        """
        flags = {
            "kubeconfig": kubeconfig,
            "namespace": namespace,
            "marks": directory / "marks",
            "behaviour": behaviour,
            "grace": grace,
        }
        command = [sys.executable, "-P", __file__, *(f"--{key}={value}" for key, value in flags.items())]
        return cls.start(command, directory)

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text()

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """The first match of ``pattern`` in the log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text()):
                return found
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} did not appear in {seconds} s:\n{self.text()}")

    def child(self, seconds: float = 30, after: int = 0) -> int:
        """Process id of the child, or of one that was started after ``after``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            started = [int(pid) for pid in re.findall(r"the working process (\d+) has started", self.text())]
            if started and started[-1] != after:
                return started[-1]
            time.sleep(0.02)
        raise AssertionError(f"no child was started in {seconds} s:\n{self.text()}")

    def working_child(self, seconds: float = 30, after: int = 0) -> int:
        """Like ``child()``, once that child has done something."""
        pid = self.child(seconds, after)
        wait_until(lambda: pid in spells(self.marks), 30, f"the child {pid} works")
        return pid

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of what its listener answers; 0 and why when it does not."""
        port = self.wait_for(r"/metrics on [^\"\s]*:(\d+)").group(1)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)

    def stop(self) -> None:
        if self.process.poll() is None:
            for signum in (signal.SIGCONT, signal.SIGTERM):
                self.process.send_signal(signum)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"not in {seconds} s: {what}")
        time.sleep(0.01)
    return time.monotonic() - begun


def spells(marks: Path) -> dict[int, tuple[float, float]]:
    """First and last mark of each child, by process id."""
    found: dict[int, tuple[float, float]] = {}
    if marks.exists():
        for line in marks.read_text().splitlines():
            pid, _, when = line.partition(" ")
            with suppress(ValueError):
                first, _ = found.get(int(pid), (float(when), 0.0))
                found[int(pid)] = (first, float(when))
    return found


def no_overlap(marks: Path) -> bool:
    """Whether each child made its last mark before the next one made its first."""
    ordered = sorted(spells(marks).values())
    return all(before[1] < after[0] for before, after in itertools.pairwise(ordered))


# -- the program --


def _behave(behaviour: str, marks: Path) -> Callable[..., object]:
    async def run(
        settings: Settings, connection: KubeConnection, heartbeat: Callable[[], None], stop: asyncio.Event
    ) -> None:
        metrics.STORE_UP.set("ns", "one", 1)
        if behaviour == "grandchild":
            grandchild = await asyncio.create_subprocess_exec("sleep", "1000")
            sys.stderr.write(json.dumps({"grandchild": grandchild.pid}) + "\n")
        _misbehave(behaviour, marks, heartbeat)
        with marks.open("a", buffering=1) as file:
            while not stop.is_set() or behaviour == "stubborn":
                heartbeat()
                file.write(f"{os.getpid()} {clock.now()!r}\n")
                await asyncio.sleep(0.01)
        sys.stderr.write(json.dumps({"finished": os.getpid()}) + "\n")

    return run


def _misbehave(behaviour: str, marks: Path, heartbeat: Callable[[], None]) -> None:
    """What no event loop should be asked to bear; each fault but the crash once only."""
    if behaviour == "crash":
        raise SystemExit(3)
    done = marks.with_suffix(".misbehaved")
    if behaviour in {"block-once", "hang-once"} and not done.exists():
        done.touch()
        heartbeat()
        sys.stderr.write("hanging\n")
        if behaviour == "block-once":
            time.sleep(1000)
        # A match that takes years, and holds the interpreter all the while: no thread of this process runs.
        re.match(r"(a+)+$", "a" * 60 + "b")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--namespace")
    parser.add_argument("--marks", type=Path)
    parser.add_argument("--behaviour")
    parser.add_argument("--grace", type=float)
    parser.add_argument("--child", type=int)
    options = parser.parse_args()
    configure_logging("text")
    settings = Settings(
        leader_election_namespace=options.namespace,
        leader_election=options.behaviour != "no-lease",
        metrics_bind_address=BindAddress("127.0.0.1", 0),
        shutdown_grace_s=options.grace,
    )
    connection = load_connection(options.kubeconfig)
    if options.child is not None:
        check_parent(options.child)
        return work(settings, connection, _behave(options.behaviour, options.marks))  # type: ignore[arg-type]
    child_module.STALE_S = 3.0  # more than a poll: the newest beat is that old when it is looked at
    command = [sys.executable, "-P", __file__, *sys.argv[1:]]

    async def lead() -> int:
        policy = RestartPolicy(pauses=(0.1, 0.2, 0.3))
        return await Parent(settings, connection, command, timings=TIMINGS, policy=policy).run()

    return asyncio.run(lead())


if __name__ == "__main__":
    sys.exit(main())
