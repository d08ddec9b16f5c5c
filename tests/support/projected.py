"""The files of a projected volume, replaced as a kubelet does it (AtomicWriter of k8s.io/kubernetes/pkg/volume/util).

A new directory is written in full; the link ``..data`` is replaced by a rename; the old directory is removed. At the
top are links into ``..data``.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path


class ProjectedVolume:
    """A directory, and files in folders of it. Files of its own beside them stay as they are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)

    def write(self, files: Mapping[str, str]) -> None:
        """Replace all files at once. Names hold a folder, such as ``credentials/store/token``."""
        fresh = self.directory / f"..{next(self._numbers)}"
        for name, content in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        link, temporary = self.directory / "..data", self.directory / "..data_tmp"
        before = link.resolve() if link.is_symlink() else None
        temporary.symlink_to(fresh.name)
        temporary.rename(link)
        for top in {name.partition("/")[0] for name in files}:
            seen = self.directory / top
            if not seen.is_symlink():
                seen.symlink_to(f"..data/{top}")
        if before is not None:
            shutil.rmtree(before)
