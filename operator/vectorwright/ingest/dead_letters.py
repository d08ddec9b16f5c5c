"""Documents and chunks that cannot be ingested because of what is in them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vectorwright.api.v1alpha1.ingestionjob import DeadLetter

from .items import Item
from .progress import Progress

logger = logging.getLogger(__name__)

SHOWN = 20
"""Dead letters in status. All of them are in the log."""


class DeadLetters:
    """Keeps the first, logs all, and tells when there are too many."""

    def __init__(self, progress: Progress, limit: int | None, on_too_many: Callable[[], None]) -> None:
        self._progress = progress
        self._limit = limit
        self._on_too_many = on_too_many

    @property
    def too_many(self) -> bool:
        """Whether more documents failed than the job allows."""
        return self._limit is not None and self._progress.counts.documents_failed > self._limit

    def document(self, key: str, reason: str, message: str) -> None:
        """A whole document or record cannot be ingested."""
        logger.warning("dead letter", extra={"fields": {"document": key, "reason": reason, "detail": message}})
        self._count(key, reason, message)

    def record(self, record_id: str, reason: str, message: str) -> None:
        """A record that is copied cannot be kept."""
        self._progress.counts.vectors_failed += 1
        self.document(record_id, reason, message)

    def chunk(self, item: Item, reason: str, message: str) -> None:
        """A chunk cannot be ingested. Its document counts once, however many of its chunks fail."""
        fields = {"document": item.document.key, "chunk": item.number, "reason": reason, "detail": message}
        logger.warning("dead letter", extra={"fields": fields})
        self._progress.counts.vectors_failed += 1
        if not item.document.failed:
            item.document.failed = True
            self._count(item.document.key, reason, message)

    def _count(self, key: str, reason: str, message: str) -> None:
        self._progress.counts.documents_failed += 1
        if len(self._progress.dead_letters) < SHOWN:
            letter = DeadLetter(document=key[:512], reason=reason, message=message[:1024])
            self._progress.dead_letters.append(letter)
        if self.too_many:
            self._on_too_many()
