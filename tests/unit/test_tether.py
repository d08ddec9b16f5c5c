"""A working process that took long to start finds words of its parent that are old: the newest deadline counts."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest

from vectorwright.kube import clock

CHILD = """
import asyncio, sys
from vectorwright.cli.supervision.tether import Tether
from vectorwright.kube.tenure import Tenure

async def work():
    tenure = Tenure()
    tether = Tether.from_stdin(tenure, lambda: b"figures")
    stop = asyncio.Event()
    tether.attach(stop)
    await asyncio.sleep(0.5)
    print(tenure.remaining() > 30, stop.is_set(), flush=True)

asyncio.run(work())
"""


def start(words: Sequence[str]) -> tuple[int, str, bytes]:
    """Status and output of a child whose parent said ``words`` before it listened, and what it answered."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall("".join(f"{word}\n" for word in words).encode())
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD], stdin=theirs.fileno(), stdout=subprocess.PIPE, text=True
            )
        with child:
            told, _ = child.communicate(timeout=60)
        return child.returncode, told.strip(), ours.recv(4096)


def test_the_newest_deadline_counts() -> None:
    now = clock.now()
    assert start([f"lease {now - 5}", f"lease {now - 4}", f"lease {now + 60}"])[:2] == (0, "True False")


def test_what_else_was_said_is_not_lost() -> None:
    now = clock.now()
    words = [f"lease {now - 5}", "metrics", "stop", f"lease {now + 60}"]
    assert start(words) == (0, "True True", b"metrics 7\nfigures")


@pytest.mark.parametrize("earlier", [[], [60.0]], ids=["alone", "after-a-later-one"])
def test_a_newest_deadline_that_is_over_ends_it(earlier: list[float]) -> None:
    now = clock.now()
    status, told, _ = start([*(f"lease {now + later}" for later in earlier), f"lease {now - 1}"])
    # By the kernel's timer or by its own thread, whichever comes first.
    assert status in (-signal.SIGALRM, 128 + signal.SIGKILL)
    assert told == ""
