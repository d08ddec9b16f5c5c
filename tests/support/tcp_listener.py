"""What TCP servers of tests have in common: a thread that accepts, threads that work, and an end that waits for all."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

_RESET = struct.pack("ii", 1, 0)


def reset_on_close(connection: socket.socket) -> None:
    """Make the end of a connection an RST: no farewell, and what is on its way is lost."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def reset(connection: socket.socket) -> None:
    """End a connection by RST."""
    reset_on_close(connection)
    connection.close()


class TcpListener(ABC):
    """Listens on a free port of ``host`` from the end of its constructor until ``close()``.

    A subclass sets what it needs to serve before it calls this constructor: a client may come at once.
    """

    def __init__(self, name: str, host: str = "127.0.0.1") -> None:
        self._name = name
        self._listener = socket.create_server((host, 0))
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._working: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name=name)
        self._accepting.start()

    @abstractmethod
    def _accepted(self, client: socket.socket) -> None:
        """A client is here. Called by the thread that accepts: what takes time is for ``_in_thread``."""

    @abstractmethod
    def _end_all(self) -> None:
        """End the connections that there are, so that the threads that work on them come to their end."""

    def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        """Do ``work`` in a thread of its own, which ``close()`` waits for."""
        thread = threading.Thread(target=work, args=arguments, name=f"{self._name}-{work.__name__.strip('_')}")
        self._working.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._accepted(client)

    def close(self) -> None:
        """Stop listening, and end what goes through."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self._end_all()
        for thread in self._working:
            thread.join()
