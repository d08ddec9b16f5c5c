"""The git source: contents.

- they come in one round trip a batch, through servers that filter and servers that do not
- sizes are bounded; files kept elsewhere are told; a server that goes down fails what is fetched then
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from deploy.servers.git import GitRepository, GitServer
from tests.support.git_http import GitHttp
from tests.support.git_source import contents_of, entries_of, opened
from tests.support.loopback_http import Request, Response
from tests.support.sources import fetched, listed

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.sources import git, git_process


@pytest.fixture
def repository(git_server: GitServer) -> GitRepository:
    made = git_server.repository()
    made.commit({"README.md": "# One", "src/a.py": "a = 1\n", "docs/guide.md": "guide"}, message="first")
    return made


class TestContents:
    async def test_are_fetched_in_one_round_trip(self, tmp_path: Path, repository: GitRepository) -> None:
        repository.commit({f"many/{n:03}": f"content {n}" for n in range(300)})
        with GitHttp(repository.path.parent) as server:
            async with opened(tmp_path, f"{server.origin}/{repository.path.name}") as source:
                await source.pin()
                entries = await listed(source)
                assert server.fetches() == 1
                found = await fetched(source, entries)
                assert server.fetches() == 2
                assert await fetched(source, entries[:3])
                assert server.fetches() == 2
        assert [item.data for item in found if item.entry.key.startswith("many")] == [
            f"content {n}".encode() for n in range(300)
        ]

    async def test_several_batches_keep_their_order(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git, "BATCH", 7)
        repository.commit({f"many/{n:03}": f"content {n % 3}" for n in range(30)})
        found = await contents_of(tmp_path, repository.url, include=["many"])
        assert list(found.items()) == [(f"many/{n:03}", f"content {n % 3}".encode()) for n in range(30)]

    async def test_a_server_that_does_not_filter(self, repository: GitRepository, tmp_path: Path) -> None:
        repository.git("config", "uploadpack.allowFilter", "false")
        repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
        assert (await contents_of(tmp_path, repository.url))["README.md"] == b"# One"

    async def test_a_server_that_hands_out_nothing_by_id(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
        monkeypatch.setitem(git_process._SETTINGS, "protocol.version", "0")
        found = await contents_of(tmp_path, repository.url)
        assert found == {"README.md": b"# One", "docs/guide.md": b"guide", "src/a.py": b"a = 1\n"}
        with_history = await entries_of(tmp_path, repository.url)
        assert all("commit" in entry.metadata for entry in with_history)

    async def test_a_shallow_server(self, repository: GitRepository, git_server: GitServer, tmp_path: Path) -> None:
        repository.commit({"b": "b"})
        repository.commit({"c": "c"})
        made = git_server.repository()
        shutil.rmtree(made.path)
        repository.git("clone", "--quiet", "--bare", "--depth=2", f"file://{repository.path}", str(made.path))
        found = {entry.key: entry.metadata.get("commit") for entry in await entries_of(tmp_path, made.url)}
        assert found["c"] == made.git("rev-parse", "HEAD")
        assert await contents_of(tmp_path, made.url)

    async def test_a_file_over_the_limit_is_refused_and_the_others_come(
        self, repository: GitRepository, tmp_path: Path
    ) -> None:
        repository.commit({"big": "x" * 1001, "fits": "x" * 1000})
        found = await contents_of(tmp_path, repository.url, limit=1000)
        assert found["big"] == "DocumentTooLarge"
        assert found["fits"] == b"x" * 1000

    async def test_a_file_that_is_huge_is_not_downloaded_to_its_end(
        self, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git, "BATCH_BYTES", 1 << 20)
        files: dict[str, str | bytes | None] = {f"small/{n}": f"{n}" for n in range(9)}
        repository.commit({**files, "huge": random.Random(1).randbytes(16 << 20)})
        async with opened(tmp_path, repository.url, limit=1000) as source:
            await source.pin()
            found = {item.entry.key: item for item in await fetched(source, await listed(source))}
        error = found["huge"].error
        assert isinstance(error, Terminal)
        assert error.reason == "DocumentTooLarge"
        assert "huge is larger than the 1000 bytes" in error.message
        assert all(found[name].data == name[6:].encode() for name in files)

    async def test_files_in_lfs_are_told(self, repository: GitRepository, tmp_path: Path) -> None:
        repository.commit({"big.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"})
        assert (await contents_of(tmp_path, repository.url))["big.bin"] == "ContentElsewhere"

    async def test_a_server_that_goes_down_fails_what_is_fetched_then_and_only_that(
        self, repository: GitRepository, tmp_path: Path
    ) -> None:
        down = False

        def fail(_: Request) -> Response | None:
            return Response(b"down", 503) if down else None

        with GitHttp(repository.path.parent, override=fail) as server:
            async with opened(tmp_path, f"{server.origin}/{repository.path.name}") as source:
                await source.pin()
                entries = await listed(source)
                down = True
                failed = await fetched(source, entries)
                assert all(isinstance(item.error, Retryable) for item in failed)
                down = False
                before = server.fetches()
                # One that is asked for again brings all that failed, in one round trip.
                again = [(await fetched(source, [entry]))[0].data for entry in entries]
                assert again == [b"# One", b"guide", b"a = 1\n"]
                assert server.fetches() == before + 1
