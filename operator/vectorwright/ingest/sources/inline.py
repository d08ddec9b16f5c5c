"""Documents that are written in the resource itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import orjson

from vectorwright.api.v1alpha1.ingestion_source import InlineDocument, InlineSource
from vectorwright.errors import Terminal
from vectorwright.ingest.contracts import Entry, Fetched

from .listing import listing_hash

MAX_BYTES = 64 * 1024
"""Bytes of all texts and metadata together, in UTF-8: a resource itself may hold about 1 MiB, and carries status."""


def _token(document: InlineDocument) -> str:
    """Hash of a document. Metadata is part of it, so that a change of metadata alone is a change."""
    if not document.metadata:
        return hashlib.sha256(document.text.encode("utf-8", "surrogatepass")).hexdigest()
    whole = orjson.dumps([document.text, document.metadata], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(whole).hexdigest()


def _size(document: InlineDocument) -> int:
    texts = [document.text, *(document.metadata or {}), *(document.metadata or {}).values()]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


class InlineDocuments:
    """The source of a run over documents in the resource. The key is the document's id."""

    def __init__(self, source: InlineSource) -> None:
        self._documents = {document.id: document for document in source.documents}
        self._source = source

    async def pin(self) -> str:
        """Hash of all documents.

        Raises Terminal ``DuplicateId`` when two share an id, ``SourceTooLarge`` when they hold more than
        :data:`MAX_BYTES` together.
        """
        if len(self._documents) < len(self._source.documents):
            repeated = Counter(document.id for document in self._source.documents).most_common(1)[0][0]
            raise Terminal(
                f"spec.source.inline: two documents have the id {repeated!r}; ids must differ", reason="DuplicateId"
            )
        total = sum(_size(document) for document in self._source.documents)
        if total > MAX_BYTES:
            raise Terminal(
                f"spec.source.inline holds {total} bytes, more than the {MAX_BYTES} that fit into a resource: "
                "use a ConfigMap, an address or a git repository",
                reason="SourceTooLarge",
            )
        return listing_hash((key, _token(document)) for key, document in self._documents.items())

    async def entries(self) -> AsyncIterator[Entry]:
        """All documents, sorted by id."""
        for key in sorted(self._documents):
            document = self._documents[key]
            yield Entry(
                key=key,
                token=_token(document),
                size=len(document.text.encode("utf-8", "surrogatepass")),
                metadata=dict(document.metadata or {}),
            )

    async def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
        """The texts, in UTF-8."""
        for entry in entries:
            yield Fetched(entry, data=self._documents[entry.key].text.encode("utf-8", "surrogatepass"))

    async def close(self) -> None:
        """Nothing is open."""
