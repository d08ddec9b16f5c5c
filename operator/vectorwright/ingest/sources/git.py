"""Files of a git repository at one commit, with what its history knows of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from vectorwright.api.v1alpha1.ingestion_source import GitSource
from vectorwright.errors import NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.ingest.contracts import Entry, Fetched
from vectorwright.ingest.network import AddressPolicy
from vectorwright.ingest.parsers.limits import too_large
from vectorwright.ingest.runspec import RunSpec
from vectorwright.stores.base import Metadata

from .classify import class_of, language_of
from .git_history import Touch, last_touches, tokens
from .git_objects import Objects
from .git_process import Git, OutOfBounds, check_version
from .git_remote import RemoteFinder
from .git_repository import Clone
from .globs import Globs

BATCH = 512
"""Files whose contents are fetched in one round trip."""

BATCH_BYTES = 256 << 20
"""Bytes on the wire after which a batch is given up and fetched in halves: sizes are not known beforehand, and one file
may be larger than the disk. A batch of one may have as many as a document may."""

_FETCH_SECONDS = 3600.0
_HISTORY_SECONDS = 1800.0
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_TOO_LARGE = Terminal("the file is too large", reason="DocumentTooLarge")
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, which is the last that RFC 3339 can write."""


def _key(path: bytes, seen: set[str]) -> str:
    """A path as text. What is not UTF-8 is escaped (``caf\\xe9``), and told apart where a file has that very name."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        key = path.decode("utf-8", "backslashreplace")
        return f"{key}//{sha256(path).hexdigest()[:12]}" if key in seen else key


def _is_plain(path: bytes) -> bool:
    """Whether a path is one that git would ever check out."""
    return not any(part in {b"", b".", b"..", b".git"} for part in path.split(b"/"))


class GitRepository:
    """The source of a run over a git repository.

    The key is the path, the token the blob's id. Metadata: ``path``, ``checksum``, ``commit`` and ``author_date`` of
    the last commit that touched the file, ``language``, ``class``, ``revision`` (the pinned commit), ``repository``;
    ``size`` comes with the content. Symbolic links and submodules are left out.
    """

    def __init__(self, spec: RunSpec, source: GitSource, directory: Path, policy: AddressPolicy, limit: int) -> None:
        self._ref = source.ref
        self._globs = Globs(source.include, source.exclude)
        self._limit = limit
        # Beside the run's other files, where they may be written: whoever cleans up after a killed worker finds it.
        beside = directory if os.access(directory, os.W_OK) else None
        self._work = Path(tempfile.mkdtemp(prefix="git-", dir=beside))
        try:
            self._finder = RemoteFinder(source, directory, self._work, policy)
        except Terminal:
            shutil.rmtree(self._work)
            raise
        self._git = Git(self._work)
        self._clone = Clone(self._git, self._finder, self._work, min(_FETCH_SECONDS, spec.deadline_seconds))
        self._objects = Objects(self._git, self._clone.view)
        self._revision = ""
        self._by_id = True
        """Whether the server hands out contents by their id."""
        self._failed: dict[str, None] = {}
        """Blobs that could not be fetched because of the server or the network. Whoever asks for one of them again
        is likely to ask for all: they are fetched in one round trip again."""

    async def pin(self) -> str:
        """Fetch the history and return the commit's id.

        Raises Terminal ``RepositoryNotFound``, ``RefNotFound``, ``AccessDenied``, ``AddressRefused``, ``HostNotFound``,
        ``TLSVerificationFailed``; Retryable when the server or the network is down.
        """
        await check_version(self._git)
        self._revision = await self._clone.pin(self._ref)
        return self._revision

    async def entries(self) -> AsyncIterator[Entry]:
        """The chosen files, sorted by path."""
        files = await self._list()
        by_path = {path: oid for path, oid, _ in files}
        touches = await last_touches(
            self._git, self._clone.view, self._revision, by_path, self._objects, _HISTORY_SECONDS
        )
        for path, oid, key in sorted(files, key=lambda item: item[2]):
            yield Entry(key=key, token=oid, metadata=self._metadata(key, oid, touches.get(path)))

    async def _list(self) -> list[tuple[bytes, str, str]]:
        """(path, blob id, key) of the chosen regular files."""
        files: list[tuple[bytes, str, str]] = []
        seen: set[str] = set()
        odd: list[tuple[bytes, str]] = []
        async with self._git.start(
            f"--git-dir={self._clone.view}", "ls-tree", "-r", "-z", "--full-tree", self._revision
        ) as running:
            running.stdin.close()
            async for token in tokens(running.stdout):
                head, _, path = token.partition(b"\t")
                mode, kind, oid = head.split(b" ")
                if kind != b"blob" or not mode.startswith(b"100") or not _is_plain(path):
                    continue
                try:
                    key = path.decode("utf-8")
                except UnicodeDecodeError:
                    odd.append((path, oid.decode("ascii")))
                    continue
                if self._globs.takes(key):
                    seen.add(key)
                    files.append((path, oid.decode("ascii"), key))
            code = await running.process.wait()
        if code != 0:
            raise Retryable(f"git ls-tree ended with status {code}", reason="GitFailed")
        for path, oid_text in odd:
            key = _key(path, seen)
            if self._globs.takes(key.partition("//")[0]):
                seen.add(key)
                files.append((path, oid_text, key))
        return files

    def _metadata(self, path: str, oid: str, touch: Touch | None) -> Metadata:
        metadata: Metadata = {
            "path": path,
            "checksum": f"git:{oid}",
            "class": class_of(path).value,
            "revision": self._revision,
            "repository": self._finder.shown,
        }
        language = language_of(path)
        if language is not None:
            metadata["language"] = language
        if touch is not None:
            metadata["commit"] = touch.commit
            if 0 <= touch.author_time <= _LAST_SECOND:
                date = datetime.fromtimestamp(touch.author_time, UTC)
                metadata["author_date"] = date.strftime("%Y-%m-%dT%H:%M:%SZ")
        return metadata

    async def fetch(self, entries: Sequence[Entry]) -> AsyncIterator[Fetched]:
        """The files' contents, fetched in batches, the next batch while the one before is used."""
        batches = [entries[at : at + BATCH] for at in range(0, len(entries), BATCH)]
        upcoming: asyncio.Task[Mapping[str, VectorwrightError]] | None = None
        try:
            for number, batch in enumerate(batches):
                problems = await (upcoming or asyncio.create_task(self._prefetch(batch)))
                upcoming = None
                if number + 1 < len(batches):
                    upcoming = asyncio.create_task(self._prefetch(batches[number + 1]))
                for entry in batch:
                    yield await self._read(entry, problems)
        finally:
            if upcoming is not None:
                upcoming.cancel()
                await asyncio.gather(upcoming, return_exceptions=True)

    async def _prefetch(self, batch: Sequence[Entry]) -> Mapping[str, VectorwrightError]:
        """Fetch what is not here yet. Returns why, for each blob that could not be had."""
        oids = list(dict.fromkeys(entry.token for entry in batch if entry.token is not None))
        try:
            missing = [oid for oid in oids if await self._objects.size(oid) is None]
            if not self._failed.keys().isdisjoint(missing):
                missing = list(dict.fromkeys([*missing, *self._failed]))
            self._failed.clear()
            return await self._fetch_missing(missing)
        except Retryable as error:
            return dict.fromkeys(oids, error)

    async def _fetch_missing(self, oids: list[str]) -> dict[str, VectorwrightError]:
        problems: dict[str, VectorwrightError] = {}
        waiting = [oids] if oids else []
        while waiting:
            part = waiting.pop()
            try:
                await self._fetch_part(part)
            except OutOfBounds:
                # Halves: what is too large is found, and the others are fetched.
                half = len(part) // 2
                if half:
                    waiting += [part[half:], part[:half]]
                else:
                    problems[part[0]] = _TOO_LARGE
            except Terminal as error:
                problems.update(dict.fromkeys(part, error))
            except Retryable as error:
                problems.update(dict.fromkeys(part, error))
                self._failed.update(dict.fromkeys(part))
        return problems

    async def _fetch_part(self, oids: Sequence[str]) -> None:
        if self._by_id:
            try:
                # Contents travel packed; what a pack itself takes is far less than a kilobyte a file.
                most = BATCH_BYTES if len(oids) > 1 else 1024
                await self._clone.fetch_blobs(oids, self._limit + most)
            except NotFound:
                self._by_id = False
            else:
                return
        await self._clone.fetch_snapshot()
        await self._objects.close()

    async def _read(self, entry: Entry, problems: Mapping[str, VectorwrightError]) -> Fetched:
        oid = entry.token or ""
        oversized = Terminal(too_large(entry.key, self._limit), reason="DocumentTooLarge")
        problem = problems.get(oid)
        if problem is not None:
            return Fetched(entry, error=oversized if problem is _TOO_LARGE else problem)
        try:
            size = await self._objects.size(oid)
            if size is not None and size > self._limit:
                return Fetched(entry, error=oversized)
            data = await self._objects.blob(oid) if size is not None else None
        except Retryable as error:
            return Fetched(entry, error=error)
        if data is None:
            gone = Retryable(f"{self._finder.shown} did not send {entry.key}", reason="Unavailable")
            return Fetched(entry, error=gone)
        known = replace(entry, size=len(data), metadata={**entry.metadata, "size": len(data)})
        if data.startswith(_LFS):
            missing = Terminal(
                f"{entry.key} is kept in Git LFS, and the repository holds only its address: leave it out with "
                "spec.source.git.exclude",
                reason="ContentElsewhere",
            )
            return Fetched(known, error=missing)
        return Fetched(known, data=data)

    async def close(self) -> None:
        """End git and delete the local copy."""
        await self._objects.close()
        await asyncio.to_thread(shutil.rmtree, self._work, ignore_errors=True)
