"""``python -m deploy.demo``: run the demo. ``python -m deploy.demo stop``: stop those that KEEP=1 left running."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import httpx
from deploy.demo import keeping, proofs_of_indexes, proofs_of_runs, quickstart
from deploy.demo.commands import DemoError
from deploy.demo.console import Screen
from deploy.demo.repository import RepositoryError
from deploy.demo.world import World
from deploy.devcluster import ClusterError
from deploy.devcluster.processes import ProcessError

ACTS: tuple[tuple[str, Callable[[World], None]], ...] = (
    ("fill two indexes from git", quickstart.fill),
    ("ask three questions", quickstart.ask),
    ("run again", proofs_of_runs.run_again),
    ("change one file", proofs_of_runs.change_one_file),
    ("a wrong dimension", proofs_of_indexes.refuse_other_dimension),
    ("a change behind its back", proofs_of_indexes.mend_drift),
    ("kill -9 in the middle of a run", proofs_of_runs.kill_in_the_middle),
    ("delete an index resource", proofs_of_indexes.retain_deleted),
)

_FAILURES = (
    ClusterError,
    DemoError,
    ProcessError,
    RepositoryError,
    OSError,
    httpx.HTTPError,
    subprocess.SubprocessError,
)


def main(arguments: list[str] | None = None) -> int:
    """0: every claim held; 1: one did not, or the demo could not go on; 130: interrupted."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("run", "stop"), default="run")
    command = parser.parse_args(arguments).command
    screen = Screen()
    if command == "stop":
        if not keeping.stop(screen):
            screen.plain("no demo of this checkout was left running")
        return 0
    return _run(screen, keep=os.environ.get("KEEP", "0") not in {"", "0"})


def _run(screen: Screen, *, keep: bool) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup the end of the terminal is to be ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    status, understood = 1, False
    world = World(screen)
    try:
        world.start()
        for title, act in ACTS:
            with screen.step(title):
                act(world)
        status, understood = 1 if screen.broken else 0, True
    except KeyboardInterrupt:
        screen.error("interrupted")
        status = 130
    except _FAILURES as error:
        screen.error(f"The demo cannot go on: {error}")
        world.explain()
        understood = True
    finally:
        # Whoever is impatient now would leave something behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if keep and understood and world.complete:
            keeping.keep(world)
        else:
            keep = False
            with screen.step("clean up"):
                status = status if world.close() else status or 1
    _conclude(screen, status)
    if keep:
        screen.plain(keeping.usage(world))
    return status


def _conclude(screen: Screen, status: int) -> None:
    screen.plain("==> seconds")
    screen.table()
    screen.plain()
    if status == 0:
        screen.plain(f"All {screen.checked} claims held.")
    for claim in screen.broken:
        screen.error(f"✗ {claim}")


if __name__ == "__main__":
    sys.exit(main())
