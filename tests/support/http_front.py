"""A proxy in front of a real HTTP server that counts its operations and fails them on purpose. It keeps no request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Self

import httpx
from tests.support.loopback_http import LoopbackHttp, Request, Response
from tests.support.operations import Operations

_NOT_PASSED_ON = {"connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding"}


class HttpFront:
    """Passes requests on to ``target`` (an origin) until ``close()``.

    ``operation_of`` names the operation of (method, path). While the target is stopped, connections are reset.
    """

    def __init__(self, target: str, operation_of: Callable[[str, str], str]) -> None:
        self.operations = Operations()
        self._operation_of = operation_of
        self._client = httpx.Client(base_url=target, timeout=60, trust_env=False)
        self._server = LoopbackHttp(self._answer, keep_requests=False)
        self.host, self.port, self.url = self._server.host, self._server.port, self._server.origin

    def _answer(self, request: Request) -> Response:
        fault = self.operations.met(self._operation_of(request.method, request.path))
        if fault is None:
            return self._passed_on(request)
        time.sleep(fault.delay)
        if fault.done or fault.status is None:
            answer = self._passed_on(request)
            if fault.status is None:
                return answer
        waits = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        body = json.dumps({"error": [{"message": "failed on purpose"}]}).encode()
        return Response(body, fault.status, {"Content-Type": "application/json", **waits})

    def _passed_on(self, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        try:
            answer = self._client.request(request.method, request.path, headers=headers, content=request.body)
        except httpx.TransportError:
            return Response(reset=True)
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
        return Response(answer.content, answer.status_code, passed)

    def close(self) -> None:
        self._server.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
