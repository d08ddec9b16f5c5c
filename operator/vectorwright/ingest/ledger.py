"""The ledger in the index itself: what the records of this source say about what is done.

One scroll over the records with our ``vw_source`` tells every document's versions and which of their chunks are there.
It costs 48 bytes a chunk while a run lasts (and the id itself, where records came with ids), so it is kept for up to a
million chunks; larger sources need a ledger of their own.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from vectorwright.errors import Terminal
from vectorwright.stores.base import Record, Store
from vectorwright.stores.filters import Eq

from .identity import digest, id_digest, uuid_text
from .limits import Limits
from .retry import Retrier

MAX_CHUNKS = 1_000_000
"""Chunks of one source that a ledger in the index holds: 48 MB of memory and a scroll of a minute or two."""

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Known:
    """What the index holds of one document, seen from the version that it should have."""

    rows: Sequence[int]
    """All rows of the document."""
    present: frozenset[int]
    """Numbers of the chunks of the wanted version that are there."""
    whole: bool
    """Whether every chunk of the wanted version is there."""
    old: Sequence[int]
    """Rows of other versions."""


_UNKNOWN = Known((), frozenset(), whole=False, old=())


def too_large(source: str, limit: int = MAX_CHUNKS) -> Terminal:
    """The error of a source with more chunks than the ledger holds."""
    return Terminal(
        f"source {source!r} has more than {limit:,} chunks, which is what a ledger kept in the index holds: "
        "split the source over several IngestionJobs",
        reason="LedgerTooLarge",
    )


def _version_hash(version: str) -> bytes:
    return blake2b(version.encode(), digest_size=8).digest()


class _Columns:
    """Rows as they come from the store."""

    def __init__(self) -> None:
        self.documents = bytearray()
        self.versions = bytearray()
        self.numbers = array("q")
        self.counts = array("q")
        self.ids = bytearray()
        self.own: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, record: Record) -> None:
        metadata = record.metadata
        if "vw_id" in metadata:
            self.own[len(self)] = record.id
        self.documents += digest(str(metadata.get("vw_doc", "")))
        self.versions += _version_hash(str(metadata.get("vw_ver", "")))
        self.numbers.append(_integer(metadata.get("vw_n")))
        self.counts.append(_integer(metadata.get("vw_count")))
        identity = id_digest(record.id)
        if uuid_text(identity) != record.id:
            self.own[len(self) - 1] = record.id
        self.ids += identity


def _integer(value: object) -> int:
    """A whole number from metadata, or -1, which no chunk has: some stores give integers back as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**31:
        return -1
    return int(value)


class Ledger:
    """The rows of one source, sorted by document. A row is one record of the index."""

    def __init__(self, columns: _Columns) -> None:
        documents = np.frombuffer(bytes(columns.documents), dtype=">u8").astype(np.uint64).reshape(-1, 2)
        order = np.lexsort((documents[:, 1], documents[:, 0]))
        self._high = np.ascontiguousarray(documents[order, 0])
        self._low = np.ascontiguousarray(documents[order, 1])
        self._versions = np.frombuffer(bytes(columns.versions), dtype=np.uint64)[order]
        self._numbers = np.frombuffer(columns.numbers, dtype=np.int64)[order].astype(np.int32)
        self._counts = np.frombuffer(columns.counts, dtype=np.int64)[order].astype(np.int32)
        self._ids = np.frombuffer(bytes(columns.ids), dtype=np.uint8).reshape(-1, 16)[order]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self._own = {int(place[row]): record_id for row, record_id in columns.own.items()}
        self._seen = np.zeros(len(order), dtype=np.bool_)
        self._gone = np.zeros(len(order), dtype=np.bool_)

    @classmethod
    async def load(
        cls, store: Store, index: str, source: str, *, limits: Limits, retrier: Retrier, limit: int = MAX_CHUNKS
    ) -> Ledger:
        """Read the records of ``source``. Raises Terminal (``LedgerTooLarge``), or what the store raises."""

        async def scroll() -> _Columns:
            columns = _Columns()
            await limits.requests.take()
            async for page in store.scroll(index, Eq("vw_source", source), page=_PAGE):
                for record in page:
                    columns.add(record)
                if len(columns) > limit:
                    raise too_large(source, limit)
                await limits.requests.take()
            return columns

        return cls(await retrier.call(scroll))

    def __len__(self) -> int:
        return len(self._high)

    @cached_property
    def documents(self) -> int:
        """Number of documents at the start of the run."""
        if not len(self):
            return 0
        high, low = self._high, self._low
        return 1 + int(np.count_nonzero((high[1:] != high[:-1]) | (low[1:] != low[:-1])))

    @cached_property
    def _rows_of_own_ids(self) -> dict[str, int]:
        return {record_id: row for row, record_id in self._own.items()}

    def _rows(self, document: str) -> Sequence[int]:
        identity = digest(document)
        high, low = np.uint64(int.from_bytes(identity[:8], "big")), np.uint64(int.from_bytes(identity[8:], "big"))
        start = int(np.searchsorted(self._high, high, side="left"))
        if start == len(self) or self._high[start] != high:
            return ()
        stop = int(np.searchsorted(self._high, high, side="right"))
        if self._low[start] == low and self._low[stop - 1] == low:
            return range(start, stop)
        return [row for row in range(start, stop) if self._low[row] == low]

    def find(self, document: str, version: str) -> Known:
        """What is there of a document that should have this version."""
        rows = self._rows(document)
        if not rows:
            return _UNKNOWN
        wanted = int.from_bytes(_version_hash(version), "little")
        current = [row for row in rows if int(self._versions[row]) == wanted]
        present = frozenset(int(self._numbers[row]) for row in current)
        count = max((int(self._counts[row]) for row in current), default=-1)
        whole = count > 0 and len(present) == count and min(present) == 0 and max(present) == count - 1
        current_rows = set(current)
        return Known(rows, present, whole, [row for row in rows if row not in current_rows])

    def see(self, known: Known) -> None:
        """The source has this document: it did not vanish."""
        if known.rows:
            self._seen[list(known.rows)] = True

    def see_document(self, document: str) -> None:
        """The source has this document, in whatever version."""
        rows = self._rows(document)
        if rows:
            self._seen[list(rows)] = True

    def record_ids(self, rows: Iterable[int]) -> list[str]:
        """The ids of rows, as the store has them."""
        return [self._own.get(row) or uuid_text(self._ids[row].tobytes()) for row in rows]

    def is_own(self, row: int) -> bool:
        """Whether the record of a row came with its id, which another document may carry by now."""
        return row in self._own

    def has_own_id(self, record_id: str) -> bool:
        """Whether a record of this source has this id, which it came with."""
        return record_id in self._rows_of_own_ids

    def remove(self, rows: Sequence[int]) -> None:
        """These records were deleted from the index."""
        self._gone[list(rows)] = True

    def vanished(self) -> list[int]:
        """Rows of documents that the source did not show in this run, the rows of one document together."""
        return [int(row) for row in np.flatnonzero(~self._seen & ~self._gone)]

    def spare(self, rows: Sequence[int]) -> None:
        """Take rows off the list of the vanished."""
        self._seen[list(rows)] = True

    def by_document(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows grouped by document. Rows of one document stand together, as :meth:`vanished` gives them."""
        groups: list[list[int]] = []
        last: tuple[int, int] | None = None
        for row in rows:
            document = int(self._high[row]), int(self._low[row])
            if document == last:
                groups[-1].append(row)
            else:
                groups.append([row])
                last = document
        return groups

    def live_digests(self) -> npt.NDArray[np.uint8]:
        """Digests of the ids that are still there: shape (n, 16)."""
        return self._ids[~self._gone]
