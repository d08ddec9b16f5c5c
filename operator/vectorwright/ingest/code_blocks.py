"""Cuts source code where its indentation says that something begins, for any language that is indented.

A block (a function, a class, a mapping) is a line and the deeper lines below it. Blocks that fit stay whole; one that
does not is cut between the blocks inside it. Where both are possible, a cut behind an empty line is preferred. Comments
and decorators stay with what they stand above, closing brackets with what they close.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

_CLOSING = re.compile(
    r"\s*(?:[)\]}>]|</|(?:end|else|elif|elsif|elseif|except|finally|rescue|ensure|catch|fi|done|esac|then|do|begin|in)\b)"
)
_ATTACHED = re.compile(r"\s*(?:[@#;%]|//|/\*|\*|--|\"\"\"|<!--|\[<|#\[|template\b)")
"""Comments, decorators, attributes and annotations."""

_TAB = 4
_MAX_DEPTH = 40
"""Cuts inside of cuts. What is still too large then is cut between any two lines: hostile files nest without end."""


class Blocks:
    """The lines of a text, and where to cut them.

    ``sizes`` has one number a line: what it counts towards the limit, its line end included.
    """

    def __init__(self, lines: Sequence[str], sizes: Sequence[int]) -> None:
        self._lines = lines
        self._totals = [0]
        for size in sizes:
            self._totals.append(self._totals[-1] + size)
        self._indents = [self._indent(line) for line in lines]

    @staticmethod
    def _indent(line: str) -> int | None:
        """Columns before the first character, or None for an empty line."""
        stripped = line.lstrip(" \t")
        if not stripped.strip():
            return None
        return sum(_TAB if char == "\t" else 1 for char in line[: len(line) - len(stripped)])

    def size(self, first: int, end: int) -> int:
        """What the lines from ``first`` up to but without ``end`` count."""
        return self._totals[end] - self._totals[first]

    def _attached_from(self, first: int, at: int) -> int:
        """The first of the comments and decorators that stand directly above line ``at``."""
        indent = self._indents[at]
        while at - 1 > first and self._indents[at - 1] == indent and _ATTACHED.match(self._lines[at - 1]):
            at -= 1
        return at

    def _cuts(self, first: int, end: int, level: int, *, behind_empty: bool) -> list[int]:
        cuts: list[int] = []
        for at in range(first + 1, end):
            if self._indents[at] != level or _CLOSING.match(self._lines[at]):
                continue
            cut = self._attached_from(first, at)
            if cut > first and (not cuts or cut > cuts[-1]) and (not behind_empty or self._indents[cut - 1] is None):
                cuts.append(cut)
        return cuts

    def _best_cuts(self, first: int, end: int) -> list[int]:
        levels = sorted({indent for indent in self._indents[first:end] if indent is not None})
        for level in levels[:2]:
            for behind_empty in (True, False):
                cuts = self._cuts(first, end, level, behind_empty=behind_empty)
                if cuts:
                    return cuts
        return list(range(first + 1, end))

    def pieces(self, limit: int) -> list[tuple[int, int]]:
        """Ranges of lines, in order, that cover everything. Only a single line may be larger than ``limit``."""
        done: list[tuple[int, int]] = []
        waiting = [(0, len(self._lines), 0)] if self._lines else []
        while waiting:
            first, end, depth = waiting.pop()
            if end - first == 1 or self.size(first, end) <= limit:
                done.append((first, end))
                continue
            cuts = self._best_cuts(first, end) if depth < _MAX_DEPTH else list(range(first + 1, end))
            edges = [first, *cuts, end]
            waiting.extend((edges[i], edges[i + 1], depth + 1) for i in range(len(edges) - 2, -1, -1))
        return self._merged(done, limit)

    def _merged(self, pieces: Sequence[tuple[int, int]], limit: int) -> list[tuple[int, int]]:
        """Neighbours put together as long as they fit."""
        merged: list[tuple[int, int]] = []
        for first, end in pieces:
            if merged and self.size(merged[-1][0], end) <= limit:
                merged[-1] = (merged[-1][0], end)
            else:
                merged.append((first, end))
        return merged

    def before(self, first: int, budget: int) -> int:
        """The line to begin at, so that the lines before ``first`` are repeated as far as ``budget`` reaches."""
        return bisect_left(self._totals, self._totals[first] - budget, 0, first)
