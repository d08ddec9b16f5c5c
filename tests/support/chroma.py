"""Real Chroma servers on loopback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploy.servers.chroma import ChromaServer, start_chroma_server

__all__ = ["ChromaServer", "StartChroma", "start_chroma_server"]

StartChroma = Callable[..., ChromaServer]


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[ChromaServer]:
    """One server for the whole session: use collection names of your own, and do not stop it (see ``start_chroma``)."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-chroma-"))
    server = start_chroma_server(base / "data", remove=base)
    yield server
    server.stop()
    shutil.rmtree(base)


@pytest.fixture
def start_chroma(tmp_path: Path) -> Iterator[StartChroma]:
    """``start_chroma(directory=None, port=None)`` starts a server of this test's own, stopped after it."""
    servers: list[ChromaServer] = []

    def begin(directory: Path | None = None, port: int | None = None) -> ChromaServer:
        server = start_chroma_server(directory or tmp_path / f"chroma-{len(servers)}", port)
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.stop()
