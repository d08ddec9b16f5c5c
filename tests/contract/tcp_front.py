"""A TCP listener that passes bytes on both ways, and can reset every connection that goes through it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_RESET = struct.pack("ii", 1, 0)


def reset(connection: socket.socket) -> None:
    """End a connection by RST: no farewell, and what is on its way is lost."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


class TcpFront:
    """Listens on a free port of ``host`` in front of ``target`` until ``close()``."""

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._guard = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, name="tcp-front")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(self._target, 10)
            except OSError:
                reset(client)
                continue
            server.settimeout(None)
            with self._guard:
                self._pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                thread = threading.Thread(target=_copy, args=(one, other), name="tcp-front-copy")
                self._threads.append(thread)
                thread.start()

    def reset_all(self) -> None:
        """Reset every connection to a client; the server sees an ordinary end."""
        with self._guard:
            pairs, self._pairs = self._pairs, []
        for client, server in pairs:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # A thread that reads from a socket keeps it open after close(): this wakes it first.
            for one in (server, client):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RD)
            reset(client)
            server.close()

    def close(self) -> None:
        """Stop listening, and end what goes through."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.reset_all()
        for thread in self._threads[1:]:
            thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
