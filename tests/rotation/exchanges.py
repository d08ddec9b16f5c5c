"""A listener before any server that counts exchanges, and loses the answer of one of them: what a kill leaves behind.

An exchange begins when a client sends something after the server had the word, whatever protocol it is: an HTTP
request, a statement, a step of a login. The server gets what was sent and does it; nobody hears of it, and nothing gets
through any more until ``heal()``, so that whoever asked cannot tidy up either.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import Literal

from tests.support.tcp_listener import TcpListener, reset

Mode = Literal["open", "down", "silent"]


class Exchanges:
    """Counts exchanges over all fronts of a test, and says which of them is lost."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._fronts: list[Front] = []
        self._at: int | None = None
        self._then: Mode = "down"
        self._changes = 0
        self.mode: Mode = "open"
        self.seen = 0
        """Exchanges since the last ``lose()``."""
        self.lost = threading.Event()
        """Set when the answer of the chosen exchange came and was not passed on."""

    def lose(self, at: int, then: Mode = "down") -> None:
        """Lose the answer of exchange ``at``, counted from 0, and let nothing through afterwards.

        ``down``: connections are reset. ``silent``: they stay open, and nobody answers.
        """
        with self._guard:
            self._at, self._then, self.seen = at, then, 0
            self._changes += 1
            self.lost.clear()

    def be(self, mode: Mode) -> None:
        """Answer nothing from now on (``down`` and ``silent`` as above), or pass everything on (``open``)."""
        with self._guard:
            self.mode, self._at = mode, None
            self._changes += 1
        if mode != "silent":
            for front in self._fronts:
                front.reset_all()

    def heal(self) -> None:
        """Pass everything on, on new connections. Those that there are end."""
        self.be("open")

    def front(self, host: str, port: int) -> Front:
        """A new front before a server."""
        front = Front((host, port), self)
        self._fronts.append(front)
        return front

    def begun(self) -> int | None:
        """For fronts: an exchange begins. Something to call ``over`` with, where its answer is to be lost."""
        with self._guard:
            at, self.seen = self.seen, self.seen + 1
            return self._changes if at == self._at else None

    def over(self, doom: int) -> None:
        """For fronts: the answer came and was not passed on. Nothing happens when the test has gone on meanwhile."""
        if doom == self._changes:
            self.be(self._then)
            self.lost.set()

    def close(self) -> None:
        for front in self._fronts:
            front.close()


@dataclass(slots=True)
class _Pair:
    client: socket.socket
    server: socket.socket | None
    asking: bool = False
    """Whether the client had the last word."""
    doom: int | None = None
    """Of an exchange whose answer is to be lost."""


class Front(TcpListener):
    """Listens on a free port of 127.0.0.1 in front of ``target`` until ``close()``."""

    def __init__(self, target: tuple[str, int], exchanges: Exchanges) -> None:
        self._target, self._exchanges = target, exchanges
        self._pairs: list[_Pair] = []
        self._guard = threading.Lock()
        super().__init__("exchanges")

    def _accepted(self, client: socket.socket) -> None:
        server = None
        try:
            if self._exchanges.mode == "open":
                server = socket.create_connection(self._target, 10)
                server.settimeout(None)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            reset(client)
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client, server)
        with self._guard:
            self._pairs.append(pair)
        for work in (self._asks, self._answers):
            self._in_thread(work, pair)
        if self._exchanges.mode == "down":
            self.reset_all()

    def _asks(self, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            while data := pair.client.recv(65_536):
                if pair.server is None or self._exchanges.mode != "open":
                    continue
                if not pair.asking:
                    pair.asking = True
                    pair.doom = self._exchanges.begun()
                pair.server.sendall(data)
        if pair.server is not None:
            with contextlib.suppress(OSError):
                pair.server.shutdown(socket.SHUT_WR)

    def _answers(self, pair: _Pair) -> None:
        if pair.server is None:
            return
        with contextlib.suppress(OSError):
            while data := pair.server.recv(65_536):
                if self._exchanges.mode != "open":
                    continue
                if pair.doom is not None:
                    self._exchanges.over(pair.doom)
                    continue
                pair.asking = False
                pair.client.sendall(data)
        if pair.doom is not None:
            self._exchanges.over(pair.doom)
        if self._exchanges.mode == "open":
            with contextlib.suppress(OSError):
                pair.client.shutdown(socket.SHUT_WR)

    def reset_all(self) -> None:
        """Reset every connection to a client; the server sees an ordinary end."""
        with self._guard:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            # A thread that reads from a socket keeps it open after close(): this wakes it first.
            for one in (pair.server, pair.client):
                if one is not None:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RD)
            reset(pair.client)
            if pair.server is not None:
                with contextlib.suppress(OSError):
                    pair.server.shutdown(socket.SHUT_RDWR)
                pair.server.close()

    def _end_all(self) -> None:
        self.reset_all()
