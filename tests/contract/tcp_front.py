"""A TCP listener that passes bytes on both ways, and can reset every connection that goes through it."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.support.tcp_listener import TcpListener, reset, reset_on_close


class TcpFront(TcpListener):
    """Listens on a free port of ``host`` in front of ``target`` until ``close()``."""

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._guard = threading.Lock()
        super().__init__("tcp-front", host)

    def _accepted(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, 10)
        except OSError:
            reset(client)
            return
        server.settimeout(None)
        with self._guard:
            self._pairs.append((client, server))
        for one, other in ((client, server), (server, client)):
            self._in_thread(_copy, one, other)

    def reset_all(self) -> None:
        """Reset every connection to a client; the server sees an ordinary end."""
        with self._guard:
            pairs, self._pairs = self._pairs, []
        for client, server in pairs:
            reset_on_close(client)
            # A thread that reads from a socket keeps it open after close(): this wakes it first.
            for one in (server, client):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RD)
            client.close()
            server.close()

    def _end_all(self) -> None:
        self.reset_all()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
