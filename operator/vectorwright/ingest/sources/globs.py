"""Globs over paths of a repository.

A pattern is matched against the whole path from the repository's root:

- ``*`` and ``?`` stand for characters within one name, ``[abc]`` and ``[!abc]`` for one of a set;
- ``**`` as a whole part stands for any number of directories, none included: ``docs/**/*.md`` takes ``docs/a.md``,
  ``docs/**`` everything below ``docs``;
- a pattern without a slash is matched against the name in any directory, as in a ``.gitignore``: ``*.md`` takes
  ``a.md`` and ``docs/a.md``; ``/*.md`` takes ``a.md`` alone;
- a pattern whose last part has no wildcard takes a directory of that name with everything below it: ``docs``,
  ``src/vendor/``.

Matching takes time proportional to (parts of the path) x (parts of the pattern), whatever the pattern.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from vectorwright.errors import Terminal

_ANY = None
"""Stands for ``**``."""


def _compile(pattern: str) -> tuple[re.Pattern[str] | None, ...]:
    stripped = pattern.strip("/")
    parts = stripped.split("/")
    if "/" not in pattern.rstrip("/"):
        parts.insert(0, "**")
    if not any(char in parts[-1] for char in "*?["):
        parts.append("**")
        below_or_itself = True
    else:
        below_or_itself = False
    compiled: list[re.Pattern[str] | None] = []
    for part in parts:
        if part == "**":
            if not compiled or compiled[-1] is not _ANY:
                compiled.append(_ANY)
        else:
            # fnmatch makes `*` atomic, so no pattern can backtrack exponentially.
            compiled.append(re.compile(fnmatch.translate(part)))
    if compiled[-1] is _ANY and not below_or_itself:
        # `docs/**` is what lies below docs, not a file of that name.
        compiled.append(re.compile("(?s:.+)"))
    return tuple(compiled)


def _matches(pattern: Sequence[re.Pattern[str] | None], names: Sequence[str]) -> bool:
    """Greedy match of parts, going back to the last ``**`` only."""
    at = 0
    part = 0
    resume: tuple[int, int] | None = None
    while at < len(names):
        matcher = pattern[part] if part < len(pattern) else None
        if part < len(pattern) and matcher is _ANY:
            resume = (part, at)
            part += 1
        elif matcher is not None and matcher.match(names[at]):
            part += 1
            at += 1
        elif resume is not None:
            resume = (resume[0], resume[1] + 1)
            part, at = resume[0] + 1, resume[1]
        else:
            return False
    return all(matcher is _ANY for matcher in pattern[part:])


class Globs:
    """Chooses paths: those that an ``include`` pattern takes (all, without one) and no ``exclude`` pattern takes.

    Raises Terminal ``InvalidSpec`` for an empty pattern.
    """

    def __init__(self, include: Sequence[str] | None, exclude: Sequence[str] | None) -> None:
        for pattern in (*(include or ()), *(exclude or ())):
            if not pattern.strip("/"):
                raise Terminal(f"{pattern!r} is not a glob of paths: write one such as docs/**/*.md")
        self._include = None if include is None else [_compile(pattern) for pattern in include]
        self._exclude = [_compile(pattern) for pattern in exclude or ()]

    def takes(self, path: str) -> bool:
        """Whether the path is chosen."""
        names = path.split("/")
        if self._include is not None and not any(_matches(pattern, names) for pattern in self._include):
            return False
        return not any(_matches(pattern, names) for pattern in self._exclude)
