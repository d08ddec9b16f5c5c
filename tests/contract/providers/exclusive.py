"""One real server for all processes of a test run: one test at a time has it, and it must have been empty at first.

A server that somebody names in the environment has no place of its own for each test. The suite runs in several
processes, so a file lock says whose turn it is; and what is found there before the first test of the run is somebody
else's, which fails the run before anything is touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

_HELD: dict[str, int] = {}
"""Addresses that a test of this process has now, and how many providers of it share that turn."""


def take_turns(
    request: pytest.FixtureRequest,
    variable: str,
    address: str,
    *,
    held: Callable[[], Sequence[str]],
    empty: Callable[[], None],
) -> None:
    """Wait for this test's turn on the server at ``address``, emptied; it is emptied again when the test ends.

    ``held`` tells what the server holds, ``variable`` is the environment variable that names it, for the message.
    """
    if address not in _HELD:
        _wait(request, variable, address, held)
    _HELD[address] = _HELD.get(address, 0) + 1
    request.addfinalizer(lambda: _leave(address))
    empty()
    request.addfinalizer(empty)


def _leave(address: str) -> None:
    _HELD[address] -= 1
    if not _HELD[address]:
        del _HELD[address]


def _wait(request: pytest.FixtureRequest, variable: str, address: str, held: Callable[[], Sequence[str]]) -> None:
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"process-{os.getpid()}"
    place = Path(tempfile.gettempdir()) / f"vectorwright-{hashlib.sha256(address.encode()).hexdigest()[:16]}.lock"
    handle = place.open("a+")
    request.addfinalizer(handle.close)  # which lets the lock go
    fcntl.flock(handle, fcntl.LOCK_EX)
    handle.seek(0)
    if handle.read() == run:
        return
    if strangers := held():
        pytest.fail(
            f"{variable} names a server that holds {list(strangers)[:5]}: these tests empty it, so give them one with "
            "nothing in it"
        )
    handle.truncate(0)
    handle.write(run)
    handle.flush()
