"""What an index needs beside its writes: snapshots, so that its log stays short, and its inverted file."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vectorwright.errors import Retryable

from ..base import IndexDescription, Setting, Vectors
from .committer import Committer
from .files import Files
from .keys import KeyRing
from .log import LogWriter
from .opening import Opened
from .pools import UPKEEP, WRITES
from .quarantine import damages_set_aside, set_aside
from .rwlock import ReadWriteLock
from .settings import POINTS_A_LIST, lists_of
from .snapshot import Manifest, snapshots, write_snapshot
from .table import Cut, Table
from .vectors import Inverted

MIN_LOG = 64 * 2**20
"""Bytes of the log below which no snapshot is written: reading them back takes about a second."""
_SLICE = 2048
_RELEARN = 4
"""Times as many vectors as centroids were learned from: then they are learned anew."""
_log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The index is closed while a snapshot or training goes on: it is given up."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A snapshot that was begun: its records, and the segments that it makes superfluous."""

    cut: Cut
    manifest: Manifest
    segments: list[Path]


class Upkeep:
    """Does one thing at a time for one index, when it is due."""

    def __init__(
        self,
        folder: Path,
        opened: Opened,
        files: Files,
        ring: KeyRing,
        *,
        lock: ReadWriteLock,
        committer: Committer,
        describe: Callable[[], IndexDescription],
        min_log: int,
    ) -> None:
        """``describe`` tells the index as it is now; ``min_log`` is the least log that a snapshot is written for."""
        self._folder = folder
        self._files = files
        self._ring = ring
        self._table: Table = opened.table
        self._log: LogWriter = opened.log
        self._lock = lock
        self._committer = committer
        self._describe = describe
        self._min_log = min_log
        self._snapshot_bytes = opened.snapshot_bytes
        self._rewrite = opened.rewrite
        self._damages = len(opened.damages)
        self._damaged_files = opened.damaged_files
        self._set_aside = damages_set_aside(folder)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._failed = False

    @property
    def damages(self) -> int:
        """Damaged parts that were found in the files of this index, and set aside since it was made."""
        return self._damages + self._set_aside

    def details(self) -> dict[str, Setting]:
        """What statistics tell of it."""
        lists, serving = lists_of(self._describe().settings), self._table.vectors.index.lists
        state = "exact" if serving is None else f"ivf of {serving} lists"
        if lists is not None and serving != lists:
            state += f", ivf of {lists} lists from {lists * POINTS_A_LIST} vectors on"
        if self._failed:
            state += ", upkeep failed: see the log"
        current = self._ring.current
        return {
            "index_state": state,
            "log_bytes": self._log.bytes,
            "damaged_parts": self.damages,
            "encryption": f"AES-256-GCM, key {current.hex()}" if current else "none",
        }

    def nudge(self) -> None:
        """Begin what is due, unless something goes on."""
        if (self._task is None or self._task.done()) and not (self._stopping or self._failed) and self._is_due():
            self._task = asyncio.create_task(self._work(), name=f"upkeep of {self._folder.name}")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed = True
            _log.critical(
                "%s: its upkeep ended in an error that nobody foresaw; its log keeps everything, and grows until the "
                "store server is started again",
                self._folder,
                exc_info=error,
            )

    async def settled(self) -> None:
        """Return when nothing is due any more."""
        while self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Give up what goes on. Safe to call twice."""
        self._stopping = True
        await self.settled()

    def resume(self) -> None:
        """Go on after :meth:`close`: the index stays after all."""
        self._stopping = False
        self.nudge()

    def _is_due(self) -> bool:
        return self._snapshot_due() or self._lists_due() is not None

    def _snapshot_due(self) -> bool:
        return self._rewrite or self._log.bytes > max(self._min_log, self._snapshot_bytes)

    def _lists_due(self) -> int | None:
        """Lists of the inverted file that is to be built now."""
        lists, count = lists_of(self._describe().settings), len(self._table)
        if lists is None or count < lists * POINTS_A_LIST:
            return None
        index = self._table.vectors.index
        if isinstance(index, Inverted) and index.lists == lists and count < _RELEARN * index.trained_on:
            return None
        return lists

    async def _work(self) -> None:
        while not self._stopping and self._is_due():
            lists = self._lists_due()
            try:
                if lists is not None:
                    await UPKEEP.run(self._build, lists)
                else:
                    await self._snapshot()
            except _StoppedError:
                return

    # --- snapshots ---------------------------------------------------------------------------------------------------

    async def _snapshot(self) -> None:
        began = time.monotonic()
        self._rewrite = False  # what fails is tried again after more writes
        try:
            begun = await self._committer.run(partial(WRITES.run, self._begin))
        except Retryable:
            return  # the index is closed
        try:
            await UPKEEP.run(self._write, begun)
        except OSError:
            _log.exception("%s: its snapshot cannot be written; the log keeps everything meanwhile", self._folder)
            return
        finally:
            await WRITES.run(self._end)
        _log.debug("%s: snapshot written in %.2f s", self._folder, time.monotonic() - began)

    def _begin(self) -> _Begun:
        segments = self._log.begin_anew()
        with self._lock.writing():
            cut = self._table.begin_cut()
        shape, index = self._describe(), self._table.vectors.index
        manifest = Manifest(
            incarnation=uuid.UUID(shape.incarnation),
            sequence=self._log.last,
            records=len(cut.slots),
            dimension=self._table.vectors.dimension,
            metric=self._table.vectors.metric,
            key_id=self._ring.current,
            trained_on=index.trained_on if isinstance(index, Inverted) else 0,
        )
        return _Begun(cut, manifest, segments)

    def _write(self, begun: _Begun) -> None:
        index = self._table.vectors.index
        inverted = index if isinstance(index, Inverted) else None
        written = write_snapshot(
            self._folder, begun.manifest, self._slices(begun.cut), inverted, self._files, self._ring
        )
        self._snapshot_bytes = sum(entry.length for entry in begun.manifest.files.values())
        if self._damaged_files:
            set_aside(self._folder, self._damaged_files, self._files)
            self._set_aside += self._damages
            self._damages, self._damaged_files = 0, {}
        for path in (*begun.segments, *(path for path in snapshots(self._folder) if path != written)):
            self._files.remove(path)

    def _slices(self, cut: Cut) -> Iterator[tuple[list[bytes], Vectors]]:
        while cut.done < len(cut.slots):
            if self._stopping:
                raise _StoppedError
            with self._lock.reading():
                part = self._table.next_slice(cut, _SLICE)
            yield part

    def _end(self) -> None:
        with self._lock.writing():
            self._table.end_cut()

    # --- the inverted file -------------------------------------------------------------------------------------------

    def _build(self, lists: int) -> None:
        """Learn and fill an inverted file while the index serves, then put it in its place."""
        began = time.monotonic()
        with self._lock.reading():
            slots = self._table.live_slots()
            sample = self._table.vectors.sample(slots, lists)
        if len(slots) < lists * POINTS_A_LIST:
            return  # it shrank meanwhile
        inverted = Inverted.train(sample, lists, self._table.vectors.metric, len(slots))
        del sample
        built: Inverted | None = None
        with self._lock.writing():
            slots = self._table.begin_building()
        try:
            for start in range(0, len(slots), _SLICE):
                if self._stopping:
                    raise _StoppedError
                with self._lock.reading():
                    self._table.copy_slice(inverted, slots[start : start + _SLICE])
            built = inverted
        finally:
            with self._lock.writing():
                self._table.finish_building(built)
        _log.info("%s: ivf of %d lists built in %.1f s", self._folder, lists, time.monotonic() - began)
