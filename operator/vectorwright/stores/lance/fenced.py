"""The contents of a table in a bucket, changed by whoever has its lease.

Every commit of ours must be the one right after the version that we began from: another number means that a writer who
lost its lease has committed in between, and that its work may be below ours. Such a commit is left behind, and the
table is taken back to the version that its head names.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa

from ..base import IndexDescription
from .contents import Contents
from .heads import Head
from .ids import KnownIds
from .schema import field_types
from .settings import (
    KEEP_VERSIONS_SECONDS,
    VERSIONS_KEEP,
)
from .upkeep import Backlog

_ROUNDS = 10
_log = logging.getLogger(__name__)


class Interfered(Exception):  # noqa: N818 - a signal inside the commit of one change
    """Somebody who has not the lease committed to the table."""


class FencedContents(Contents):
    """The contents of the table in one folder, as lancedb's ``handle`` has them. ``at`` is the version reached."""

    def __init__(self, handle: Any, description: IndexDescription, location: str) -> None:
        super().__init__(handle, description)
        self.location = location
        self.at = -1
        self._streak = 0

    def committed(self, result: Any) -> None:
        """Raises Interfered where the commit was not the next one."""
        if result.version != self.at + 1:
            raise Interfered
        self.at = result.version

    def spoilt(self) -> None:
        """A change broke off: nothing is known of the table."""
        self.at = -1
        self._streak = 0
        self.forget_ids()

    async def align(self, head: Head) -> None:
        """Make the version that the head names the newest of the table, whatever was left on top of it."""
        if self.at == head.version:
            self._streak += 1
            return
        self.spoilt()
        await self.handle.checkout_latest()
        found = int(await self.handle.version())
        for _ in range(_ROUNDS):
            if found == head.version:
                break
            _log.info("index %s: version %d was never made, going on from %d", self.name, found, head.version)
            await self.handle.checkout(head.version)
            await self.handle.restore()
            restored = int(await self.handle.version())
            if restored == found + 1:  # ours, and nobody's on top of it
                found = restored
                break
            await self.handle.checkout_latest()
            found = int(await self.handle.version())
        else:
            raise Interfered
        self.at = found
        self.description = head.description
        self.types = field_types(head.description)
        self.schema = await self.handle.schema()
        self.count = head.description.count or 0
        self.mixed = head.mixed
        self.indexes = list(head.indexes)
        self.backlog = Backlog(head.commits, head.rows)

    async def known_ids(self) -> KnownIds | None:
        """The ids that the table may hold; None while other writers commit in between, whose ids would be missing.

        They are read (the whole column) at the second commit in a row: one commit alone finds out by its merge.
        """
        if self._known is None and self.count == 0:
            self._known = KnownIds()
        if self._known is None and self._streak == 0:
            return None
        return await super().known_ids()

    def head_of(self, head: Head) -> Head:
        """The head that makes what was committed the table."""
        return replace(
            head,
            version=self.at,
            description=replace(self.description, count=self.count, count_exact=True),
            mixed=self.mixed,
            indexes=tuple(self.indexes),
            commits=self.backlog.commits,
            rows=self.backlog.rows,
        )

    async def reindex(self) -> None:
        """Make the vector index what the settings ask for."""
        await self.build_index()
        await self._unchanged()

    async def compact(self) -> None:
        """Merge small files, bring indexes up to date, and remove the versions that are too old to be read."""
        kept = self.description.settings.get(VERSIONS_KEEP, KEEP_VERSIONS_SECONDS)
        await self.handle.optimize(cleanup_older_than=_age(float(kept)))
        await self._unchanged()
        self.backlog = Backlog()

    async def _unchanged(self) -> None:
        """After commits that change no record and tell no version: the records are as many as before, or not ours."""
        at = int(await self.handle.version())
        if at < self.at or await self.handle.count_rows() != self.count:
            raise Interfered
        self.at = at

    def fits(self, rows: pa.Table) -> bool:
        """Whether rows that were encoded for this index as it was can be written to it as it is now."""
        same = rows.schema.field("vector").type == self.schema.field("vector").type
        return bool(same and set(rows.schema.names) <= set(self.schema.names))


def _age(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
