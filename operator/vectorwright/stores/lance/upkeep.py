"""What a table needs beside writes: fewer, larger files; no old versions; its vector index."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..base import Setting
from .index_state import index_name, of_settings
from .reading import DISTANCES
from .settings import INDEX_TYPE, IVF_PQ, MIN_INDEXED_ROWS, NUM_PARTITIONS, sub_vectors

MIN_COMMITS = 64
"""Commits before files are merged: up to here they slow a commit by less than a third."""
MAX_COMMITS = 512
"""Commits after which they are merged in any case. At 400 files a commit of 100 rows takes twice its time."""
_FOREVER = timedelta(days=36_500)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Versions:
    """Which old versions somebody still reads: Lance would remove their files under a reader."""

    current_since: float = 0.0
    """Unix time before the newest version was committed; 0 where an earlier process did."""
    _read: dict[int, float] = field(default_factory=dict)
    _next: int = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While this lasts, the version that is now the newest is kept."""
        self._next += 1
        lease = self._next
        self._read[lease] = self.current_since
        try:
            yield
        finally:
            del self._read[lease]

    def removable_age(self) -> timedelta | None:
        """Versions older than this are read by nobody; None while the oldest that is read is of unknown age."""
        oldest = min([self.current_since, *self._read.values()])
        return timedelta(seconds=time.time() - oldest + 1.0) if oldest else None


@dataclass(slots=True)
class Backlog:
    """What was committed since files were last merged."""

    commits: int = 0
    rows: int = 0

    def note(self, rows: int) -> None:
        """One more commit, which wrote or removed as many rows."""
        self.commits += 1
        self.rows += rows

    def is_due(self, total: int, after: int | None = None) -> bool:
        """Whether files should be merged now, at the earliest ``after`` that many commits.

        A merge may write the whole table anew (Lance merges files up to a million rows), so it waits until half of the
        table is new: then every row is rewritten about twice in its life, whatever the size of the table.
        """
        return self.commits >= MAX_COMMITS or (
            self.commits >= (MIN_COMMITS if after is None else after) and self.rows * 2 >= total
        )


async def backlog_of(handle: Any) -> Backlog:
    """What an earlier process left: about as many commits as there are small files, all but the largest new."""
    files = (await handle.stats())["fragment_stats"]
    rows = await handle.count_rows()
    return Backlog(files["num_small_fragments"], max(0, rows - files["lengths"]["max"]))


async def compact(handle: Any, versions: Versions, name: str) -> None:
    """Merge small files, bring indexes up to date, and then remove the old versions that nobody reads."""
    began, committed = time.monotonic(), time.time()
    await handle.optimize(cleanup_older_than=_FOREVER)
    versions.current_since = committed
    # Only now: a reader that began while files were merged may still read the version from before.
    age = versions.removable_age()
    if age is not None:
        await handle.optimize(cleanup_older_than=age)
    _log.debug("index %s: files merged in %.2f s", name, time.monotonic() - began)


async def vector_indexes(handle: Any) -> list[str]:
    """The names of the vector indexes that a table has."""
    return [one.name for one in await handle.list_indices() if one.columns == ["vector"]]


def index_due(settings: Mapping[str, Setting], present: Sequence[str], rows: int) -> bool:
    """Whether a vector index is to be built or dropped."""
    kept, build = index_changes(settings, present, rows)
    return build is not None or len(kept) < len(present)


def index_changes(settings: Mapping[str, Setting], present: Sequence[str], rows: int) -> tuple[list[str], str | None]:
    """The indexes to keep, at most one, and the one to build. A table that shrank keeps the index that it has."""
    wanted = index_name(settings, rows)
    if wanted is None:
        return [], None
    best = of_settings(settings, present)[:1]
    if rows < MIN_INDEXED_ROWS or (best and of_settings(settings, [*best, wanted])[0] in best):
        return best, None
    return [], wanted


async def build_index(
    handle: Any, settings: Mapping[str, Setting], present: Sequence[str], *, metric: str, dimension: int, rows: int
) -> None:
    """Make the vector indexes of a table what its settings ask for: the new one first, then the others go."""
    from lancedb.index import HnswSq, IvfPq  # noqa: PLC0415 - the library takes 140 MB: loaded where it is used

    kept, wanted = index_changes(settings, present, rows)
    if wanted is not None:
        common: dict[str, Any] = {"distance_type": DISTANCES[metric], "num_partitions": settings.get(NUM_PARTITIONS)}
        config = (
            IvfPq(**common, num_sub_vectors=sub_vectors(dimension))
            if settings[INDEX_TYPE] == IVF_PQ
            else HnswSq(**common)
        )
        began = time.monotonic()
        await handle.create_index("vector", config=config, name=wanted, replace=True)
        _log.info("vector index %s of %d rows built in %.1f s", wanted, rows, time.monotonic() - began)
    for name in present:
        if name not in kept and name != wanted:
            await handle.drop_index(name)
