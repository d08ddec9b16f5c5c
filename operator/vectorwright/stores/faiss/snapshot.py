"""Snapshots: all records of an index at one moment, in files that other programs can read too.

A snapshot is a folder with ``records.jsonl`` (a line a record: number, id, metadata, text), ``vectors.faiss`` (a flat
FAISS index of the vectors as they were written, in the same order), ``ivf.faiss`` (the trained inverted file, empty,
where there is one) and a manifest, twice, with the checksum of every 64 KiB of the others. With encryption each of
these pieces is encrypted by itself, and the manifest tells the key's id.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base import Vectors
from .files import Files, digest, read_sealed_json, sealed_json
from .keys import FileCipher, KeyRing
from .vectors import Inverted, flat_header

RECORDS, VECTORS, INVERTED = "records.jsonl", "vectors.faiss", "ivf.faiss"
MANIFESTS = ("manifest.json", "manifest.copy.json")
PIECE = 64 * 2**10
FORMAT = 1
_NAME = re.compile(r"snapshot-(\d{10})")
_UNFINISHED = ".unfinished"
_BUFFER = 2**20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest tells of a file."""

    length: int
    """Bytes before encryption."""
    digests: bytes
    """16 bytes for each piece, as it is on the disk."""
    salt: bytes | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds."""

    incarnation: uuid.UUID
    sequence: int
    """Number of the last change that is in it."""
    records: int
    dimension: int
    metric: str
    key_id: bytes | None
    trained_on: int = 0
    files: dict[str, FileEntry] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The manifest as a file."""
        return sealed_json(
            {
                "format": FORMAT,
                "incarnation": str(self.incarnation),
                "sequence": self.sequence,
                "records": self.records,
                "dimension": self.dimension,
                "metric": self.metric,
                "key": self.key_id.hex() if self.key_id else None,
                "trained_on": self.trained_on,
                "files": {
                    name: {
                        "bytes": entry.length,
                        "blake2b": entry.digests.hex(),
                        "salt": entry.salt.hex() if entry.salt else None,
                    }
                    for name, entry in self.files.items()
                },
            }
        )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a snapshot, from whichever copy is intact; None where neither is."""
    for name in MANIFESTS:
        found: dict[str, Any] | None = read_sealed_json(folder / name)
        if found is None or found.get("format") != FORMAT:
            continue
        return Manifest(
            incarnation=uuid.UUID(found["incarnation"]),
            sequence=found["sequence"],
            records=found["records"],
            dimension=found["dimension"],
            metric=found["metric"],
            key_id=bytes.fromhex(found["key"]) if found["key"] else None,
            trained_on=found["trained_on"],
            files={
                file: FileEntry(
                    entry["bytes"],
                    bytes.fromhex(entry["blake2b"]),
                    bytes.fromhex(entry["salt"]) if entry["salt"] else None,
                )
                for file, entry in found["files"].items()
            },
        )
    return None


def snapshots(folder: Path) -> list[Path]:
    """The complete snapshots of an index, newest first."""
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def unfinished(folder: Path) -> list[Path]:
    """What a crash left of snapshots that were being written."""
    return list(folder.glob(f"snapshot-*{_UNFINISHED}"))


def piece_context(incarnation: uuid.UUID, sequence: int, name: str) -> bytes:
    """What a piece belongs to: one from elsewhere cannot be opened."""
    return f"{incarnation}/{sequence}/{name}".encode()


class PieceWriter:
    """Writes one file of a snapshot, piece by piece."""

    def __init__(self, path: Path, files: Files, sealed: tuple[bytes, FileCipher] | None, context: bytes) -> None:
        self._files = files
        self._salt = None if sealed is None else sealed[0]
        self._cipher = None if sealed is None else sealed[1]
        self._context = context
        self._pending = bytearray()
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._digests: list[bytes] = []
        self._length = 0
        self._descriptor: int | None = files.create(path)

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        self._pending += data
        self._length += len(data)
        whole = len(self._pending) - len(self._pending) % PIECE
        if whole:
            for start in range(0, whole, PIECE):
                self._piece(bytes(self._pending[start : start + PIECE]))
            del self._pending[:whole]

    def _piece(self, data: bytes) -> None:
        if self._cipher is not None:
            data = self._cipher.seal(len(self._digests), data, self._context)
        self._digests.append(digest(data))
        self._ready.append(data)
        self._ready_bytes += len(data)
        if self._ready_bytes >= _BUFFER:
            self._send()

    def _send(self) -> None:
        if self._descriptor is not None and self._ready:
            self._files.write(self._descriptor, b"".join(self._ready))
        self._ready, self._ready_bytes = [], 0

    def finish(self) -> FileEntry:
        """Flush the file to the disk."""
        if self._pending:
            self._piece(bytes(self._pending))
            self._pending.clear()
        self._send()
        if self._descriptor is not None:
            self._files.flush(self._descriptor)
        self.close()
        return FileEntry(self._length, b"".join(self._digests), self._salt)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._descriptor is not None:
            self._files.close(self._descriptor)
            self._descriptor = None


def write_snapshot(
    folder: Path,
    manifest: Manifest,
    slices: Iterable[tuple[list[bytes], Vectors]],
    inverted: Inverted | None,
    files: Files,
    ring: KeyRing,
) -> Path:
    """Write a snapshot into an index's folder, in one step: it is durable when this returns, or not there.

    ``manifest`` lacks its files; ``slices`` gives lines and vectors, ``manifest.records`` of each. Raises OSError.
    """
    number = max((int(path.name.removeprefix("snapshot-")) for path in snapshots(folder)), default=0) + 1
    final = folder / f"snapshot-{number:010d}"
    making = final.with_name(f"{final.name}.{uuid.uuid4().hex}{_UNFINISHED}")
    files.make_folder(making)
    try:
        entries = _write_files(making, manifest, slices, inverted, files, ring)
        manifest.files.update(entries)
        for name in MANIFESTS:
            files.write_whole(making / name, manifest.encode())
        files.flush_folder(making)
        files.rename(making, final)
    except BaseException:
        files.remove(making)
        raise
    files.flush_folder(folder)
    return final


def _write_files(
    making: Path,
    manifest: Manifest,
    slices: Iterable[tuple[list[bytes], Vectors]],
    inverted: Inverted | None,
    files: Files,
    ring: KeyRing,
) -> dict[str, FileEntry]:
    writers: dict[str, PieceWriter] = {}

    def writer(name: str) -> PieceWriter:
        context = piece_context(manifest.incarnation, manifest.sequence, name)
        writers[name] = PieceWriter(making / name, files, ring.new_file(), context)
        return writers[name]

    try:
        lines, vectors = writer(RECORDS), writer(VECTORS)
        vectors.write(flat_header(manifest.dimension, manifest.metric, manifest.records))
        number = 0
        for part, matrix in slices:
            numbered = [b'{"n":%d,%b\n' % (at, line[1:]) for at, line in enumerate(part, number)]
            number += len(part)
            lines.write(b"".join(numbered))
            vectors.write(matrix.astype("<f4", copy=False).data.cast("B") if len(part) else b"")
        if inverted is not None:
            writer(INVERTED).write(inverted.encode())
        return {name: one.finish() for name, one in writers.items()}
    finally:
        for one in writers.values():
            one.close()
