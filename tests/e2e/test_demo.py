"""``make demo`` as a newcomer runs it: once, whole, on real servers.

What is checked: its exit status, the figures by which it proves its promises, and that it leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.devcluster.paths import CHECKOUT

_SOME = r"[1-9]\d*"
PROMISES = (
    rf"✓ docs is filled: {_SOME} documents listed, ({_SOME}) vectors written .*, \1 vectors in chroma, verified: Exact",
    rf"✓ code is filled: {_SOME} documents listed, ({_SOME}) vectors written .*, \1 vectors in lance, verified: Exact",
    r"✓ every answer can be looked up: 9 of 9 name a file",
    r"✓ docs: nothing is done twice: .*, 0 vectors embedded, 0 vectors written, 0 vectors deleted",
    r"✓ code: nothing is done twice: .*, 0 vectors embedded, 0 vectors written, 0 vectors deleted",
    r"✓ one change is one change: 1 documents replaced, 0 documents new, \d+ documents unchanged",
    r"✓ the new version is there, the old one gone",
    r"✓ a search finds what was changed",
    r"spec\.dimension is immutable: make a new VectorIndex",
    r"✓ the API server refuses another dimension",
    r"✓ an index of another dimension is not adopted: .* reason DimensionMismatch; the collection is untouched",
    r"✓ drift is named: event DriftCorrected: “set in the store: tuning\.hnsw\.ef_search 17 → \d+”",
    r"✓ drift is mended: hnsw\.ef_search is (\d+) again, .* the spec says \1",
    rf"✓ it was in the middle of it: {_SOME} of {_SOME} vectors were there when it died",
    rf"✓ the end is that of an undisturbed run: ({_SOME}) records, \1 different, 0 doubled; status says \1 vectors",
    rf"✓ index retained, ({_SOME}) vectors: event Retained: “.* \1 vectors were retained in the store”",
    r"✓ nothing is left: (\d+) of \1 processes ended, \S+ is deleted",
    r"All \d+ claims held\.",
)
_ENDING_SECONDS = 15.0


def environment(temporary: Path, mark: str) -> dict[str, str]:
    """Of this process, without what would choose another cluster or keep the demo running."""
    kept = {name: value for name, value in os.environ.items() if name not in ("KEEP", "CONTEXT", "KUBECONFIG")}
    return {**kept, "TMPDIR": str(temporary), "DEMO_TEST_MARK": mark, "NO_COLOR": "1", "PYTHONUTF8": "1"}


def left(mark: str) -> list[str]:
    """Command lines of the processes that the demo, or anything that it started, left running."""
    needle = f"DEMO_TEST_MARK={mark}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (directory / "environ").read_bytes().split(b"\0"):
                found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def wait_until_nothing_is_left(mark: str, temporary: Path) -> None:
    deadline = time.monotonic() + _ENDING_SECONDS
    while (left(mark) or any(temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left(mark) == []
    assert list(temporary.iterdir()) == []


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for temporary files of which nothing may be left; its path is short, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="d-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@pytest.mark.cluster
@pytest.mark.server
@pytest.mark.timeout(1500)
def test_the_demo_keeps_every_promise_and_leaves_nothing(temporary: Path) -> None:
    mark = secrets.token_hex(8)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo"],
        cwd=CHECKOUT,
        env=environment(temporary, mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=1400,
        check=False,
    )
    missing = [promise for promise in PROMISES if not re.search(promise, done.stdout)]
    assert done.returncode == 0, done.stdout
    assert not missing, done.stdout
    assert "✗" not in done.stdout
    # What a library has to say on stderr is none of the answer to a search.
    assert "INFO:" not in done.stdout
    wait_until_nothing_is_left(mark, temporary)


@pytest.mark.cluster
@pytest.mark.server
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_interrupted_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    """A signal ends it in good order, as Ctrl-C does; what a killed one started sees that it is gone."""
    mark = secrets.token_hex(8)
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.demo"],
        cwd=CHECKOUT,
        env=environment(temporary, mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as demo:
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if "kubectl apply -f crds" in line:
                demo.send_signal(number)
        status = demo.wait()
    if number == signal.SIGTERM:
        assert status == 130, output
        assert "interrupted" in output
        assert "✓ nothing is left" in output
    else:
        assert status == -signal.SIGKILL
    wait_until_nothing_is_left(mark, temporary)
