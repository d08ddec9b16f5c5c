"""Say what is being done, how far it is, and how long each step took."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = CHECKOUT / ".venv" / "bin"


class Steps:
    """Numbered steps of one command."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._number += 1
        print(f"==> [{self._number}/{self._total}] {title}", flush=True)
        begun = time.monotonic()
        yield
        print(f"    {time.monotonic() - begun:.1f} s", flush=True)

    def end(self, verdict: str) -> None:
        print(f"==> {verdict} after {time.monotonic() - self._begun:.1f} s", flush=True)


def succeeds(command: list[str | Path]) -> bool:
    """Run a command in the checkout, its output on the screen."""
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode == 0
