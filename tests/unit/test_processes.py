"""A managed process ends with its owner, with its supervisor and with its descendants, and nothing else is hit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.devcluster.processes import (
    Identity,
    ManagedProcess,
    PortTakenError,
    ProcessError,
    free_port,
    on_free_port,
    stop_all,
    wait_for,
)

ROOT = Path(__file__).resolve().parents[2]


def shell(script: str, tmp_path: Path, grace: float = 5.0) -> ManagedProcess:
    return ManagedProcess.start(["sh", "-c", script], log=tmp_path / "log", cwd=tmp_path, grace=grace)


def descendant(tmp_path: Path) -> Identity:
    """The process whose pid a script wrote to the file "pid"."""
    file = tmp_path / "pid"
    wait_for(lambda: file.exists() and file.read_text().endswith("\n"), what="the pid file", timeout=10)
    identity = Identity.of(int(file.read_text()))
    assert identity is not None
    return identity


def test_the_exit_status_and_the_output_come_through(tmp_path: Path) -> None:
    process = shell("echo out; echo err >&2; exit 7", tmp_path)
    assert process.wait(10) == 7
    assert sorted(process.log.read_text().split()) == ["err", "out"]


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"cannot start /nonexistent/x: .*No such file"):
        ManagedProcess.start(["/nonexistent/x"], log=tmp_path / "log")


def test_stop_lets_a_program_finish_and_may_be_repeated(tmp_path: Path) -> None:
    process = shell("trap 'echo bye; exit 0' TERM; touch up; while :; do sleep 0.05; done", tmp_path)
    wait_for((tmp_path / "up").exists, what="the trap", timeout=10, process=process)
    process.stop()
    process.stop()
    assert process.poll() == 0
    assert process.log.read_text().endswith("bye\n")


def test_a_program_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    process = shell("trap '' TERM; touch up; while :; do sleep 0.05; done", tmp_path, grace=0.3)
    wait_for((tmp_path / "up").exists, what="the trap", timeout=10, process=process)
    process.stop()
    assert process.poll() == 128 + signal.SIGKILL


def test_descendants_that_left_the_group_are_ended(tmp_path: Path) -> None:
    with shell("setsid sh -c 'echo $$ > pid; exec sleep 600' & exec sleep 600", tmp_path):
        far = descendant(tmp_path)
        assert far.alive()
    assert not far.alive()


def test_a_killed_supervisor_takes_its_program_along(tmp_path: Path) -> None:
    process = shell("exec sleep 600", tmp_path)
    supervisor, program = process.identities
    supervisor.signal(signal.SIGKILL)
    wait_for(lambda: not program.alive(), what="the program to end", timeout=5)
    process.wait(5)


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit()"])
def test_the_program_ends_with_its_owner(tmp_path: Path, ending: str) -> None:
    """The starting thread ends before: the owner is the process."""
    script = f"""
import os, sys, threading
from pathlib import Path
from deploy.devcluster.processes import ManagedProcess
directory = Path(sys.argv[1])
kept = []
def begin():
    kept.append(ManagedProcess.start(
        ["sh", "-c", "echo $$ > pid; exec sleep 600"], log=directory / "log", cwd=directory, remove=directory))
thread = threading.Thread(target=begin)
thread.start()
thread.join()
sys.stdin.readline()
{ending}
"""
    directory = tmp_path / "run"
    directory.mkdir()
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", script, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as owner:
        program = descendant(directory)
        time.sleep(0.6)
        assert program.alive()
        owner.communicate("go\n")
    wait_for(lambda: not program.alive(), what="the program to end", timeout=5)
    wait_for(lambda: not directory.exists(), what="its directory to go", timeout=5)


def test_a_disowned_program_outlives_its_owner_and_can_be_stopped(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from deploy.devcluster.processes import ManagedProcess
directory = Path(sys.argv[1])
process = ManagedProcess.start(["sleep", "600"], log=directory / "log")
process.disown()
print(*(identity.pid for identity in process.identities))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = [Identity.of(int(pid)) for pid in done.stdout.split()]
    time.sleep(0.6)
    alive = [identity for identity in found if identity is not None and identity.alive()]
    assert len(alive) == 2
    stop_all([alive], 5)
    assert not any(identity.alive() for identity in alive)


def test_an_identity_is_not_fooled_by_a_recycled_pid() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        real = Identity.of(process.pid)
        assert real is not None
        earlier = Identity(process.pid, "1")
        assert not earlier.alive()
        assert not earlier.signal(signal.SIGKILL)
        assert process.poll() is None
        assert real.signal(signal.SIGKILL)
        process.wait()
        assert not real.alive()
        assert not real.signal(signal.SIGKILL)
    assert Identity.of(process.pid) != real


def test_a_port_that_was_taken_leads_to_another(tmp_path: Path) -> None:
    tried: list[int] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def begin(port: int) -> int:
            tried.append(port)
            port = taken.getsockname()[1] if len(tried) == 1 else port
            command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(port)]
            log = tmp_path / f"log-{port}"
            with ManagedProcess.start(command, log=log, cwd=tmp_path) as process:
                wait_for(lambda: "Serving" in log.read_text(), what="the server", timeout=20, process=process)
            return port

        assert on_free_port(begin) == tried[1]
        with pytest.raises(PortTakenError):
            on_free_port(begin_on_taken(taken.getsockname()[1], tmp_path), attempts=2)


def begin_on_taken(port: int, tmp_path: Path) -> Callable[[int], None]:
    def begin(_: int) -> None:
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        with ManagedProcess.start(command, log=tmp_path / "taken", cwd=tmp_path) as process:
            wait_for(lambda: False, what="the server", timeout=20, process=process)

    return begin


def test_waiting_ends_with_the_log_when_the_program_ends_or_time_is_up(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"(?s)a miracle: sh ended with status 3.*no miracles"):
        wait_for(lambda: False, what="a miracle", timeout=20, process=shell("echo no miracles; exit 3", tmp_path))
    with pytest.raises(ProcessError, match=r"a miracle: not after 0.1 s"):
        wait_for(lambda: False, what="a miracle", timeout=0.1)


def test_free_ports_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_program_can_run_as_another_user(tmp_path: Path) -> None:
    process = ManagedProcess.start(["id", "-u"], log=tmp_path / "log", user=(65534, 65534))
    assert process.wait(10) == 0
    assert process.log.read_text() == "65534\n"
