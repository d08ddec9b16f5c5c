"""The end of a copy in mode Sync: records that are gone from the source are deleted from the target.

Only records that this copy can have brought are looked at: those whose ``vw_source`` the source's records have, too.
Records without one are this copy's only in an index that its resource made and nobody else writes to. Whether the
source still has a record is asked of the source itself, so no list of ids is kept in memory.
"""

from __future__ import annotations

import tempfile
from typing import IO

import orjson

from vectorwright.errors import Terminal
from vectorwright.ingest.context import IDS_A_REQUEST
from vectorwright.ingest.finalize import DEFAULT_MAX_DELETE_PERCENT
from vectorwright.stores.base import Record

from .copier import CopyContext
from .ids import other_origins

_IN_MEMORY = 4 * 2**20
"""Bytes of ids to delete that stay in memory; more go to a temporary file."""


async def delete_gone(context: CopyContext) -> None:
    """Delete what is gone, after a whole pass. Raises Terminal (``TooManyDeletes``) before anything is deleted."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as gone:
        ours, count = 0, 0
        async for page in context.target.scroll(page=IDS_A_REQUEST):
            mine = [record for record in page if _brought(context, record)]
            ours += len(mine)
            for record_id in await _absent(context, mine):
                gone.write(orjson.dumps(record_id) + b"\n")
                count += 1
        if not count:
            return
        _check(context, count, ours)
        gone.seek(0)
        await _delete(context, gone)


def _brought(context: CopyContext, record: Record) -> bool:
    return any(context.is_ours(record.metadata, source) for source in context.sources)


async def _absent(context: CopyContext, records: list[Record]) -> list[str]:
    """The ids of records that the source has under none of the ids that they may have there."""
    ids = [record.id for record in records]
    there = await context.origin.present(ids) if ids else set()
    renamed = {record.id: other_origins(record) for record in records if record.id not in there}
    asked = [name for names in renamed.values() for name in names]
    there = await context.origin.present(asked) if asked else set()
    return [record_id for record_id, names in renamed.items() if there.isdisjoint(names)]


def _check(context: CopyContext, count: int, ours: int) -> None:
    most = context.spec.sync.max_delete_percent
    most = DEFAULT_MAX_DELETE_PERCENT if most is None else most
    if count * 100 > ours * most:
        raise Terminal(
            f"{count:,} of the {ours:,} records that this copy brought are gone from the source index, which is "
            f"{100 * count / ours:.1f} % and more than sync.maxDeletePercent ({most} %): nothing was deleted. If they "
            "are meant to go, raise it for one run",
            reason="TooManyDeletes",
        )


async def _delete(context: CopyContext, gone: IO[bytes]) -> None:
    counts, part = context.progress.counts, []
    for line in gone:
        part.append(orjson.loads(line))
        if len(part) == IDS_A_REQUEST:
            await _delete_part(context, part)
            part = []
    if part:
        await _delete_part(context, part)
    counts.documents_deleted = counts.vectors_deleted


async def _delete_part(context: CopyContext, ids: list[str]) -> None:
    await context.target.delete(ids)
    context.progress.counts.vectors_deleted += len(ids)
    context.added -= len(ids)
