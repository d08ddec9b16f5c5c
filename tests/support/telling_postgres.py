"""A listener that speaks just enough of PostgreSQL's protocol to be told a password, and to quote it."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Any

_ENCRYPTION = {80877103, 80877104}
"""Codes of a request for TLS, and for GSSAPI."""


class TellingPostgres:
    """Asks for the password in clear text, and refuses it in words that hold it. Until ``close()``."""

    def __init__(self) -> None:
        owner = self
        self.told = 0
        self.passwords = 0

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    owner._serve(self.request)
                except (ConnectionError, EOFError):
                    return  # whoever asked does not tell its password to anybody

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.host, self.port = "127.0.0.1", int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="telling-postgres")
        self._thread.start()

    def _serve(self, peer: socket.socket) -> None:
        while True:
            length = int.from_bytes(_read(peer, 4), "big")
            rest = _read(peer, length - 4)
            if int.from_bytes(rest[:4], "big") not in _ENCRYPTION:
                break
            peer.sendall(b"N")
        self.told += 1
        peer.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        head = _read(peer, 5)
        said = _read(peer, int.from_bytes(head[1:], "big") - 4).rstrip(b"\0").decode(errors="replace")
        self.passwords += 1
        words = (
            f'password authentication failed: "{said}" is not it',
            f'unexpected password={said} in pg_hba.conf, options password="{said}"',
            f"too many connections for {said}",
        )[self.told % 3]
        code = ("28P01", "XX000", "53300")[self.told % 3]
        fields: dict[str, Any] = {"S": "FATAL", "V": "FATAL", "C": code, "M": words, "D": said, "H": f"not {said}"}
        body = b"".join(name.encode() + str(value).encode() + b"\0" for name, value in fields.items()) + b"\0"
        peer.sendall(b"E" + (len(body) + 4).to_bytes(4, "big") + body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _read(peer: socket.socket, number: int) -> bytes:
    read = b""
    while len(read) < number:
        more = peer.recv(number - len(read))
        if not more:
            raise EOFError
        read += more
    return read
