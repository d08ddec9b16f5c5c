"""The end of a run: delete what vanished from the source, within the guard rails."""

from __future__ import annotations

import logging

from vectorwright.api.v1alpha1.ingestionjob import SyncMode
from vectorwright.errors import Terminal

from .context import IDS_A_REQUEST, RunContext
from .replacing import delete_rows

logger = logging.getLogger(__name__)

DEFAULT_MAX_DELETE_PERCENT = 20


async def delete_late(context: RunContext) -> None:
    """Delete records of old versions that came with ids, unless a record of this run has the id now."""
    await delete_rows(context, _unclaimed(context, context.late))


def _unclaimed(context: RunContext, rows: list[int]) -> list[int]:
    """Rows without those whose id a record of this run has now: a record that moved to another document."""
    ids = context.ledger.record_ids(rows)
    return [row for row, record_id in zip(rows, ids, strict=True) if not context.claims.holds(record_id)]


async def delete_vanished(context: RunContext) -> None:
    """Delete documents that are gone from the source, in mode Sync. To be called after a complete listing only.

    Raises Terminal (``TooManyDeletes``) before anything is deleted.
    """
    if (context.spec.sync.mode or SyncMode.UPSERT) is not SyncMode.SYNC:
        return
    groups = context.ledger.by_document(context.ledger.vanished())
    if context.unseen and groups:
        groups = await _without_unseen(context, groups)
    groups = [kept for group in groups if (kept := _unclaimed(context, group))]
    if not groups:
        return
    before = context.ledger.documents
    most = context.spec.sync.max_delete_percent
    most = DEFAULT_MAX_DELETE_PERCENT if most is None else most
    if len(groups) * 100 > before * most:
        raise Terminal(
            f"{len(groups):,} of this source's {before:,} documents are gone from the source, which is "
            f"{100 * len(groups) / before:.1f} % and more than sync.maxDeletePercent ({most} %): nothing was deleted. "
            "If they are meant to go, raise it for one run",
            reason="TooManyDeletes",
        )
    rows: list[int] = []
    waiting = 0
    for group in groups:
        rows += group
        waiting += 1
        if len(rows) >= IDS_A_REQUEST:
            await delete_rows(context, rows)
            context.progress.counts.documents_deleted += waiting
            rows, waiting = [], 0
    await delete_rows(context, rows)
    context.progress.counts.documents_deleted += waiting


async def _without_unseen(context: RunContext, groups: list[list[int]]) -> list[list[int]]:
    """Vanished documents without those of entries that could not be fetched or parsed in this run.

    The ledger keeps no names, so one record of each document is asked for its own.
    """
    kept: list[list[int]] = []
    exact, prefixes = set(context.unseen), tuple(f"{key}#" for key in context.unseen)
    for start in range(0, len(groups), IDS_A_REQUEST):
        part = groups[start : start + IDS_A_REQUEST]
        first = context.ledger.record_ids([group[0] for group in part])
        records = await context.calls.fetch(first, metadata=True)
        for group, record_id in zip(part, first, strict=True):
            record = records.get(record_id)
            name = "" if record is None else str(record.metadata.get("vw_doc", ""))
            if name in exact or name.startswith(prefixes):
                context.ledger.spare(group)
            else:
                kept.append(group)
    return kept
