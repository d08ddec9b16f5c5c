"""A FAISS store that is killed at random moments of its work, a hundred times.

- every acknowledged write and removal is there and exact after each start, each record once
- what was not acknowledged is there whole or not at all
- also while it reads back what the kill before left, and with encryption
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from tests.support.faiss import KEY
from tests.support.store_server import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "operator"))), "OMP_NUM_THREADS": "1"}


def kill(root: Path, times: int, *key: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.support.faiss_kills", str(root), str(times), "7", *key]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, int] = orjson.loads(done.stdout)
    return found


@pytest.mark.timeout(900)  # 25 s on a quiet machine of two cores
def test_a_hundred_kills_lose_nothing_acknowledged(tmp_path: Path) -> None:
    done = kill(tmp_path / "store", 100)
    assert done["kills"] == 100
    assert done["writes"] > 200
    assert done["snapshots"] > 10


@pytest.mark.timeout(900)
def test_kills_of_an_encrypted_store(tmp_path: Path) -> None:
    done = kill(tmp_path / "store", 20, KEY.hex())
    assert done["writes"] > 100
    assert done["snapshots"] > 5
