"""The git source when things go wrong: errors tell what to do, and nothing stays behind."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from deploy.servers.git import GitServer
from tests.support.git_http import GitHttp
from tests.support.git_source import opened, pin_error, processes_in
from tests.support.loopback_http import Response
from tests.support.sources import serving

from vectorwright.errors import Retryable, Terminal
from vectorwright.ingest.sources import git_repository
from vectorwright.ingest.sources.git_process import Git
from vectorwright.ingest.sources.git_remote import failure


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Take whatever is sent and answer nothing."""
    await reader.read()


class TestFailures:
    async def test_a_repository_that_does_not_exist(self, git_server: GitServer, tmp_path: Path) -> None:
        error = await pin_error(tmp_path, f"{git_server.url}/nothing.git")
        assert (type(error), error.reason) == (Terminal, "RepositoryNotFound")
        assert f"{git_server.url}/nothing.git" in error.message

    @pytest.mark.parametrize(
        ("answer", "kind", "reason"),
        [
            (Response(b"x", 404), Terminal, "RepositoryNotFound"),
            (Response(b"<html>log in</html>", 200, {"Content-Type": "text/html"}), Terminal, "RepositoryNotFound"),
            (Response(b"", 302, {"Location": "/login?next=x"}), Terminal, "RepositoryNotFound"),
            (Response(b"", 302, {"Location": "file:///etc"}), Terminal, "RepositoryNotFound"),
            (Response(b"", 403), Terminal, "AccessDenied"),
            (Response(b"", 500), Retryable, "Unavailable"),
            (Response(b"", 429, {"Retry-After": "9"}), Retryable, "Throttled"),
            (Response(b"", cut_after=0), Retryable, "Unreachable"),
        ],
    )
    async def test_what_is_no_repository(self, answer: Response, kind: type, reason: str, tmp_path: Path) -> None:
        with GitHttp(tmp_path, override=lambda _: answer) as server:
            error = await pin_error(tmp_path, f"{server.origin}/r.git")
        assert (type(error), error.reason) == (kind, reason)

    @pytest.mark.parametrize("scheme", ["git", "http"])
    async def test_a_server_that_is_not_there(self, scheme: str, tmp_path: Path) -> None:
        error = await pin_error(tmp_path, f"{scheme}://127.0.0.1:1/r.git")
        assert (type(error), error.reason) == (Retryable, "Unreachable")

    @pytest.mark.parametrize(
        ("stderr", "kind", "reason"),
        [
            ("fatal: Authentication failed for 'https://x'", Terminal, "AccessDenied"),
            ("git@x: Permission denied (publickey).", Terminal, "AccessDenied"),
            ("ERROR: Repository not found.", Terminal, "RepositoryNotFound"),
            ("remote: not found\nfatal: early EOF", Retryable, "Unreachable"),
            ("fatal: write error: No space left on device", Retryable, "DiskFull"),
            ("anything else", Retryable, "Unreachable"),
        ],
    )
    def test_what_git_says_is_understood_and_not_told(self, stderr: str, kind: type, reason: str) -> None:
        error = failure(stderr, "https://x.example/r", 128)
        assert (type(error), error.reason) == (kind, reason)
        assert stderr not in error.message

    async def test_a_history_without_end_is_given_up(
        self, git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = git_server.repository()
        repository.git("config", "uploadpack.allowFilter", "false")
        repository.commit({"huge": random.Random(1).randbytes(4 << 20)})
        monkeypatch.setattr(git_repository, "MAX_BYTES", 1 << 20)
        error = await pin_error(tmp_path, repository.url)
        assert (type(error), error.reason) == (Terminal, "RepositoryTooLarge")

    async def test_a_server_that_hangs_is_given_up_and_leaves_no_process(self, tmp_path: Path) -> None:
        async with serving(hang) as port:
            with pytest.raises(Retryable) as failed:
                await Git(tmp_path).run(
                    "ls-remote",
                    "--",
                    f"git://127.0.0.1:{port}/r",
                    seconds=0.5,
                    config=[("protocol.git.allow", "always")],
                )
        assert failed.value.reason == "Timeout"
        assert processes_in(tmp_path) == []

    async def test_a_run_that_is_cancelled_leaves_no_process(self, tmp_path: Path) -> None:
        async with serving(hang) as port:
            url = f"git://127.0.0.1:{port}/r"
            async with opened(tmp_path, url) as source:
                pinning = asyncio.create_task(source.pin())
                await asyncio.sleep(0.5)
                assert processes_in(tmp_path)
                pinning.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await pinning
                assert processes_in(tmp_path) == []

    async def test_without_git_the_job_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        error = await pin_error(tmp_path, "git://127.0.0.1/r")
        assert (type(error), error.reason) == (Terminal, "GitMissing")
