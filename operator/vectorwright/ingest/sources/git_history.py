"""The last commit that touched each file, from one walk over the history.

The answer is git's own (``git log -1 -- PATH``): a file's history follows, at a merge, the first parent that has the
same content, and the commit sought is the first one whose content differs from all its parents. So every path is at
exactly one commit of the walk at any time. The walk lists each commit with the names that changed against its first
parent; only for paths that changed there, other parents of a merge are looked at. It stops when every path is settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from vectorwright.errors import Retryable

from .git_objects import Objects
from .git_process import Git, Running

_READ = 1 << 18


@dataclass(frozen=True, slots=True)
class Touch:
    """The last commit that touched a file."""

    commit: str
    author_time: int
    """Seconds since 1970, as the author's clock had it."""


@dataclass(frozen=True, slots=True)
class _Commit:
    oid: str
    parents: list[str]
    author_time: int
    changed: list[bytes]
    """Against the first parent."""


async def tokens(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What stands between NULs."""
    rest = b""
    while data := await stream.read(_READ):
        *whole, rest = (rest + data).split(b"\0")
        for token in whole:
            yield token


async def _commits(running: Running) -> AsyncIterator[_Commit]:
    """The log: ``\\x01<id> <time> <parents>``, then for each change a status letter and a path."""
    current: _Commit | None = None
    is_path = False
    async for token in tokens(running.stdout):
        if is_path:
            if current is not None:
                current.changed.append(token)
            is_path = False
        elif token.startswith(b"\x01"):
            if current is not None:
                yield current
            oid, time, *parents = token[1:].decode("ascii").split(" ")
            current = _Commit(oid, [parent for parent in parents if parent], int(time), [])
        else:
            is_path = True
    if current is not None:
        yield current


class _Walk:
    """Where every path stands, and what was found."""

    def __init__(self, tip: str, blobs: Mapping[bytes, str], objects: Objects) -> None:
        self._blobs = blobs
        self._objects = objects
        self._at: dict[str, set[bytes]] = {tip: set(blobs)} if blobs else {}
        self.found: dict[bytes, Touch] = {}

    @property
    def done(self) -> bool:
        """Whether every path is settled."""
        return not self._at

    def _settle(self, paths: Iterable[bytes], commit: _Commit) -> None:
        touch = Touch(commit.oid, commit.author_time)
        for path in paths:
            self.found[path] = touch

    def _move(self, paths: set[bytes], parent: str) -> None:
        if not paths:
            return
        there = self._at.get(parent)
        if there is None:
            self._at[parent] = paths
        elif len(there) >= len(paths):
            there |= paths
        else:
            paths |= there
            self._at[parent] = paths

    async def visit(self, commit: _Commit) -> None:
        """Settle the paths that stand at a commit, or move them to its parents."""
        paths = self._at.pop(commit.oid, None)
        if paths is None:
            return
        if not commit.parents:
            self._settle(paths, commit)
            return
        touched = {path for path in commit.changed if path in paths}
        paths -= touched
        self._move(paths, commit.parents[0])
        for parent in commit.parents[1:]:
            if not touched:
                return
            there = await self._objects.blobs_at(parent, touched)
            same = {path for path, oid in there.items() if oid == self._blobs[path]}
            touched -= same
            self._move(same, parent)
        self._settle(touched, commit)


async def last_touches(
    git: Git, repository: str, tip: str, blobs: Mapping[bytes, str], objects: Objects, seconds: float
) -> dict[bytes, Touch]:
    """The last commit of each path at ``tip``; ``blobs`` are the files' paths and ids there.

    Paths whose history ends in a shallow clone's missing commits are left out. Raises Retryable when git fails or takes
    longer than ``seconds``.
    """
    walk = _Walk(tip, blobs, objects)
    arguments = (
        f"--git-dir={repository}",
        "log",
        "--topo-order",
        "--diff-merges=first-parent",
        "--name-status",
        "--no-renames",
        "--no-notes",
        "--no-color",
        "-z",
        "--format=tformat:%x01%H %at %P",
        tip,
        "--",
    )
    try:
        async with asyncio.timeout(seconds), git.start(*arguments) as running:
            running.stdin.close()
            async for commit in _commits(running):
                await walk.visit(commit)
                if walk.done:
                    return walk.found
            code = await running.process.wait()
    except TimeoutError:
        raise Retryable(f"reading the history took more than {seconds:.0f} s", reason="Timeout") from None
    if code != 0:
        raise Retryable(f"git log ended with status {code}", reason="GitFailed")
    return walk.found
