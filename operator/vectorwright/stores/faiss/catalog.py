"""What an index is, apart from its records: one small file, twice, replaced in one step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..base import IndexDescription
from ..wire import WireError
from ..wire_indexes import decode_description, encode_description
from .files import Files, read_sealed_json, sealed_json

_NAMES = ("index.json", "index.copy.json")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """The description of an index, without its count; ``revision`` grows with every change of it."""

    description: IndexDescription
    revision: int = 1

    def changed(self, description: IndexDescription) -> CatalogEntry:
        """The entry that comes after this one."""
        return CatalogEntry(replace(description, count=None), self.revision + 1)


def write_entry(folder: Path, entry: CatalogEntry, files: Files) -> None:
    """Make an entry durable, both copies one after the other. Raises OSError."""
    body = {"format": FORMAT, "revision": entry.revision, "index": encode_description(entry.description)}
    for name in _NAMES:
        files.replace_whole(folder / name, sealed_json(body))


def read_entry(folder: Path) -> tuple[CatalogEntry | None, bool]:
    """The newest copy that is intact, and whether both are intact and agree."""
    found = []
    for name in _NAMES:
        body = read_sealed_json(folder / name)
        if body is None or body.get("format") != FORMAT:
            continue
        revision, described = body.get("revision"), body.get("index")
        if not isinstance(revision, int) or not isinstance(described, dict):
            continue
        try:
            found.append(CatalogEntry(decode_description(described), revision))
        except WireError:
            continue
    if not found:
        return None, False
    newest = max(found, key=lambda entry: entry.revision)
    return newest, len(found) == len(_NAMES) and found[0] == found[1]
