"""Files that fail on purpose: a process that is gone after so many calls, and a disk that lost what was not flushed."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from vectorwright.stores.faiss.files import Files


class PowerCut(Exception):  # noqa: N818 - it is no error of the code under test
    """The process is gone: no later call does anything either."""


class FailingFiles(Files):
    """Does ``calls`` calls, and half of the next. ``fail`` is raised once in its place, and then all goes on.

    Without ``fail`` every later call raises PowerCut, and :meth:`lose` makes of the disk what a cut of power may leave.
    """

    def __init__(self, stash: Path, calls: int | None = None, fail: OSError | None = None) -> None:
        super().__init__()
        self._stash = stash
        self._left = calls
        self._fail = fail
        self._lock = threading.RLock()
        self._flushed: dict[int, int] = {}
        """Inode → bytes that are on the disk."""
        self._undo: list[tuple[Path, Callable[[], object]]] = []
        """Changes of names that are not on the disk yet, by folder, and how each is taken back."""
        self.done = 0
        self.cut = False

    def _step(self) -> bool:
        """Whether this call is the one that fails. Raises PowerCut where the process is gone."""
        with self._lock:
            if self.cut:
                raise PowerCut
            if self._left is None or self.done < self._left:
                self.done += 1
                return False
            self._left = None if self._fail is not None else self._left
            self.cut = self._fail is None
            return True

    def _gone(self) -> Exception:
        return self._fail or PowerCut()

    def create(self, path: Path) -> int:
        if self._step():
            raise self._gone()
        descriptor = super().create(path)
        self._flushed[os.fstat(descriptor).st_ino] = 0
        self._undo.append((path.parent, lambda: path.unlink(missing_ok=True)))
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        if self._step():
            super().write(descriptor, memoryview(data)[: len(data) // 2])
            raise self._gone()
        super().write(descriptor, data)

    def flush(self, descriptor: int) -> None:
        if self._step():
            raise self._gone()
        status = os.fstat(descriptor)
        self._flushed[status.st_ino] = status.st_size

    def flush_folder(self, path: Path) -> None:
        if self._step():
            raise self._gone()
        self._undo = [one for one in self._undo if one[0] != path]

    def make_folder(self, path: Path) -> None:
        if self._step():
            raise self._gone()
        if not path.exists():
            super().make_folder(path)
            self._undo.append((path.parent, lambda: shutil.rmtree(path, ignore_errors=True)))

    def rename(self, old: Path, new: Path) -> None:
        if self._step():
            raise self._gone()
        replaced = self._put_aside(new) if new.exists() else None
        super().rename(old, new)

        def undo() -> None:
            if new.exists():
                new.rename(old)
            if replaced is not None:
                replaced.rename(new)

        self._undo.append((new.parent, undo))

    def truncate(self, path: Path, length: int) -> None:
        if self._step():
            raise self._gone()
        super().truncate(path, length)
        self._flushed[path.stat().st_ino] = length

    def remove(self, path: Path) -> None:
        if self._step():
            raise self._gone()
        if path.exists():
            kept = self._put_aside(path)
            self._undo.append((path.parent, lambda: kept.rename(path)))

    def _put_aside(self, path: Path) -> Path:
        kept = self._stash / f"{len(list(self._stash.iterdir()))}-{path.name}"
        path.rename(kept)
        return kept

    def lose(self, root: Path, *, names: bool, data: bool) -> None:
        """Take back the changes of ``names`` and the ``data`` in files that were not flushed."""
        if names:
            for _, undo in reversed(self._undo):
                undo()
        if data:
            for path in root.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    length = self._flushed.get(path.stat().st_ino)
                    if length is not None and length < path.stat().st_size:
                        os.truncate(path, length)
