"""Where the launcher keeps things: nothing is ever written outside these places."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.devcluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def cache_directory() -> Path:
    """What may be kept between checkouts: ``${XDG_CACHE_HOME:-$HOME/.cache}/vectorwright``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "vectorwright"


def cluster_directory(name: str) -> Path:
    """The directory of a named cluster, inside the checkout. Raises ClusterError for a name that is no DNS label."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"cluster name {name!r}: use 1 to 32 lower-case letters, digits and dashes (NAME=)")
    return CHECKOUT / ".run" / "clusters" / name


@contextmanager
def locked(path: Path, waiting: Callable[[float], None] = lambda _: None) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created, never deleted) across processes.

    ``waiting`` is called with the seconds waited so far, about once a second, while another process holds it. The
    kernel drops the lock when its holder dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        begun = time.monotonic()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting(time.monotonic() - begun)
                time.sleep(1)
        yield
