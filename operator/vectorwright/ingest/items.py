"""What travels through the stages of a run: chunks, and the documents they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vectorwright.stores.base import Metadata, Vectors


@dataclass(slots=True)
class Pending:
    """A document on its way into the index."""

    key: str
    version: str
    open: int
    """Chunks that are neither stored nor in the dead letters yet."""
    old: Sequence[int] = ()
    """Rows of the ledger to delete when this version is stored."""
    failed: bool = False
    """Whether a chunk is in the dead letters. The old version then stays."""
    written: list[str] = field(default_factory=list)
    """Ids that this run wrote, where they have to be verified before the old version goes."""


@dataclass(slots=True)
class Item:
    """A chunk on its way into the index."""

    document: Pending
    number: int
    id: str
    text: str
    metadata: Metadata
    metadata_bytes: int
    own_id: bool = False
    """Whether the id came with the record, and so may be taken by somebody else."""
    vector: Vectors | None = None
    """Shape (d,), once it is known."""

    @property
    def text_bytes(self) -> int:
        """Size of the text in UTF-8. Four bytes a character at most; exact where the text is ASCII."""
        return len(self.text) if self.text.isascii() else len(self.text.encode())

    @property
    def bytes(self) -> int:
        """Size in a write: float32 vector, text, metadata and id."""
        vector = 0 if self.vector is None else 4 * len(self.vector)
        return vector + self.text_bytes + self.metadata_bytes + len(self.id)
