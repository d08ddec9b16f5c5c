"""Replacing: once a new version is stored, it is read back, and only then is the old one deleted."""

from __future__ import annotations

from vectorwright.errors import Retryable

from .batching import batched, spread
from .context import IDS_A_REQUEST, RunContext
from .items import Pending

LINGER = 1.0
_DOCUMENTS = 200
"""Documents that are verified and replaced in one go."""


async def read_back(context: RunContext, ids: list[str]) -> None:
    """Find all of these ids in the store. A store that shows writes late is asked again, a few times.

    Raises Retryable (``VerificationFailed``) when some stay away.
    """

    async def attempt() -> None:
        found = await context.calls.fetch(ids, metadata=False)
        absent = [record_id for record_id in ids if record_id not in found]
        if absent:
            raise Retryable(
                f"the store acknowledged {len(absent):,} records that it does not return, such as {absent[0]!r}. "
                "Their old versions were kept",
                reason="VerificationFailed",
            )

    if ids:
        await context.looks.call(attempt)


class Replacer:
    """Deletes old versions of documents whose new version is complete."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    async def run(self) -> None:
        """Replace everything from the context's queue, until a None comes."""
        batches = batched(self._context.replacing, most=_DOCUMENTS, linger=LINGER)
        await spread(batches, self._replace, 1)

    async def _replace(self, documents: list[Pending]) -> None:
        context = self._context
        await read_back(context, [record_id for document in documents for record_id in document.written])
        rows = [row for document in documents for row in document.old]
        context.late.extend(row for row in rows if context.ledger.is_own(row))
        await delete_rows(context, [row for row in rows if not context.ledger.is_own(row)])
        context.progress.counts.documents_replaced += len(documents)


async def delete_rows(context: RunContext, rows: list[int]) -> None:
    """Delete records that this source wrote in earlier runs, and book them."""
    for start in range(0, len(rows), IDS_A_REQUEST):
        part = rows[start : start + IDS_A_REQUEST]
        await context.calls.delete(context.ledger.record_ids(part))
        context.ledger.remove(part)
        context.progress.counts.vectors_deleted += len(part)
