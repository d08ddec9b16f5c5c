"""A git daemon on loopback, and repositories whose commits are written without a checkout."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from deploy.devcluster.processes import ManagedProcess, on_free_port, wait_for

_DEFAULT_DATE = datetime(2024, 1, 1, 12, tzinfo=UTC)


def _environment() -> dict[str, str]:
    """Git with none of the user's settings."""
    return {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "HOME": os.devnull}


class GitRepository:
    """A bare repository that the daemon serves at ``url``."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", ".")
        # As the large hosts allow: clones without contents, and any commit by its id.
        self.git("config", "uploadpack.allowFilter", "true")
        self.git("config", "uploadpack.allowAnySHA1InWant", "true")

    def git(self, *arguments: str, input: bytes = b"") -> str:  # noqa: A002
        """Run git in the repository and return its stdout, stripped."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=_environment(), input=input, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace").strip()

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        *,
        message: str = "A change",
        author: str = "Ada <ada@example.org>",
        date: datetime = _DEFAULT_DATE,
        branch: str = "main",
    ) -> str:
        """Commit ``files`` on top of ``branch`` (None deletes one) and return the commit's id.

        Author and committer date are both ``date``; a branch that does not exist begins without history.
        """
        stamp = f"{int(date.timestamp())} {date.strftime('%z') or '+0000'}"
        ref = f"refs/heads/{branch}"
        exists = bool(self.git("for-each-ref", ref))
        stream = [f"commit {ref}\n".encode()]
        stream += [f"{role} {author} {stamp}\n".encode() for role in ("author", "committer")]
        stream.append(_data(message.encode()))
        if exists:
            stream.append(f"from {ref}^0\n".encode())
        for name, content in files.items():
            if content is None:
                stream.append(f"D {name}\n".encode())
            else:
                body = content.encode() if isinstance(content, str) else content
                stream += [f"M 100644 inline {name}\n".encode(), _data(body)]
        self.git("fast-import", "--quiet", "--date-format=raw", input=b"".join(stream))
        return self.git("rev-parse", ref)

    def tag(self, name: str, commit: str = "main") -> None:
        self.git("tag", "--force", name, commit)


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"


class GitServer:
    """``repository()`` makes a repository; ``url`` is the address above them all."""

    def __init__(self, base: Path, port: int, process: ManagedProcess) -> None:
        self._base = base
        self.host = "127.0.0.1"
        self.port = port
        self.process = process
        self.url = f"git://{self.host}:{port}"

    def repository(self, name: str | None = None) -> GitRepository:
        """An empty repository, with a random name unless one is given."""
        name = name or f"repo-{secrets.token_hex(4)}"
        return GitRepository(self._base / f"{name}.git", f"{self.url}/{name}.git")


def start_git_server(base: Path, *, remove: Path | None = None) -> GitServer:
    """A daemon that serves every repository under ``base``, read-only, on a free port.

    ``remove`` is a directory to delete should this process die without stopping the daemon.
    """

    def begin(port: int) -> GitServer:
        command = ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={base}", "--export-all"]
        process = ManagedProcess.start(command, log=base / "daemon.log", env=_environment(), grace=2, remove=remove)
        try:
            wait_for(lambda: _listens(port), what="git daemon to listen", timeout=20, process=process)
        except BaseException:
            process.stop()
            raise
        return GitServer(base, port, process)

    return on_free_port(begin)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
