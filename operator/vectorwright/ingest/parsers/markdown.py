"""Headings of Markdown: ATX (``## Title``) and Setext (underlined), outside of code blocks (CommonMark 4.2 to 4.5)."""

from __future__ import annotations

import re

from .base import Heading, ParsedText, TextKind

MAX_TITLE = 200
"""Characters of a heading that are kept."""

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\r?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*\r?")
_NO_PARAGRAPH = re.compile(r"(?: {4}|\t|\s*(?:>|[-*+] |\d{1,9}[.)] |<|\||#))")
"""Lines that do not become a Setext heading when they are underlined: code, quotes, lists, HTML, tables."""
_INLINE = re.compile(r"!?\[([^\]\[]*)\]\([^()]*\)|[`*]+|<[^<>]*>")


def plain(title: str) -> str:
    """A heading without the marks of links, emphasis and code, on one line."""
    cleaned = _INLINE.sub(lambda match: match.group(1) or "", title[: 4 * MAX_TITLE])
    return " ".join(cleaned.split())[:MAX_TITLE]


def _frontmatter_end(text: str) -> int:
    """Where the YAML block at the beginning of a document ends, 0 where there is none."""
    if not text.startswith(("---\n", "---\r\n")):
        return 0
    end = re.compile(r"^(?:---|\.\.\.)[ \t]*\r?$", re.MULTILINE).search(text, 4)
    return end.end() if end else 0


def headings(text: str) -> list[Heading]:
    """The headings of a Markdown text, in order."""
    found: list[Heading] = []
    fence: str | None = None
    previous: tuple[int, str] | None = None
    offset = start = _frontmatter_end(text)
    for line in text[start:].split("\n"):
        here, offset = offset, offset + len(line) + 1
        opening = _FENCE.fullmatch(line)
        if fence is not None:
            if opening and opening[1].startswith(fence) and not opening[2].strip():
                fence = None
            continue
        if opening and not (opening[1][0] == "`" and "`" in opening[2]):
            fence, previous = opening[1], None
            continue
        atx = _ATX.fullmatch(line) if "#" in line[:4] else None
        if atx is not None:
            title = plain(atx[2] or "")
            if title:
                found.append(Heading(here, len(atx[1]), title))
            previous = None
        elif previous is not None and _SETEXT.fullmatch(line):
            found.append(Heading(previous[0], 1 if "=" in line else 2, plain(previous[1])))
            previous = None
        else:
            previous = (here, line) if line.strip() and not _NO_PARAGRAPH.match(line) else None
    return [heading for heading in found if heading.title]


def parse_markdown(text: str) -> ParsedText:
    """A Markdown document, as it is, with its headings. Its title is its first heading of the first level."""
    found = headings(text)
    title = next((heading.title for heading in found if heading.level == 1), None)
    return ParsedText(text, TextKind.MARKDOWN, found, metadata={"title": title} if title else {})
