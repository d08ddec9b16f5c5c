"""Reads objects of a repository through one ``git cat-file`` process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import AsyncExitStack

from vectorwright.errors import Retryable

from .git_process import Git, Running

_HEADER = re.compile(rb"([0-9a-f]{40,64}) ([a-z]+) (\d+)\n")
_ANSWER_TIMEOUT = 120.0
"""Seconds for one object from the local disk."""


class Objects:
    """The objects in a repository. Nothing is fetched for it: what is not there is missing."""

    def __init__(self, git: Git, repository: str) -> None:
        self._git = git
        self._repository = repository
        self._open = AsyncExitStack()
        self._running: Running | None = None
        self._turn = asyncio.Lock()

    async def _ask(self, command: str, name: bytes) -> tuple[str, int] | None:
        """Send a command and read the head of its answer: (type, size), or None where the object is missing."""
        if self._running is None:
            self._running = await self._open.enter_async_context(
                self._git.start(f"--git-dir={self._repository}", "cat-file", "--batch-command", "-z")
            )
        running = self._running
        running.stdin.write(command.encode() + b" " + name + b"\0")
        await running.stdin.drain()
        line = await running.stdout.readline()
        head = _HEADER.fullmatch(line)
        if head is not None:
            return head[2].decode(), int(head[3])
        # `<name> missing`, and a name may hold line ends.
        expected = name + b" missing\n"
        if not expected.startswith(line):
            raise asyncio.IncompleteReadError(line, None)
        await running.stdout.readexactly(len(expected) - len(line))
        return None

    async def _guarded(self, command: str, name: bytes, kind: str | None) -> tuple[str, int, bytes] | None:
        """One exchange. A process that fails in the middle of one is of no more use, and is replaced."""
        async with self._turn:
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    head = await self._ask(command, name)
                    if head is None:
                        return None
                    body = b""
                    if command == "contents" and self._running is not None:
                        body = await self._running.stdout.readexactly(head[1])
                        await self._running.stdout.readexactly(1)
            except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, ValueError):
                await self._stop()
                raise Retryable("git cat-file failed on an object", reason="GitFailed") from None
            except asyncio.CancelledError:
                await self._stop()
                raise
        return (*head, body) if kind in {None, head[0]} else None

    async def size(self, oid: str) -> int | None:
        """Bytes of a blob, None where it is not there."""
        found = await self._guarded("info", oid.encode(), "blob")
        return found[1] if found else None

    async def blob(self, oid: str) -> bytes | None:
        """Content of a blob, None where it is not there."""
        found = await self._guarded("contents", oid.encode(), "blob")
        return found[2] if found else None

    async def blobs_at(self, commit: str, paths: Iterable[bytes]) -> dict[bytes, str]:
        """Ids of the files at some paths of a commit. Paths that are no files there are left out."""
        by_directory: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for path in paths:
            directory, _, name = path.rpartition(b"/")
            by_directory.setdefault(directory, []).append((name, path))
        found: dict[bytes, str] = {}
        for directory, wanted in by_directory.items():
            tree = await self._guarded("contents", commit.encode() + b":" + directory, "tree")
            if tree is not None:
                files = _files(tree[2], len(commit) // 2)
                found.update((path, files[name]) for name, path in wanted if name in files)
        return found

    async def _stop(self) -> None:
        self._running = None
        await self._open.aclose()

    async def close(self) -> None:
        """End the process. It is started again when it is needed."""
        async with self._turn:
            await self._stop()


def _files(tree: bytes, oid_bytes: int) -> dict[bytes, str]:
    """Regular files of a tree object: entries of ``<mode> <name>\\0<id>``."""
    files: dict[bytes, str] = {}
    at = 0
    while at < len(tree):
        end = tree.index(b"\0", at)
        mode, _, name = tree[at:end].partition(b" ")
        at = end + 1 + oid_bytes
        if mode.startswith(b"100"):
            files[name] = tree[end + 1 : at].hex()
    return files
