"""Reading snapshots back, verified; and of a damaged one whatever is intact."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..base import Vectors
from .files import digest
from .keys import TAG_BYTES, DamagedDataError, FileCipher, KeyRing
from .log import Damage
from .records import Upsert, decode_line
from .snapshot import INVERTED, PIECE, RECORDS, VECTORS, FileEntry, Manifest, piece_context
from .vectors import Inverted, flat_header

_DIGEST = 16
_SLICE = 8192
_NUMBER = re.compile(rb'\{"n":(\d+),')


@dataclass(slots=True)
class Content:
    """A file of a snapshot as it was written, but for the ranges that are ``bad`` (offset, length; sorted)."""

    data: mmap.mmap | bytearray | bytes
    bad: list[tuple[int, int]] = field(default_factory=list)

    def is_intact(self, start: int, end: int) -> bool:
        """Whether a range is as it was written."""
        return not any(start < offset + length and offset < end for offset, length in self.bad)


@dataclass(slots=True)
class SnapshotReader:
    """Reads one snapshot. ``damages`` and ``lost`` are complete when :meth:`changes` has ended."""

    folder: Path
    manifest: Manifest
    ring: KeyRing
    damages: list[Damage] = field(default_factory=list)
    lost: int = 0
    """Records that cannot be read any more."""

    def check_keys(self) -> None:
        """Raise Terminal (``WrongEncryptionKey``) where the key of the snapshot is not here."""
        if self.manifest.key_id is not None:
            self.ring.cipher(self.manifest.key_id, b"", str(self.folder))

    def changes(self) -> Iterator[Upsert]:
        """All records that are intact."""
        manifest = self.manifest
        lines, vectors = self._content(RECORDS), self._content(VECTORS)
        rows = list(self._rows(lines))
        before, row_bytes = len(flat_header(manifest.dimension, manifest.metric, 0)), 4 * manifest.dimension
        whole = np.frombuffer(vectors.data, "<f4", manifest.records * manifest.dimension, before)
        matrix = whole.reshape(manifest.records, manifest.dimension)
        if vectors.bad:
            rows = [
                (number, line)
                for number, line in rows
                if vectors.is_intact(before + number * row_bytes, before + (number + 1) * row_bytes)
            ]
        self.lost = manifest.records - len(rows)
        for start in range(0, len(rows), _SLICE):
            part = rows[start : start + _SLICE]
            yield _upsert(part, matrix)

    def inverted(self) -> Inverted | None:
        """The trained inverted file, where there is one and it is intact; it can be learned anew otherwise."""
        if INVERTED not in self.manifest.files:
            return None
        content = self._content(INVERTED)
        if content.bad:
            return None
        try:
            return Inverted.decode(bytes(content.data), self.manifest.trained_on)
        except ValueError:
            self.damages.append(Damage(f"{self.folder.name}/{INVERTED}", 0, len(content.data), "not a FAISS index"))
            return None

    def _rows(self, content: Content) -> Iterator[tuple[int, bytes]]:
        """Numbers and lines, of lines that are intact. Lines of a damaged file are known by the number in them."""
        at = 0
        for line in bytes(content.data).split(b"\n"):
            end = at + len(line) + 1
            numbered = _NUMBER.match(line)
            if numbered is not None and (not content.bad or content.is_intact(at, end)):
                yield int(numbered[1]), b"{" + line[numbered.end() :]
            at = end

    def _content(self, name: str) -> Content:
        entry, path = self.manifest.files[name], self.folder / name
        manifest = self.manifest
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            self.damages.append(Damage(f"{self.folder.name}/{name}", 0, entry.length, "the file is missing"))
            return Content(bytes(entry.length), [(0, entry.length)])
        cipher = None
        if entry.salt is not None and manifest.key_id is not None:
            cipher = self.ring.cipher(manifest.key_id, entry.salt, str(path))
        with path.open("rb") as file:
            if cipher is None and size >= entry.length > 0:
                # Not read into memory: its pages are the system's to take back.
                content = Content(mmap.mmap(file.fileno(), entry.length, access=mmap.ACCESS_READ))
                content.bad = list(_bad_pieces(memoryview(content.data), entry))
            else:
                context = piece_context(manifest.incarnation, manifest.sequence, name)
                content = _read_pieces(file.read(), entry, cipher, context)
        for offset, length in content.bad:
            self.damages.append(Damage(f"{self.folder.name}/{name}", offset, length, "not what its checksum tells"))
        return content


def _upsert(part: list[tuple[int, bytes]], matrix: Vectors) -> Upsert:
    lines = [line for _, line in part]
    decoded = [decode_line(line) for line in lines]
    numbers = [number for number, _ in part]
    vectors = np.ascontiguousarray(matrix[numbers], np.float32)
    return Upsert([one[0] for one in decoded], lines, [one[1] for one in decoded], vectors)


def _bad_pieces(data: memoryview, entry: FileEntry) -> Iterator[tuple[int, int]]:
    """The ranges of a file without encryption that are not what was written. Ranges that touch are told apart."""
    with data:
        for number, start in enumerate(range(0, entry.length, PIECE)):
            with data[start : min(start + PIECE, entry.length)] as piece:
                if digest(piece) != entry.digests[number * _DIGEST : (number + 1) * _DIGEST]:
                    yield start, len(piece)


def _read_pieces(stored: bytes, entry: FileEntry, cipher: FileCipher | None, context: bytes) -> Content:
    """A file's content from its pieces; what is not there, or not intact, is zeros."""
    content = bytearray(entry.length)
    bad: list[tuple[int, int]] = []
    step = PIECE + (TAG_BYTES if cipher else 0)
    for number, start in enumerate(range(0, entry.length, PIECE)):
        length = min(PIECE, entry.length - start)
        piece = stored[number * step : number * step + length + (step - PIECE)]
        if digest(piece) != entry.digests[number * _DIGEST : (number + 1) * _DIGEST]:
            bad.append((start, length))
            continue
        try:
            content[start : start + length] = piece if cipher is None else cipher.open(number, piece, context)
        except DamagedDataError:
            bad.append((start, length))
    return Content(content, bad)
