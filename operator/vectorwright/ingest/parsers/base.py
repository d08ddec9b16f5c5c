"""What parsers produce: one text with its headings, or records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vectorwright.stores.base import Metadata


class TextKind(StrEnum):
    """What the chunker follows when the job does not say."""

    TEXT = "text"
    MARKDOWN = "markdown"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in a text."""

    offset: int
    """Characters before the line that it stands on."""
    level: int
    """1 is the highest."""
    title: str


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A document that is one text."""

    text: str
    kind: TextKind
    headings: Sequence[Heading] = ()
    """Sorted by offset."""
    numbered: bool = True
    """Whether its lines are those of the document: not so where the text was taken out of markup."""
    metadata: Metadata = field(default_factory=dict)
    """What the content says of itself, such as its title."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a table, as it was read."""

    number: int
    """Number of the record: the line from 1 for JSON lines, the record after the header from 1 for CSV."""
    line: int
    """First line of it in the document, from 1."""
    values: dict[str, Any] | None = None
    problem: str | None = None
    """Why there are no values."""
    metadata: Metadata | None = None
    """Metadata that comes as it is, besides what is made of the values."""
