"""A port that refuses connections, for as long as a test lasts."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """Nobody listens there, and nobody can: it is bound. Takes the place of pytest-asyncio's, which lets go of it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port
