"""The values and protocols between the steps of a run: source → parser → chunker → embedder → writer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vectorwright.errors import VectorwrightError
from vectorwright.stores.base import Metadata, Vectors


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that a source lists: a file, an address, a key."""

    key: str
    """Stable name in the source, such as a path."""
    token: str | None = None
    """Hash of its content where the source knows it without fetching (the blob id, for git). None: fetch to know."""
    size: int | None = None
    """Bytes, where the source knows it without fetching."""
    metadata: Metadata = field(default_factory=dict)
    """What the source knows of it: path, commit and so on."""
    media_type: str | None = None
    """Content type, where the source tells it."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The content of an entry, or why there is none."""

    entry: Entry
    """As listed, with what only the fetch could tell (token, size, media type, metadata) filled in."""
    data: bytes | None = None
    error: VectorwrightError | None = None


class Source(Protocol):
    """A source of one run. ``pin`` is called first and fixes what ``entries`` and ``fetch`` see."""

    async def pin(self) -> str:
        """Fix the revision of this run and return it: a commit, or a hash of what is listed.

        Raises Terminal when the source is wrong (no such repository, refused address), Retryable when it is down.
        """
        ...

    def entries(self) -> AsyncIterator[Entry]:
        """Everything that matches, sorted by key, keys distinct. Raises as :meth:`pin` does; never a partial list."""
        ...

    def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
        """The content of entries, in the order given. One that cannot be had comes with its error instead."""
        ...

    async def close(self) -> None:
        """Release connections and temporary files. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document."""

    text: str
    start_line: int = 0
    """First line in the document, from 1; 0 where lines have no meaning."""
    end_line: int = 0
    heading: str | None = None
    """Headings above it, joined by `` > ``, in Markdown and HTML."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document, parsed and chunked."""

    key: str
    """Name in the source: the entry's key, or ``<entry key>#<record id or number>`` for records of a table."""
    content_hash: str
    """Hex SHA-256 (or the source's own content hash) of what the document was parsed from."""
    chunks: tuple[Chunk, ...]
    metadata: Metadata = field(default_factory=dict)
    record_id: str | None = None
    """Id that the record came with."""
    vector: Sequence[float] | None = None
    """Vector that the record came with; the document then has exactly one chunk."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A document or record that could not be parsed, with the reason of its dead letter."""

    key: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of texts: shape (n, d), float32, in the order of the texts."""

    vectors: Vectors
    tokens: int
    """Tokens used, as the endpoint counts them or as the tokenizer does."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    batch_size: int
    """Texts in one call."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of at most ``batch_size`` texts.

        Raises Retryable (429, 5xx, time-out, an answer that makes no sense), Terminal (401, 403, 404, wrong model),
        BatchRejected when a text is refused (400, 413, 422).
        """
        ...

    async def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...
