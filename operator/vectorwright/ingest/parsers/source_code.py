"""Source code and configuration: kept as it is."""

from __future__ import annotations

from .base import ParsedText, TextKind


def parse_code(text: str) -> ParsedText:
    """The text, verbatim."""
    return ParsedText(text, TextKind.CODE)
