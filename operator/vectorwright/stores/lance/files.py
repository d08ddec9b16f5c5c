"""The folders of Lance tables: making commits outlast a power cut, and clearing away what a crash left.

Lance writes a commit as new files and never calls fsync. A process that dies loses nothing; a machine that dies could
lose what was acknowledged. So the files of a commit and their folders are flushed before it is acknowledged.

What was being written when the power went, and was never acknowledged, may be there in part: a newest version whose
files are torn. Such a table is reported as unreadable and left alone; taking the newest file out of its ``_versions``
folder brings back the version before.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path

SUFFIX = ".lance"
TRASH = ".trash-"
_log = logging.getLogger(__name__)


def fsync_path(path: Path) -> None:
    """Flush a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file in one step that a crash leaves done or undone."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


class DurableFolder:
    """Flushes what appeared in a table's folder since the last time. Used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._flushed: set[str] = set()

    def skip_present(self) -> None:
        """Take everything that is there for flushed: it was acknowledged by an earlier process, or never."""
        self._flushed = {name for folder in self._folders() for name in _files(folder)}

    def flush(self) -> None:
        """Flush new files, then the folders that they are in. Raises OSError."""
        present: set[str] = set()
        for folder in self._folders():
            names = _files(folder)
            new = [name for name in names if name not in self._flushed or name.endswith(".json")]
            for name in new:
                try:
                    fsync_path(Path(name))
                except FileNotFoundError:
                    continue  # replaced by a newer version of it meanwhile
            if new:
                fsync_path(Path(folder))
            present.update(names)
        self._flushed = present

    def _folders(self) -> list[str]:
        return [folder for folder, _, _ in os.walk(self._path)]


def _files(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def table_path(root: Path, name: str) -> Path:
    """The folder of a table."""
    return root / f"{name}{SUFFIX}"


def table_names(root: Path) -> list[str]:
    """The tables that are there, sorted."""
    return sorted(path.name.removesuffix(SUFFIX) for path in root.glob(f"*{SUFFIX}") if path.is_dir())


def discard(path: Path) -> Path:
    """Take a table away in one step: its folder gets a name that is none. Returns that folder, still to be removed."""
    trash = path.with_name(f"{TRASH}{uuid.uuid4().hex}")
    path.rename(trash)
    fsync_path(path.parent)
    return trash


def clear_remains(root: Path) -> None:
    """Remove dropped tables whose removal did not end, and tables whose making did not: nothing was ever in those."""
    for path in root.glob(f"*{SUFFIX}"):
        if path.is_dir() and not any((path / "_versions").glob("*.manifest")):
            _log.warning("removing the remains of table %s: its making never ended", path.name.removesuffix(SUFFIX))
            discard(path)
    for path in root.glob(f"{TRASH}*"):
        shutil.rmtree(path, ignore_errors=True)


def backend_id(root: Path) -> str:
    """The identity of this folder, made at the first call and kept in it."""
    path = root / "backend-id"
    try:
        found = path.read_text("ascii").strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = str(uuid.uuid4())
        write_durably(path, found.encode())
    return found
