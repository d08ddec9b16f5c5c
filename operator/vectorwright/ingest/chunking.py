"""From texts to chunks: Markdown and prose by their structure, code by its blocks.

Sizes count characters, or tokens of the tokenizer that ships with the local embedding model (the ``local`` extra):
other models count differently, so leave some room. The same text with the same settings always gives the same chunks.
"""

from __future__ import annotations

import importlib.util
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from semantic_text_splitter import MarkdownSplitter, TextSplitter

from vectorwright.api.v1alpha1.ingestionjob import Chunk as ChunkSettings
from vectorwright.errors import Terminal

from .code_blocks import Blocks
from .contracts import Chunk
from .parsers.base import Heading, ParsedText, TextKind
from .parsers.markdown import headings as markdown_headings

DEFAULT_CHARACTERS = 1500
DEFAULT_TOKENS = 400

_SEGMENT = 100_000
"""Characters that the splitter gets at once: its time grows with the square of a text without white space (3 s for a
million characters, 0.03 s for a tenth of it), so larger texts are cut first, at the best place in a segment's second
half."""

_Splitter = TextSplitter | MarkdownSplitter

_CRUMB = 8
"""A piece that makes up less than this part of itself and what follows is joined to it."""

_WORD = re.compile(r"\w")

_MAX_HEADING = 500
"""Characters of all headings above a chunk together."""


def tokenizer_file() -> Path | None:
    """The tokenizer that ships in the wheel of the local embedding model, or None where that is not installed."""
    found = importlib.util.find_spec("wordllama")
    for location in (found.submodule_search_locations or ()) if found else ():
        path = Path(location) / "tokenizers" / "l2_supercat_tokenizer_config.json"
        if path.is_file():
            return path
    return None


def check_settings(settings: ChunkSettings) -> tuple[int, int]:
    """Size and overlap in effect.

    Raises Terminal ``InvalidSpec`` when the overlap is not less than the size, ``TokenizerMissing`` when tokens are to
    be counted and no tokenizer is installed.
    """
    tokens = settings.unit == "tokens"
    size = settings.size or (DEFAULT_TOKENS if tokens else DEFAULT_CHARACTERS)
    overlap = settings.overlap or 0
    if overlap >= size:
        raise Terminal(
            f"spec.chunk.overlap is {overlap}, which is not less than spec.chunk.size {size}: every chunk would repeat "
            "the one before it whole"
        )
    if tokens and tokenizer_file() is None:
        raise Terminal(
            "spec.chunk.unit is tokens, and no tokenizer is installed: use characters, or an image with the `local` "
            "extra",
            reason="TokenizerMissing",
        )
    return size, overlap


class _Units:
    """How sizes are counted, and the splitters that count so."""

    def __init__(self, size: int, overlap: int, *, tokens: bool) -> None:
        self.count: Callable[[str], int] = len
        self._tokenizer: str | None = None
        if tokens:
            # Only the extra brings it.
            from tokenizers import Tokenizer  # noqa: PLC0415

            tokenizer = Tokenizer.from_file(str(tokenizer_file()))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            self.count = lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
            self._tokenizer = tokenizer.to_str()
        self.prose: _Splitter
        self.markdown: _Splitter
        if self._tokenizer is None:
            self.prose, self.markdown = TextSplitter(size, overlap), MarkdownSplitter(size, overlap)
        else:
            self.prose = TextSplitter.from_huggingface_tokenizer_str(self._tokenizer, size, overlap)
            self.markdown = MarkdownSplitter.from_huggingface_tokenizer_str(self._tokenizer, size, overlap)


def _segments(text: str) -> Iterator[tuple[int, str]]:
    """Pieces of at most :data:`_SEGMENT` characters with their offsets: cut before a heading, behind an empty line, a
    line, a space, or anywhere, whichever comes first in this order."""
    start = 0
    while len(text) - start > _SEGMENT:
        low, high = start + _SEGMENT // 2, start + _SEGMENT
        for mark, kept in (("\n#", 1), ("\n\n", 2), ("\n", 1), (" ", 1)):
            found = text.rfind(mark, low, high)
            if found >= 0:
                end = found + kept
                break
        else:
            end = high
        yield start, text[start:end]
        start = end
    yield start, text[start:]


class _Lines:
    """Line numbers of offsets."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        at = text.find("\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = text.find("\n", at + 1)

    def number(self, offset: int) -> int:
        """The line, from 1, that the character at ``offset`` is on."""
        return bisect_right(self._starts, offset)


class _Outline:
    """The headings above an offset."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._offsets = [heading.offset for heading in headings]
        self._paths: list[str] = []
        above: list[Heading] = []
        for heading in headings:
            while above and above[-1].level >= heading.level:
                above.pop()
            above.append(heading)
            self._paths.append(" > ".join(item.title for item in above)[:_MAX_HEADING])

    def path(self, offset: int) -> str | None:
        """Headings in effect at ``offset``, joined; one that begins there counts."""
        at = bisect_right(self._offsets, offset)
        return self._paths[at - 1] if at else None


class Chunker:
    """Cuts texts as the settings say. Raises as :func:`check_settings` does."""

    def __init__(self, settings: ChunkSettings) -> None:
        self._size, self._overlap = check_settings(settings)
        self._strategy = settings.strategy or "auto"
        self._units = _Units(self._size, self._overlap, tokens=settings.unit == "tokens")

    def chunks(self, parsed: ParsedText) -> tuple[Chunk, ...]:
        """The chunks of a text, in order; none where it has no letter or digit.

        No chunk is larger than the size, except under the strategy ``none``, which keeps a text whole. Lines are
        counted from 1 and are 0 where the text's lines are not those of the document.
        """
        text = parsed.text
        if not _WORD.search(text):
            return ()
        kind = parsed.kind.value if self._strategy == "auto" else self._strategy
        headings = parsed.headings
        if self._strategy == "markdown" and parsed.kind is not TextKind.MARKDOWN:
            headings = markdown_headings(text)
        outline = _Outline(headings)
        lines = _Lines(text) if parsed.numbered else None
        return tuple(
            Chunk(
                text=piece,
                start_line=lines.number(offset) if lines else 0,
                end_line=lines.number(offset + len(piece) - 1) if lines else 0,
                heading=outline.path(offset),
            )
            for offset, piece in self._tidied(text, self._pieces(text, kind))
        )

    def _tidied(self, text: str, pieces: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
        """Splitting leaves crumbs, such as a heading alone or the fence of a code block: they go to what follows where
        that has room, and pieces without a letter or digit that cannot are left out."""
        kept: list[tuple[int, str]] = []
        # From the end, so that a row of crumbs goes to the piece behind it.
        for offset, piece in reversed(list(pieces)):
            if kept:
                following, behind = kept[-1]
                joined = text[offset : following + len(behind)]
                if len(piece) * _CRUMB < len(joined) and self._units.count(joined) <= self._size:
                    kept[-1] = (offset, joined)
                    continue
            if _WORD.search(piece):
                kept.append((offset, piece))
        kept.reverse()
        return kept

    def _pieces(self, text: str, kind: str) -> Iterator[tuple[int, str]]:
        if kind == "none":
            whole = text.strip()
            yield text.index(whole), whole
        elif kind == "code":
            yield from self._code(text)
        else:
            splitter = self._units.markdown if kind == "markdown" else self._units.prose
            yield from self._split(splitter, text, 0)

    @staticmethod
    def _split(splitter: _Splitter, text: str, base: int) -> Iterator[tuple[int, str]]:
        for start, segment in _segments(text):
            for offset, piece in splitter.chunk_indices(segment):
                if piece.strip():
                    yield base + start + offset, piece

    def _code(self, text: str) -> Iterator[tuple[int, str]]:
        lines = text.split("\n")
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line) + 1)
        blocks = Blocks(lines, [self._units.count(f"{line}\n") for line in lines])
        # What is repeated counts towards the size of the chunk that repeats it.
        limit = self._size - self._overlap
        for first, end in blocks.pieces(limit):
            room = min(self._overlap, self._size - blocks.size(first, end))
            begin = blocks.before(first, room) if room > 0 else first
            while begin < end - 1 and not lines[begin].strip():
                begin += 1
            offset = starts[begin]
            piece = text[offset : starts[end]].rstrip()
            if not piece:
                continue
            if self._units.count(piece) <= self._size:
                yield offset, piece
            else:
                yield from self._split(self._units.prose, piece, offset)


@lru_cache(maxsize=8)
def _cached(strategy: str | None, size: int | None, overlap: int | None, unit: str | None) -> Chunker:
    return Chunker(ChunkSettings.model_validate({"strategy": strategy, "size": size, "overlap": overlap, "unit": unit}))


def chunker_for(settings: ChunkSettings) -> Chunker:
    """The chunker of some settings, made once: loading a tokenizer takes a second. Raises as :class:`Chunker` does."""
    return _cached(settings.strategy, settings.size, settings.overlap, settings.unit)
