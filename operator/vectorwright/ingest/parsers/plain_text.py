"""Plain text: kept as it is."""

from __future__ import annotations

from .base import ParsedText, TextKind


def parse_plain_text(text: str) -> ParsedText:
    """The text, verbatim."""
    return ParsedText(text, TextKind.TEXT)
