"""A working process that died at its start a few times and runs now: its failures are forgotten while it runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from vectorwright.cli.supervision import supervisor as supervision
from vectorwright.cli.supervision.supervisor import RestartPolicy, Supervisor
from vectorwright.kube import clock

DIES_TWICE = """
import sys, time
with open(sys.argv[1], "a+") as file:
    file.write("x")
    file.seek(0)
    starts = len(file.read())
if starts < 3:
    sys.exit(1)
time.sleep(60)
"""


async def test_failures_are_forgotten_while_a_child_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STEADY_S", 1.0)
    monkeypatch.setattr(supervision, "POLL_S", 0.05)
    command = [sys.executable, "-c", DIES_TWICE, str(tmp_path / "starts")]
    supervised = Supervisor(command, lambda: clock.now() + 60, RestartPolicy(pauses=(0.05,) * 3))
    running = asyncio.create_task(supervised.run())
    most = 0
    async with asyncio.timeout(30):
        while not (supervised.starts == 3 and supervised.failures == 0):
            most = max(most, supervised.failures)
            await asyncio.sleep(0.02)
    assert most == 2
    assert supervised.child is not None
    supervised.end(clock.now())
    await running
