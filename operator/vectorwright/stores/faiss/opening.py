"""From the files of an index to an index in memory: verify, take what is intact, tell what is not."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from vectorwright.errors import Terminal

from .catalog import CatalogEntry, read_entry, write_entry
from .files import SUFFIX, Files
from .keys import KeyRing
from .log import Damage, LogReader, LogWriter
from .salvage import SnapshotReader
from .settings import lists_of
from .snapshot import Manifest, read_manifest, snapshots, unfinished
from .table import Table

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Opened:
    """An index that was read."""

    entry: CatalogEntry
    table: Table
    log: LogWriter
    snapshot_bytes: int
    """Bytes of the vectors and lines in its snapshot."""
    rewrite: bool
    """Whether a snapshot is due at once: something is damaged, or not encrypted as it should be."""
    damages: list[Damage] = field(default_factory=list)
    damaged_files: dict[Path, list[Damage]] = field(default_factory=dict)
    """The damages by the segment or snapshot that they are in."""


def open_index(folder: Path, files: Files, ring: KeyRing) -> Opened:
    """Read an index. Nothing is changed before all keys were found.

    Raises Terminal (``WrongEncryptionKey``, ``UnreadableIndex``) and OSError.
    """
    entry, both = read_entry(folder)
    if entry is None:
        raise Terminal(f"{folder}: neither copy of its description is intact", reason="UnreadableIndex")
    named = replace(entry.description, name=folder.name.removesuffix(SUFFIX))  # a folder that was renamed
    entry = replace(entry, description=named)
    incarnation = uuid.UUID(entry.description.incarnation)
    reader, unreadable = _newest(folder, ring, incarnation)
    after = reader.manifest.sequence if reader else 0
    log = LogReader(folder, incarnation, ring, after)
    if reader is not None:
        reader.check_keys()
    log.check_keys()

    if not both:
        _log.warning("%s: one copy of its description was not intact and is written again", folder)
        write_entry(folder, entry, files)
    table = _filled(entry, reader, log)
    _repair(folder, log, files)
    damages = [*(reader.damages if reader else []), *log.damages]
    damages += [Damage(path.name, 0, 0, "neither copy of its manifest is intact") for path in unreadable]
    _tell(folder, damages, reader.lost if reader else 0)
    old_snapshot = reader is not None and reader.manifest.key_id != ring.current
    return Opened(
        entry,
        table,
        LogWriter(folder, files, ring, incarnation, log.last),
        sum(one.length for one in reader.manifest.files.values()) if reader else 0,
        bool(damages) or log.old_keys or old_snapshot,
        damages,
        _by_file(folder, damages),
    )


def _newest(folder: Path, ring: KeyRing, incarnation: uuid.UUID) -> tuple[SnapshotReader | None, list[Path]]:
    """The newest snapshot that tells what it holds, and those that do not."""
    unreadable: list[Path] = []
    for path in snapshots(folder):
        manifest = read_manifest(path)
        if manifest is not None and manifest.incarnation == incarnation:
            return SnapshotReader(path, manifest, ring), unreadable
        unreadable.append(path)
    if unreadable:
        raise Terminal(
            f"{unreadable[0]}: neither copy of its manifest is intact, and there is no other snapshot",
            reason="UnreadableIndex",
        )
    return None, []


def _filled(entry: CatalogEntry, reader: SnapshotReader | None, log: LogReader) -> Table:
    description = entry.description
    table = Table(description.dimension or 0, description.metric or "", [one.name for one in description.fields or ()])
    if reader is not None:
        _check_shape(reader.manifest, entry)
        inverted = reader.inverted()
        if inverted is not None and inverted.lists == lists_of(description.settings):
            table.vectors.index = inverted
        for change in reader.changes():
            table.apply(change)
    for replayed in log.replay():
        table.apply(replayed.change)
    return table


def _check_shape(manifest: Manifest, entry: CatalogEntry) -> None:
    if (manifest.dimension, manifest.metric) != (entry.description.dimension, entry.description.metric):
        raise Terminal("its snapshot has another dimension or metric than its description", reason="UnreadableIndex")


def _repair(folder: Path, log: LogReader, files: Files) -> None:
    """Take away what a crash left and nobody was told of."""
    if log.torn is not None:
        path, length = log.torn
        _log.info("%s: a write that a crash cut off, and that was never acknowledged, is taken back", path)
        if length:
            files.truncate(path, length)
        else:
            files.remove(path)
    for path in unfinished(folder):
        files.remove(path)
    for path in folder.glob("*.tmp"):
        files.remove(path)


def _tell(folder: Path, damages: Iterable[Damage], lost: int) -> None:
    for one in damages:
        _log.error(
            "%s is damaged at byte %d (%d bytes): %s; what is intact was read, the file will be kept in its quarantine",
            folder / one.file,
            one.offset,
            one.length,
            one.what,
        )
    if lost:
        _log.error("%s: %d records of its snapshot cannot be read any more", folder, lost)


def _by_file(folder: Path, damages: Iterable[Damage]) -> dict[Path, list[Damage]]:
    found: dict[Path, list[Damage]] = {}
    for one in damages:
        found.setdefault(folder / one.file.partition("/")[0], []).append(one)
    return found
