"""An end to waiting for a server that is silent.

A task that is cancelled while it waits makes the driver ask the server to cancel the statement and wait for that, up to
ten seconds more, which a server that is gone never answers. A connection that is shut down ends the wait at once, and
the server, where it lives, sees it (``client_connection_check_interval``) and ends the statement.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg


@contextmanager
def deadline(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Shut ``connection`` down after so many seconds; what then fails in here is TimeoutError."""
    passed = False

    def end() -> None:
        nonlocal passed
        passed = True
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as held:
            held.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_later(max(0.0, seconds), end)
    try:
        yield
    except psycopg.Error:
        if passed:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
