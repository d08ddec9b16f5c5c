"""The log of an index: a change is durable when it is in here and flushed.

Segments are numbered files. A process never appends to a segment that an earlier one wrote, nor after a write that
failed: with encryption, no number of a segment's cipher may ever be used twice.
"""

from __future__ import annotations

import logging
import mmap
import re
import secrets
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .files import Files
from .keys import SALT_BYTES, DamagedDataError, FileCipher, KeyRing
from .records import Change, decode_change, encode_change
from .segment import HEADERS_BYTES, Broken, SegmentHeader, decode_header, record_header, scan

MAX_SEGMENT = 64 * 2**20
"""Bytes after which a new segment is begun: one is read in one go."""
_NAME = re.compile(r"log-(\d{10})\.vwl")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a file that is not what was written."""

    file: str
    offset: int
    length: int
    what: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """A change of the log, and its number."""

    sequence: int
    change: Change


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of the segments of an index, in order."""
    found = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


class LogReader:
    """Reads what is in the log of an index. ``damages`` and the rest are complete when :meth:`replay` has ended."""

    def __init__(self, folder: Path, incarnation: uuid.UUID, ring: KeyRing, after: int) -> None:
        """``after``: number of the last change that is in the snapshot."""
        self._folder = folder
        self._incarnation = incarnation
        self._ring = ring
        self._after = after
        self.last = after
        """Number of the last change that was found."""
        self.damages: list[Damage] = []
        self.old_keys = False
        """Whether a segment is not encrypted as new ones will be."""
        self.torn: tuple[Path, int] | None = None
        """The segment whose end was cut off by a crash, and the length that it is to be cut to."""

    def check_keys(self) -> None:
        """Raise Terminal (``WrongEncryptionKey``) where the key of a segment is not here."""
        for _, path in segments(self._folder):
            with path.open("rb") as file:
                header = decode_header(file.read(HEADERS_BYTES))
            if header is not None and header.key_id is not None:
                self._ring.cipher(header.key_id, header.salt, str(path))

    def replay(self) -> Iterator[Replayed]:
        """The changes after the snapshot, in order; whatever is intact."""
        found = segments(self._folder)
        for number, path in found:
            yield from self._segment(path, is_last=number == found[-1][0])

    def _segment(self, path: Path, *, is_last: bool) -> Iterator[Replayed]:
        size = path.stat().st_size
        if size < HEADERS_BYTES:
            if is_last:
                self.torn = (path, 0)  # a crash while it was made
            else:
                self._damaged(path, 0, size, "the segment is shorter than its header")
            return
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            header = decode_header(data)
            if header is None and is_last and size == HEADERS_BYTES and not any(data):
                self.torn = (path, 0)
            elif header is None or header.incarnation != self._incarnation:
                self._damaged(path, 0, size, "the header of the segment is not that of this index")
            else:
                yield from self._records(path, data, header, is_last=is_last)

    def _records(self, path: Path, data: memoryview, header: SegmentHeader, *, is_last: bool) -> Iterator[Replayed]:
        cipher = None
        if header.key_id is not None:
            cipher = self._ring.cipher(header.key_id, header.salt, str(path))
        self.old_keys = self.old_keys or header.key_id != self._ring.current
        broken = False
        for found in scan(data, header.salt):
            if isinstance(found, Broken):
                if found.torn and is_last:
                    self.torn = (path, found.offset)
                else:
                    broken = True
                    self._damaged(path, found.offset, found.length, "bytes that are no intact record of a write")
                continue
            if found.sequence > self.last + 1 and not broken:
                self._damaged(path, 0, 0, f"{found.sequence - self.last - 1} writes before this segment are missing")
            broken = False
            change = self._change(path, cipher, found.sequence, found.payload)
            found.payload.release()
            self.last = max(self.last, found.sequence)
            if change is not None and found.sequence > self._after:
                yield Replayed(found.sequence, change)

    def _change(self, path: Path, cipher: FileCipher | None, sequence: int, payload: memoryview) -> Change | None:
        try:
            data = bytes(payload) if cipher is None else cipher.open(sequence, bytes(payload), _context(sequence))
            return decode_change(data)
        except (DamagedDataError, ValueError):
            self._damaged(path, 0, len(payload), f"write {sequence} has its checksum and is still not readable")
            return None

    def _damaged(self, path: Path, offset: int, length: int, what: str) -> None:
        self.damages.append(Damage(path.name, offset, length, what))


def _context(sequence: int) -> bytes:
    return b"record %d" % sequence


class LogWriter:
    """Appends to the log of an index. Used by one thread at a time."""

    def __init__(self, folder: Path, files: Files, ring: KeyRing, incarnation: uuid.UUID, last: int) -> None:
        """``last``: number of the last change that is there."""
        self._folder = folder
        self._files = files
        self._ring = ring
        self._incarnation = incarnation
        self.last = last
        self.bytes = sum(path.stat().st_size for _, path in segments(folder))
        """Bytes since the last snapshot was begun."""
        self._number = max((number for number, _ in segments(folder)), default=0)
        self._descriptor: int | None = None
        self._path = folder
        self._salt = b""
        self._cipher: FileCipher | None = None
        self._length = 0
        self.broken = False
        """Whether nothing can be appended until this process is started again."""

    def append(self, changes: Sequence[Change]) -> None:
        """Append changes, one record each; returns when all are on the disk.

        Raises OSError; then none of them is there, or, where ``broken`` is set, it is not known what is.
        """
        if self._length > MAX_SEGMENT:
            self.close()
        if self._descriptor is None:
            self._begin()
        descriptor, parts = self._descriptor, []
        assert descriptor is not None  # noqa: S101 - _begin made it
        for number, change in enumerate(changes, self.last + 1):
            payload = encode_change(change)
            if self._cipher is not None:
                payload = self._cipher.seal(number, payload, _context(number))
            parts += [record_header(number, payload, self._salt), payload]
        data = b"".join(parts)
        try:
            self._files.write(descriptor, data)
        except OSError:
            self._undo()
            raise
        try:
            self._files.flush(descriptor)
        except OSError:
            # What a failed flush left on the disk is not known, and the next one may say that all is well.
            self.broken = True
            raise
        self._length += len(data)
        self.bytes += len(data)
        self.last += len(changes)

    def _begin(self) -> None:
        self._number += 1
        path = self._folder / f"log-{self._number:010d}.vwl"
        sealed = self._ring.new_file()
        self._salt, self._cipher = (secrets.token_bytes(SALT_BYTES), None) if sealed is None else sealed
        header = SegmentHeader(self._incarnation, self._salt, None if sealed is None else self._ring.current).encode()
        descriptor = self._files.create(path)
        self._descriptor, self._path, self._length = descriptor, path, len(header)
        self.bytes += len(header)
        try:
            self._files.write(descriptor, header)
            self._files.flush(descriptor)
            self._files.flush_folder(self._folder)
        except OSError:
            self._length = 0
            self._undo()
            raise

    def _undo(self) -> None:
        """Take back what a failed write left, and begin a new segment with the next."""
        path, length = self._path, self._length
        self.close()
        try:
            if length:
                self._files.truncate(path, length)
            else:
                self._files.remove(path)
        except OSError:
            self.broken = True
            _log.exception("%s: what a failed write left cannot be taken back", path)

    def begin_anew(self) -> list[Path]:
        """Let the next change begin a new segment, and count bytes from there. Returns the segments that are there."""
        self.bytes = 0
        self.close()
        return [path for _, path in segments(self._folder)]

    def close(self) -> None:
        """Close the segment; the next change begins another. Safe to call twice."""
        if self._descriptor is not None:
            self._files.close(self._descriptor)
            self._descriptor = None
