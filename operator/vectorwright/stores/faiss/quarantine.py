"""Damaged files are kept: moved aside, with what is wrong with them, once what was intact in them is safe elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from .files import Files, read_sealed_json, sealed_json
from .log import Damage

FOLDER = "quarantine"


def set_aside(folder: Path, damaged: Mapping[Path, Iterable[Damage]], files: Files) -> None:
    """Move files or folders of an index aside, each with a report beside it. Raises OSError."""
    place = folder / FOLDER
    files.make_folder(place)
    for path, damages in damaged.items():
        target = place / f"{path.name}-{time.time_ns()}"
        report = {
            "file": path.name,
            "damages": [
                {"file": one.file, "offset": one.offset, "length": one.length, "what": one.what} for one in damages
            ],
        }
        files.write_whole(target.with_name(f"{target.name}.json"), sealed_json(report))
        if path.exists():
            files.rename(path, target)
    files.flush_folder(place)
    files.flush_folder(folder)


def damages_set_aside(folder: Path) -> int:
    """How many damages were found in what is set aside."""
    total = 0
    for path in (folder / FOLDER).glob("*.json"):
        report = read_sealed_json(path)
        damages = report.get("damages") if report else None
        total += len(damages) if isinstance(damages, list) else 1
    return total
