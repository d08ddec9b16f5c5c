"""The one way in which bytes of FAISS indexes reach the disk: every call that a crash may fall between, in one place.

Tests put themselves in the place of :class:`Files` to fail after each of these calls, and to lose what was not flushed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

import orjson

SUFFIX = ".faiss"
NEW = ".faiss-new-"
TRASH = ".faiss-trash-"
IDENTITY = "faiss-id"
_DIGEST = 16


def digest(*parts: bytes | bytearray | memoryview) -> bytes:
    """The checksum of everything here: 16 bytes of BLAKE2b."""
    state = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        state.update(part)
    return state.digest()


class Files:
    """System calls that change files. ``fsync=False`` leaves flushing to the system: for those who can lose writes."""

    def __init__(self, *, fsync: bool = True) -> None:
        self._fsync = fsync

    def create(self, path: Path) -> int:
        """A new file to append to. Raises FileExistsError."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Append all of it. Raises OSError, with a part of it written."""
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]

    def flush(self, descriptor: int) -> None:
        """Return when what was written is on the disk."""
        if self._fsync:
            os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def flush_folder(self, path: Path) -> None:
        """Return when the names in a folder are on the disk."""
        if self._fsync:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Make a folder, and those above it."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def rename(self, old: Path, new: Path) -> None:
        """Give another name in one step; a file of that name is replaced."""
        old.replace(new)

    def truncate(self, path: Path, length: int) -> None:
        """Cut a file, durably."""
        os.truncate(path, length)
        if self._fsync:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with what is in it. Nothing happens where there is none."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def write_whole(self, path: Path, data: bytes) -> None:
        """Make a file of these bytes and flush it; its folder is still to be flushed."""
        descriptor = self.create(path)
        try:
            self.write(descriptor, data)
            self.flush(descriptor)
        finally:
            self.close(descriptor)

    def replace_whole(self, path: Path, data: bytes) -> None:
        """Replace a file in one step that a crash leaves done or undone."""
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        self.write_whole(temporary, data)
        self.rename(temporary, path)
        self.flush_folder(path.parent)


def sealed_json(value: object) -> bytes:
    """A JSON document with its checksum on a second line."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return text + b"\n" + digest(text).hex().encode() + b"\n"


def read_sealed_json(path: Path) -> dict[str, object] | None:
    """What :func:`sealed_json` wrote, or None where the file is absent or not intact."""
    try:
        text, _, rest = path.read_bytes().partition(b"\n")
    except (FileNotFoundError, IsADirectoryError):
        return None
    if rest.strip() != digest(text).hex().encode():
        return None
    value = orjson.loads(text)
    return value if isinstance(value, dict) else None


def index_path(root: Path, name: str) -> Path:
    """The folder of an index."""
    return root / f"{name}{SUFFIX}"


def index_names(root: Path) -> list[str]:
    """The indexes that are there, sorted."""
    return sorted(path.name.removesuffix(SUFFIX) for path in root.glob(f"*{SUFFIX}") if path.is_dir())


def clear_remains(root: Path, files: Files) -> None:
    """Remove indexes whose making or removal did not end: nobody was told of the one, or could read the other."""
    for pattern in (f"{NEW}*", f"{TRASH}*"):
        for path in root.glob(pattern):
            files.remove(path)


def backend_id(root: Path, files: Files) -> str:
    """The identity of this folder, made at the first call and kept in it. Lance tables beside it have their own."""
    path = root / IDENTITY
    try:
        found = path.read_text("ascii").strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = str(uuid.uuid4())
        files.replace_whole(path, found.encode())
    return found


def size_of(path: Path) -> int:
    """Bytes of all files in a folder. Files that go meanwhile are not counted."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
