"""A web server on loopback whose every answer the test decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from tests.support.loopback_http import LoopbackHttp, Request, Response


class HttpFiles:
    """Answers what was ``put()`` at a path, 404 elsewhere, and 304 to an If-None-Match that fits the ETag header."""

    def __init__(self) -> None:
        self._answers: dict[str, Response] = {}
        self._server = LoopbackHttp(self._answer)
        self.origin = self._server.origin
        self.port = self._server.port

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        return self._server.requests

    def put(
        self,
        path: str,
        body: str | bytes = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
        cut_after: int | None = None,
    ) -> str:
        """Set the answer at ``path`` ("/a.md") and return its URL; see ``Response`` for the rest."""
        content = body.encode() if isinstance(body, str) else body
        self._answers[path] = Response(content, status, dict(headers or {}), delay, cut_after)
        return self.url(path)

    def redirect(self, path: str, target: str, status: int = 302) -> str:
        """Send those who ask for ``path`` to ``target``; returns the URL of ``path``."""
        return self.put(path, status=status, headers={"Location": target})

    def remove(self, path: str) -> None:
        del self._answers[path]

    def url(self, path: str) -> str:
        return self.origin + path

    def _answer(self, request: Request) -> Response:
        found = self._answers.get(request.path)
        if found is None:
            return Response(b"not found\n", 404, {"Content-Type": "text/plain"})
        tag = {name.lower(): value for name, value in found.headers.items()}.get("etag")
        if tag is not None and request.headers.get("if-none-match") == tag:
            return Response(b"", 304, {"ETag": tag})
        return found

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def http_files() -> Iterator[HttpFiles]:
    """A web server of this test's own."""
    server = HttpFiles()
    yield server
    server.close()
