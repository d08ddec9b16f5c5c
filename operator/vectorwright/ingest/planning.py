"""The plan of a run: the listing against the ledger, in constant memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import orjson

from vectorwright.errors import Terminal

from .context import RunContext
from .contracts import Entry, Source

_IN_MEMORY = 16 * 2**20
"""Bytes of a listing that stay in memory; a longer one goes to a temporary file."""


class Listing:
    """Entries that need work, in the source's order, kept outside of memory. Close it."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by close()
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def add(self, entry: Entry) -> None:
        """Append an entry."""
        parts = [entry.key, entry.token, entry.size, entry.metadata, entry.media_type]
        self._file.write(orjson.dumps(parts) + b"\n")
        self._entries += 1

    def slices(self, most: int) -> Iterator[list[Entry]]:
        """The entries in lists of at most ``most``. To be used once."""
        self._file.seek(0)
        part: list[Entry] = []
        for line in self._file:
            key, token, size, metadata, media_type = orjson.loads(line)
            part.append(Entry(key, token, size, metadata, media_type))
            if len(part) == most:
                yield part
                part = []
        if part:
            yield part

    def close(self) -> None:
        """Remove it."""
        self._file.close()


def _is_unchanged(context: RunContext, entry: Entry) -> bool:
    """Whether the index has this version of an entry whole, and nothing else of it.

    Only an entry that is one document can be known without fetching: documents of a table have keys of their own.
    """
    if entry.token is None:
        return False
    known = context.ledger.find(entry.key, context.identity.version(entry.token))
    if not known.whole or known.old:
        return False
    context.ledger.see(known)
    return True


async def plan(context: RunContext, source: Source, listing: Listing) -> None:
    """Compare the whole listing with the ledger and keep what needs work.

    Raises Terminal (``EmptySource``, ``BudgetExceeded``), and what the source raises.
    """
    counts = context.progress.counts
    async for entry in source.entries():
        counts.documents_listed += 1
        if not entry.key.isascii() and not _is_text(entry.key):
            name = entry.key.encode("utf-8", "replace").decode()
            context.dead_letters.document(name, "InvalidName", "its name is no valid UTF-8: rename it in the source")
        elif _is_unchanged(context, entry):
            counts.documents_unchanged += 1
        else:
            listing.add(entry)
    if counts.documents_listed == 0:
        raise Terminal(
            "the source is empty: nothing in it matches. Check include and exclude, the ref and the keys of the "
            "source. Nothing was written or deleted",
            reason="EmptySource",
        )
    check_document_budget(context)


def check_document_budget(context: RunContext) -> None:
    """Raise Terminal (``BudgetExceeded``) where the source has more documents than the job allows."""
    most = context.spec.budget.max_documents
    listed = context.progress.counts.documents_listed
    if most is not None and listed > most:
        raise Terminal(
            f"the source has {listed:,} documents or more, and budget.maxDocuments is {most:,}: raise it, or narrow "
            "the source. What was written so far stays",
            reason="BudgetExceeded",
        )


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
