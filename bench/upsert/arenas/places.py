"""Where servers keep what they are given."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BATCH = 100
"""Records in a batch: what a run writes when nothing else is said."""


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that is deleted at the end."""
    path = Path(tempfile.mkdtemp(prefix="vectorwright-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
