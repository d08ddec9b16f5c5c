"""Which ids a table may hold: what lets new records be appended without a search for what they replace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_RECENT = 65_536


class KnownIds:
    """A superset of the ids of a table, 8 bytes an id.

    Ids are kept as Python's own 64-bit hash, keyed anew in each process. A collision costs a search that finds nothing;
    an id that is in the table is always known, so an append never makes a duplicate. Removed ids stay until it is read
    anew.
    """

    def __init__(self) -> None:
        self._sorted: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._recent: set[int] = set()

    def add(self, ids: Iterable[str]) -> None:
        """Remember ids."""
        self._recent.update(map(hash, ids))
        if len(self._recent) >= _RECENT:
            recent = np.fromiter(self._recent, np.int64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent = set()

    def holds_any(self, ids: Sequence[str]) -> bool:
        """Whether one of the ids may be in the table. False is certain."""
        hashes = list(map(hash, ids))
        if not self._recent.isdisjoint(hashes):
            return True
        if not len(self._sorted):
            return False
        wanted = np.asarray(hashes, np.int64)
        at = np.searchsorted(self._sorted, wanted)
        return bool((self._sorted[np.minimum(at, len(self._sorted) - 1)] == wanted).any())
