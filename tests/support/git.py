"""A git daemon on loopback, and repositories whose every commit a test writes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.servers.git import GitRepository, GitServer, start_git_server

__all__ = ["GitRepository", "GitServer", "start_git_server"]


@pytest.fixture(scope="session")
def git_server() -> Iterator[GitServer]:
    """A git daemon for the whole session; each test makes repositories of its own."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-git-"))
    server = start_git_server(base, remove=base)
    yield server
    server.process.stop()
    shutil.rmtree(base)
