"""Repositories over git's smart HTTP, on loopback: git's own CGI behind a server whose answers a test can change."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.support.loopback_http import LoopbackHttp, Request, Response


def _body(request: Request) -> bytes:
    """git packs what it sends when that is more than a kilobyte."""
    packed = request.headers.get("content-encoding") == "gzip"
    return gzip.decompress(request.body) if packed else request.body


class GitHttp:
    """Serves the bare repositories below ``base``. ``credentials`` are (user, password) that every request needs.

    ``override`` may answer a request in git's place.
    """

    def __init__(
        self,
        base: Path,
        *,
        credentials: tuple[str, str] | None = None,
        override: Callable[[Request], Response | None] = lambda _: None,
    ) -> None:
        self._base = base
        self.credentials = credentials
        self._override = override
        self._server = LoopbackHttp(self._answer)
        self.origin = self._server.origin
        self.port = self._server.port

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        return self._server.requests

    def fetches(self) -> int:
        """How often objects were sent (protocol version 2: a command of the request's body)."""
        return sum(b"command=fetch" in _body(request) for request in self.requests)

    def _answer(self, request: Request) -> Response:
        replaced = self._override(request)
        if replaced is not None:
            return replaced
        if self.credentials is not None:
            expected = base64.b64encode(":".join(self.credentials).encode()).decode()
            if request.headers.get("authorization") != f"Basic {expected}":
                return Response(b"no", 401, {"WWW-Authenticate": 'Basic realm="git"'})
        return self._from_git(request)

    def _from_git(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(self._base),
            "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], env=environment, input=request.body, capture_output=True, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        return Response(body, status, headers)

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
