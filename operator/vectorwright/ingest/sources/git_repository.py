"""A local copy of a remote repository: all commits and trees, contents only where they are asked for.

Two repositories: ``store`` is what git fetches into; ``view`` reads the same objects but knows of no remote, so that
nothing git reads can make it fetch one object at a time.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from vectorwright.errors import NotFound, Retryable, Terminal

from .git_process import Git, GitFailed, OutOfBounds, disk_use
from .git_remote import SPEC, Remote, RemoteFinder, failure

T = TypeVar("T")

PINNED = "refs/vectorwright/pinned"
MAX_BYTES = 20 << 30
"""Bytes of history that are fetched at most: a server may send without end. The largest public histories, without the
files' contents, are a tenth of it."""

_REFS_SECONDS = 120.0
_LOCAL_SECONDS = 300.0
_COMMIT_ID = re.compile(r"[0-9a-f]{7,64}")
_FULL_IDS = (40, 64)
_FLAGS = ("--quiet", "--no-write-fetch-head", "--recurse-submodules=no", "--no-auto-maintenance", "--update-shallow")


def _packs(repository: Path) -> Path:
    return repository / "objects" / "pack"


class Clone:
    """The local copy, below ``work``. Network failures come out as Terminal or Retryable."""

    def __init__(self, git: Git, finder: RemoteFinder, work: Path, fetch_seconds: float) -> None:
        self._git = git
        self._finder = finder
        self._work = work
        self._fetch_seconds = fetch_seconds
        self._store = work / "store.git"
        self._snapshot = work / "snapshot.git"
        self._wanted = "HEAD"
        """What was asked for: the full name of a reference, or a commit's id."""
        self.view = str(work / "view.git")
        self._alternates = work / "view.git" / "objects" / "info" / "alternates"

    async def _remote(self, call: Callable[[Remote], Awaitable[T]]) -> T:
        """A call that talks to the remote, its failure translated."""
        try:
            return await call(await self._finder.find())
        except GitFailed as failed:
            raise failure(failed.stderr, self._finder.shown, failed.code) from None

    async def _references(self, ref: str | None) -> dict[str, str]:
        """What the remote has under the names that ``ref`` may mean: name → id."""

        async def ask(remote: Remote) -> bytes:
            wanted = ["HEAD"] if ref is None else [f"refs/heads/{ref}", f"refs/tags/{ref}", ref]
            return await self._git.run(
                "ls-remote",
                "--quiet",
                "--",
                remote.url,
                *wanted,
                seconds=_REFS_SECONDS,
                config=remote.config,
                environment=remote.environment,
            )

        try:
            lines = (await self._remote(ask)).decode("utf-8", "replace").splitlines()
        except OutOfBounds:
            raise Terminal(f"{self._finder.shown} lists references without end", reason="RepositoryTooLarge") from None
        return {name: oid for oid, _, name in (line.partition("\t") for line in lines)}

    async def pin(self, ref: str | None) -> str:
        """Fetch the history of a branch, tag or commit, and return the commit's id.

        A branch wins over a tag of the same name, both over the beginning of a commit's id. Raises Terminal
        ``RefNotFound``, ``RepositoryTooLarge`` and as :meth:`RemoteFinder.find` does, or Retryable.
        """
        references = await self._references(ref)
        if not self._alternates.exists():
            await self._create(sha256=any(len(oid) == _FULL_IDS[1] for oid in references.values()))
        if ref is None:
            if "HEAD" not in references:
                raise self._no_ref("it has no commits on its default branch")
            return await self._pinned("HEAD")
        named = next((name for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref) if name in references), None)
        if named is not None:
            return await self._pinned(named)
        if not _COMMIT_ID.fullmatch(ref):
            raise self._no_ref(f"it has no branch or tag {ref!r}")
        return await self._by_id(ref)

    def _no_ref(self, why: str) -> Terminal:
        return Terminal(f"{self._finder.shown}: {why}; check {SPEC}.ref", reason="RefNotFound")

    async def _pinned(self, name: str) -> str:
        try:
            await self._fetch_history([f"+{name}:{PINNED}"])
        except NotFound:
            raise self._no_ref(f"it has no {name!r} any more") from None
        self._wanted = name
        found = await self._resolve(PINNED)
        if found is None:
            raise self._no_ref(f"{name!r} is not a commit")
        return found

    async def _by_id(self, ref: str) -> str:
        self._wanted = ref
        if len(ref) in _FULL_IDS:
            # Not every server hands out commits by their id; then what its branches and tags lead to is searched.
            with suppress(NotFound):
                await self._fetch_history([f"+{ref}:{PINNED}"])
                found = await self._resolve(PINNED)
                if found is not None:
                    return found
        heads = ["+refs/heads/*:refs/vectorwright/heads/*", "+refs/tags/*:refs/vectorwright/tags/*"]
        await self._fetch_history(heads)
        found = await self._resolve(ref)
        if found is None:
            raise self._no_ref(f"no branch or tag leads to a commit {ref!r}, or several begin like it")
        return found

    async def _resolve(self, name: str) -> str | None:
        await self._renew_view()
        at = self._store if name == PINNED else Path(self.view)
        try:
            output = await self._git.run(
                f"--git-dir={at}", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", seconds=_LOCAL_SECONDS
            )
        except GitFailed:
            return None
        return output.decode("ascii").strip()

    async def _create(self, *, sha256: bool) -> None:
        form = "--object-format=sha256" if sha256 else "--object-format=sha1"
        for path in (self._store, Path(self.view), self._snapshot):
            await self._git.run("init", "--quiet", "--bare", form, "--template=", str(path), seconds=_LOCAL_SECONDS)
        self._alternates.parent.mkdir(exist_ok=True)
        self._alternates.write_text(f"{self._store / 'objects'}\n{self._snapshot / 'objects'}\n", encoding="utf-8")

    async def _renew_view(self) -> None:
        """A shallow remote's history ends in the clone where it ends there; the view must know."""
        shallow = self._store / "shallow"
        if shallow.exists():
            shutil.copyfile(shallow, Path(self.view) / "shallow")

    async def _fetch(
        self, into: Path, arguments: Sequence[str], most_bytes: int, stdin: bytes = b"", config: Sequence[str] = ()
    ) -> None:
        packs = [_packs(into)]
        before = disk_use(packs)

        async def fetch(remote: Remote) -> bytes:
            settings = [
                *remote.config,
                ("remote.origin.url", remote.url),
                *((name, value) for name, _, value in (item.partition("=") for item in config)),
            ]
            return await self._git.run(
                f"--git-dir={into}",
                "fetch",
                *_FLAGS,
                *arguments,
                seconds=self._fetch_seconds,
                stdin=stdin,
                config=settings,
                environment=remote.environment,
                within=lambda: disk_use(packs) - before <= most_bytes,
            )

        await self._remote(fetch)

    async def _fetch_history(self, refspecs: list[str]) -> None:
        await self._bounded(self._store, ["--no-tags", "--filter=blob:none", "origin", *refspecs])

    async def _bounded(self, into: Path, arguments: Sequence[str]) -> None:
        try:
            await self._fetch(into, arguments, MAX_BYTES)
            within = disk_use([_packs(into)]) <= MAX_BYTES
        except OutOfBounds:
            within = False
        if not within:
            raise Terminal(f"{self._finder.shown} sent more than {MAX_BYTES >> 30} GiB", reason="RepositoryTooLarge")

    async def fetch_blobs(self, oids: Sequence[str], most_bytes: int) -> None:
        """Fetch contents, in one round trip.

        Raises :class:`OutOfBounds` when they are more than ``most_bytes`` on the wire, NotFound when the server hands
        out nothing by its id, Terminal or Retryable otherwise.
        """
        stdin = "".join(f"{oid}\n" for oid in oids).encode()
        arguments = ["--no-tags", "--filter=blob:none", "--stdin", "origin"]
        await self._fetch(self._store, arguments, most_bytes, stdin, ["fetch.negotiationAlgorithm=noop"])

    async def fetch_snapshot(self) -> None:
        """Fetch all contents at the pinned commit: for servers that hand out nothing by its id."""
        try:
            arguments = ["--no-tags", "--depth=1", "origin", f"+{self._wanted}:{PINNED}"]
            await self._bounded(self._snapshot, arguments)
        except NotFound:
            raise Retryable(
                f"{self._finder.shown} hands out neither contents nor {self._wanted!r} by themselves: name a branch or "
                f"tag in {SPEC}.ref",
                reason="Unavailable",
            ) from None
