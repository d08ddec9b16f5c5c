"""The main text of an HTML page, as Markdown-like text: headings, paragraphs, lists, tables, preformatted blocks."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from .base import Heading, ParsedText, TextKind
from .markdown import MAX_TITLE

_SKIPPED = frozenset(
    {
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "math",
        "iframe",
        "object",
        "embed",
        "canvas",
        "audio",
        "video",
        "map",
        "nav",
        "footer",
        "aside",
        "dialog",
        "button",
        "input",
        "select",
        "textarea",
        "datalist",
        "head",
    }
)
_BLOCKS = frozenset(
    {
        "address",
        "article",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "form",
        "header",
        "hgroup",
        "hr",
        "html",
        "legend",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "ul",
    }
)
_LINES = frozenset({"br", "li", "tr", "caption", "option"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACE = re.compile(r"[ \t\n\r\f\u00a0]+")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_META_WINDOW = 1024
"""Bytes in which HTML requires the declaration of its encoding."""


def declared_charset(data: bytes) -> str | None:
    """The encoding that a page declares in its head."""
    found = _META_CHARSET.search(data[:_META_WINDOW])
    return found[1].decode("ascii") if found else None


class _Writer:
    """Collects text; breaks, spaces and prefixes are written only when text follows."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self._newlines = 0
        self._space = False
        self.prefix = ""
        """Written before the next text, and lost when there is none: marks of headings, items and blocks."""

    def line_break(self, newlines: int) -> None:
        self._newlines = max(self._newlines, newlines)
        self._space = False

    def write(self, text: str) -> None:
        """Text whose white space is collapsed."""
        collapsed = _SPACE.sub(" ", text)
        if collapsed.startswith(" "):
            self._space = True
        stripped = collapsed.strip(" ")
        if stripped:
            self.verbatim(stripped)
            self._space = collapsed.endswith(" ")

    def verbatim(self, text: str) -> None:
        """Text as it is."""
        if self.length and self._newlines:
            text = "\n" * self._newlines + self.prefix + text
        elif self.length and self._space and not self.prefix:
            text = " " + text
        else:
            text = self.prefix + text
        self._newlines, self._space, self.prefix = 0, False, ""
        self.parts.append(text)
        self.length += len(text)

    def position(self) -> int:
        """Where the next text will stand."""
        return self.length + (self._newlines if self.length else 0)


class _Page:
    """Walks over a page without recursion: pages nest as deep as they like."""

    def __init__(self) -> None:
        self.writer = _Writer()
        self.headings: list[Heading] = []
        self._heading: tuple[int, int, int] | None = None
        self._preformatted = 0

    def walk(self, root: LexborNode) -> None:
        node = root
        while True:
            child = node.child if self._enter(node) else None
            if child is not None:
                node = child
                continue
            while True:
                self._leave(node)
                if node.mem_id == root.mem_id:
                    return
                following = node.next
                if following is not None:
                    node = following
                    break
                parent = node.parent
                if parent is None:
                    return
                node = parent

    def _enter(self, node: LexborNode) -> bool:
        """Begin a node; tells whether its children are wanted."""
        if node.is_text_node:
            self._text(node.text_content or "")
            return False
        tag = node.tag or ""
        if tag in _SKIPPED or not (node.is_element_node or node.is_document_node) or "hidden" in node.attributes:
            return False
        if tag in _HEADINGS:
            self.writer.line_break(2)
            self._heading = (self.writer.position(), _HEADINGS[tag], len(self.writer.parts))
            self.writer.prefix += "#" * _HEADINGS[tag] + " "
        elif tag == "pre":
            self.writer.line_break(2)
            self._preformatted += 1
            self.writer.prefix = "```\n"
        elif tag == "li":
            self.writer.line_break(1)
            self.writer.prefix = "- "
        elif tag == "img":
            self.writer.write(node.attributes.get("alt") or "")
        elif tag in _BLOCKS:
            self.writer.line_break(2)
        elif tag in _LINES:
            self.writer.line_break(1)
        return True

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _HEADINGS and self._heading is not None:
            offset, level, first = self._heading
            self._heading = None
            self.writer.prefix = ""
            title = "".join(self.writer.parts[first:]).strip().lstrip("-# ")
            if title:
                self.headings.append(Heading(offset, level, title[:MAX_TITLE]))
            self.writer.line_break(2)
        elif tag == "pre" and self._preformatted:
            self._preformatted -= 1
            if not self.writer.prefix:
                self.writer.line_break(1)
                self.writer.verbatim("```")
            self.writer.prefix = ""
            self.writer.line_break(2)
        elif tag in {"td", "th"}:
            self.writer.write(" ")
        elif tag in _BLOCKS:
            self.writer.line_break(2)
        elif tag in _LINES:
            self.writer.prefix = ""
            self.writer.line_break(1)

    def _text(self, text: str) -> None:
        if self._preformatted:
            stripped = text.strip("\n")
            if stripped:
                self.writer.verbatim(stripped)
        else:
            self.writer.write(text)


def _main(tree: LexborHTMLParser) -> LexborNode | None:
    """The element that holds the main text: ``main``, the only ``article``, or the body."""
    for selector in ("main", "[role=main]"):
        found = tree.css_first(selector)
        if found is not None and found.text().strip():
            return found
    articles = tree.css("article")
    if len(articles) == 1 and articles[0].text().strip():
        return articles[0]
    return tree.body


def parse_html(text: str) -> ParsedText:
    """The main text of a page. Scripts, styles, navigation and forms' fields are left out, links keep their text."""
    tree = LexborHTMLParser(text)
    root = _main(tree)
    page = _Page()
    if root is not None:
        page.walk(root)
    titled = tree.css_first("title")
    title = _SPACE.sub(" ", titled.text()).strip() if titled is not None else ""
    if not title:
        title = next((heading.title for heading in page.headings if heading.level == 1), "")
    return ParsedText(
        "".join(page.writer.parts),
        TextKind.MARKDOWN,
        page.headings,
        numbered=False,
        metadata={"title": title[:MAX_TITLE]} if title else {},
    )
