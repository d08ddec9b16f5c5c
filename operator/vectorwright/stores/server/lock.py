"""One directory, one owner: the lock that a store server holds on its directory."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from vectorwright.errors import Terminal

_POLL = 0.1


class DirectoryLock:
    """An exclusive lock on a directory. The system releases it when the process ends, however it does."""

    def __init__(self, directory: Path, wait: float = 0.0) -> None:
        """``wait``: seconds to wait for another owner to go."""
        self._directory = directory
        self._wait = wait
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises Terminal (``DirectoryInUse``, ``CannotOpen``)."""
        path = self._directory / ".lock"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Terminal(
                f"{self._directory} cannot be used as a store's directory: {error.strerror}", reason="CannotOpen"
            ) from None
        until = time.monotonic() + self._wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(_POLL)
                    continue
                owner = os.pread(descriptor, 20, 0).decode("ascii", "ignore").strip() or "unknown"
                os.close(descriptor)
                raise Terminal(
                    f"{self._directory} belongs to another running vectorwright store-server (process {owner}): stop "
                    "that one, or use another directory",
                    reason="DirectoryInUse",
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            self._descriptor = descriptor
            return

    def release(self) -> None:
        """Let it go. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
