"""A proxy in front of a real HTTP store that counts requests, asks for a token, and fails when it is told to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Self

import httpx
from tests.support.loopback_http import LoopbackHttp, Request, Response

_NOT_PASSED_ON = {"connection", "content-length", "transfer-encoding", "content-encoding", "host", "accept-encoding"}


class FaultProxy:
    """Passes requests on to ``target`` (an origin). Use as a context manager."""

    def __init__(self, target: str) -> None:
        self.token: str | None = None
        """When set, only requests that carry it in some header are passed on; the others get 401."""
        self._faults: deque[tuple[Callable[[Request], bool], Response]] = deque()
        self._guard = threading.Lock()
        self._client = httpx.Client(base_url=target, timeout=30, trust_env=False)
        self._server = LoopbackHttp(self._answer)
        self.host, self.port = self._server.host, self._server.port

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        return self._server.requests

    def fail(self, response: Response, when: Callable[[Request], bool] = lambda _: True) -> None:
        """Answer the next request that fits with this."""
        with self._guard:
            self._faults.append((when, response))

    def _answer(self, request: Request) -> Response:
        if self.token is not None and not any(self.token in value for value in request.headers.values()):
            # An impolite server: it says what it was sent.
            return Response(f"you sent {dict(request.headers)}".encode(), 401)
        with self._guard:
            for fault in self._faults:
                if fault[0](request):
                    self._faults.remove(fault)
                    return fault[1]
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        answer = self._client.request(request.method, request.path, headers=headers, content=request.body)
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
        return Response(answer.content, answer.status_code, passed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._client.close()
