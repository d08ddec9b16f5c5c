"""Admission: parsed documents against the ledger, the budget and the store's limits; what passes becomes items."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vectorwright.errors import Terminal
from vectorwright.stores.base import Metadata

from .checks import Defect, MetadataRules, as_vector, check_sizes, check_vectors, json_size
from .context import RunContext
from .contracts import Chunk, Document, Entry, Rejected
from .identity import own_id
from .items import Item, Pending
from .ledger import MAX_CHUNKS, too_large
from .planning import check_document_budget

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an entry turned out to be."""

    entry: Entry
    """As it was listed."""
    results: Sequence[Document | Rejected]


class Admission:
    """Decides what of a document has to be embedded and written. Documents come in the order of the listing."""

    def __init__(
        self, context: RunContext, target: asyncio.Queue[Item | None], *, ledger_limit: int = MAX_CHUNKS
    ) -> None:
        self._context = context
        self._target = target
        self._capabilities = context.calls.store.capabilities
        self._rules = MetadataRules(self._capabilities, context.spec.store.fields)
        self._precomputed = context.spec.embedder is None
        self._ledger_limit = ledger_limit
        self._admitted = 0
        """Vectors that this run is going to write."""

    async def take(self, parsed: Parsed) -> None:
        """Admit all documents of an entry. A budget that would be exceeded halts the run instead."""
        context = self._context
        counts = context.progress.counts
        if not parsed.results:
            counts.documents_empty += 1
            return
        counts.documents_listed += len(parsed.results) - 1
        try:
            check_document_budget(context)
        except Terminal as error:
            context.halt.request(error, at_once=False)
            return
        for result in parsed.results:
            if context.halt.requested:
                return
            if isinstance(result, Rejected):
                self._spare(parsed.entry, result)
                context.dead_letters.document(result.key, result.reason, result.message)
            else:
                await self._document(parsed.entry, result)

    def _spare(self, entry: Entry, rejected: Rejected) -> None:
        """What could not be parsed did not vanish; nor did any record of the entry, if it is not known which it was."""
        if rejected.key == entry.key or rejected.key.startswith(f"{entry.key}#line:"):
            self._context.unseen.append(entry.key)
        else:
            self._context.ledger.see_document(rejected.key)

    def report(self) -> None:
        """Log what became of metadata that could not be kept as it was."""
        for name, note in self._rules.notes.items():
            logger.warning("metadata was adapted", extra={"fields": {"field": name, "detail": note}})

    async def _document(self, entry: Entry, document: Document) -> None:
        context = self._context
        counts = context.progress.counts
        if not document.chunks:
            # Not seen: what the index has of it is deleted as if it had vanished, under the same guard.
            counts.documents_empty += 1
            return
        counts.chunks += len(document.chunks)
        # The token decides what is skipped at the next run, so it also names the version.
        whole_entry = document.key == entry.key and entry.token is not None
        version = context.identity.version((entry.token or "") if whole_entry else document.content_hash)
        known = context.ledger.find(document.key, version)
        context.ledger.see(known)
        defect = self._claim(document)
        if defect is not None:
            context.dead_letters.document(document.key, defect.reason, defect.message)
            counts.vectors_failed += len(document.chunks)
            return
        if known.whole and not known.old:
            counts.documents_unchanged += 1
            return
        missing = [number for number in range(len(document.chunks)) if number not in known.present]
        if not self._afford(len(missing)):
            return
        pending = Pending(document.key, version, len(missing), known.old)
        if not missing:
            await context.complete(pending)
            return
        for item in self._items(document, pending, missing):
            defect = self._defect(item, document)
            if defect is None:
                await self._target.put(item)
            else:
                context.dead_letters.chunk(item, defect.reason, defect.message)
                await context.settle(pending)

    def _claim(self, document: Document) -> Defect | None:
        """Claim the id that a record came with. The first in the order of the source has it."""
        if document.record_id is None:
            return None
        if not document.record_id:
            return Defect("InvalidId", "its id is empty")
        held = own_id(document.record_id, self._capabilities)
        if self._context.claims.take(held, holds=len(document.chunks) == 1):
            return None
        return Defect("DuplicateId", f"a record before it in the source has the same id {document.record_id[:200]!r}")

    def _afford(self, vectors: int) -> bool:
        """Whether so many more vectors fit. Otherwise the run is halted: what was admitted is finished."""
        context = self._context
        most = context.spec.budget.max_vectors
        error: Terminal | None = None
        if most is not None and self._admitted + vectors > most:
            error = Terminal(
                f"the next document would take this run over budget.maxVectors ({most:,}): raise it, or narrow the "
                f"source. What was written so far stays",
                reason="BudgetExceeded",
            )
        elif len(context.ledger) + self._admitted + vectors > self._ledger_limit:
            error = too_large(context.identity.source, self._ledger_limit)
        if error is not None:
            context.halt.request(error, at_once=False)
            return False
        self._admitted += vectors
        return True

    def _items(self, document: Document, pending: Pending, missing: Sequence[int]) -> list[Item]:
        base = self._rules.clean(document.metadata)
        base |= {
            "vw_source": self._context.identity.source,
            "vw_doc": document.key,
            "vw_ver": pending.version,
            "vw_count": len(document.chunks),
        }
        own = document.record_id is not None and len(document.chunks) == 1
        if document.record_id is not None:
            base["vw_id"] = document.record_id
        if own and document.record_id is not None:
            ids = [own_id(document.record_id, self._capabilities)]
        else:
            ids = self._context.identity.record_ids(document.key, pending.version, missing)
        base_size = json_size(base)
        items = []
        for number, record_id in zip(missing, ids, strict=True):
            chunk = document.chunks[number]
            extra = _of_chunk(chunk, number)
            size = base_size + json_size(extra)
            items.append(Item(pending, number, record_id, chunk.text, base | extra, size, own))
        return items

    def _defect(self, item: Item, document: Document) -> Defect | None:
        defect = check_sizes(item.metadata_bytes, item.text_bytes, self._capabilities)
        if defect is not None or not self._precomputed:
            return defect
        if document.vector is None:
            return Defect("MissingVector", f"it has no vector in field {self._context.spec.precomputed_field!r}")
        vector = as_vector(document.vector, self._context.spec.store.dimension)
        if isinstance(vector, Defect):
            return vector
        item.vector = vector
        return next((found for _, found in check_vectors(vector[np.newaxis], self._context.spec.store.metric)), None)


def _of_chunk(chunk: Chunk, number: int) -> Metadata:
    extra: dict[str, Any] = {"vw_n": number}
    if chunk.start_line > 0:
        extra["start_line"] = chunk.start_line
        extra["end_line"] = chunk.end_line
    if chunk.heading:
        extra["heading"] = chunk.heading
    return extra
