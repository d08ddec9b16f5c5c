"""The HTTP server under the peers that tests control: a function from request to response, in threads, on loopback."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Request:
    """Its representation shows neither headers nor body: they hold credentials."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer. ``delay`` is seconds before the first byte.

    ``cut_after`` ends the connection after so many bytes of the body, though its whole length was announced; 0 ends it
    before any answer. ``reset`` ends it without an answer and without a farewell, as a crashed peer or a firewall does.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut_after: int | None = None
    reset: bool = False


class LoopbackHttp:
    """Serves ``answer`` on a port of 127.0.0.1, a free one where none is named, until ``close()``.

    ``requests`` holds what was asked, in order; nothing where ``keep_requests`` is false.
    """

    def __init__(self, answer: Callable[[Request], Response], port: int = 0, *, keep_requests: bool = True) -> None:
        self.requests: list[Request] = []
        self._keep_requests = keep_requests
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), self._handler(answer))
        self.host = "127.0.0.1"
        self.port: int = self._server.server_address[1]
        self.origin = f"http://{self.host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="loopback-http")
        self._thread.start()

    def _handler(self, answer: Callable[[Request], Response]) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body are two writes: without this the second waits for the peer's delayed acknowledgement.
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                if owner._keep_requests:
                    owner.requests.append(request)
                self._send(answer(request))

            def _send(self, response: Response) -> None:
                if response.reset:
                    owner._server.reset(self.connection)
                    self.close_connection = True
                    return
                if owner._closing.wait(response.delay) or response.cut_after == 0:
                    self.close_connection = True
                    return
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                if not any(name.lower() == "content-length" for name in response.headers):
                    self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(response.body[: response.cut_after])
                if response.cut_after is not None:
                    self.close_connection = True

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self._serve
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing: the tests look at ``requests``."""

        return Handler

    def close(self, grace: float = 0.0) -> None:
        """Stop serving: idle connections end at once.

        So do requests that are being delayed, unless they are answered within ``grace`` seconds.
        """
        self._server.shutdown()
        self._thread.join()
        if grace:
            self._server.drain(grace)
        self._closing.set()
        self._server.drop_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()
        self._resets: set[socket.socket] = set()
        self._guard = threading.Condition()

    def reset(self, connection: socket.socket) -> None:
        """End a connection by RST as soon as its handler is done."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self._guard:
            self._resets.add(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._connections.discard(request)
            self._guard.notify_all()
            reset = request in self._resets
            self._resets.discard(request)
        if reset:
            self.close_request(request)  # without shutdown(), which says farewell
        else:
            super().shutdown_request(request)

    def drain(self, seconds: float) -> None:
        """Take no connections any more, end idle ones, and wait for the others."""
        self.socket.close()
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # answers still go out
            self._guard.wait_for(lambda: not self._connections, seconds)

    def drop_connections(self) -> None:
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news here; the test sees what it did."""
