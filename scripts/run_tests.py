"""``make test``: run pytest with the given arguments, and leave nothing behind.

Every run has a temporary directory and a mark of its own, so that several can run side by side.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.devcluster.processes import Identity
from scripts.steps import BIN, CHECKOUT, Steps

_MARK = "VECTORWRIGHT_TEST_RUN"
_ENDING_SECONDS = 15.0
"""How long the servers of the run may take to notice that it is over."""


WORKERS = (os.cpu_count() or 1) + 1
"""Most tests wait for servers and timers; more processes than this make those that measure time wait for each other."""


def main(arguments: list[str]) -> int:
    if not any(argument.startswith(("-n", "--numprocesses", "-p", "--pdb")) for argument in arguments):
        arguments = ["-n", str(WORKERS), "--dist", "worksteal", *arguments]
    steps = Steps(2)
    mark = secrets.token_hex(8)
    temporary = Path(tempfile.mkdtemp(prefix="vw-test-"))
    # Servers that refuse to run as root run as another user, who must be able to pass through here.
    temporary.chmod(0o711)
    try:
        # Sockets of servers lie below it, and their paths may have 107 bytes.
        arguments = ["--basetemp", str(temporary / "t"), *arguments]
        with steps.step(f"pytest {' '.join(arguments)}"):
            status = _pytest(arguments, {**os.environ, _MARK: mark, "TMPDIR": str(temporary)})
    finally:
        with steps.step("clean up"):
            leaked = _end_leftovers(mark)
            _remove(temporary)
    if leaked:
        print("these processes outlived the tests that started them, and were killed:", *leaked, sep="\n    ")
        status = status or 1
    steps.end("tests passed" if status == 0 else f"tests FAILED (status {status})")
    return status


def _pytest(arguments: list[str], environment: dict[str, str]) -> int:
    # A shell starts background jobs with SIGINT ignored, which a child would inherit: then nothing could end it gently.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen([BIN / "python", "-m", "pytest", *arguments], cwd=CHECKOUT, env=environment) as process:
        # The terminal sends Ctrl-C to pytest as well: it ends in good order, and so do we after it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.send_signal(signal.SIGINT))
        return process.wait()


def _end_leftovers(mark: str) -> list[str]:
    """Kill the processes of this run that are still there after a while; what they were, one line each."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for identity in left:
        identity.signal(signal.SIGKILL)
    return list(left.values())


def _marked(mark: str) -> dict[Identity, str]:
    """Processes with this run's mark in their environment, with their command lines (Linux; elsewhere none)."""
    needle = f"{_MARK}={mark}".encode()
    found: dict[Identity, str] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if needle not in (directory / "environ").read_bytes().split(b"\0"):
                continue
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        identity = Identity.of(int(directory.name))
        if identity is not None:
            found[identity] = f"{identity.pid}: {command.strip()[:200]}"
    return found


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        # Some tests make read-only directories.
        for folder, _, _ in os.walk(directory):
            Path(folder).chmod(0o700)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
