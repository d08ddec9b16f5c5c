"""A proxy in front of a real HTTP store that counts requests, asks for a token, and fails when it is told to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Self

import httpx
from tests.contract.fault_plan import NOISE, RETRY_AFTER, FaultPlan
from tests.support.loopback_http import LoopbackHttp, Request, Response

_NOT_PASSED_ON = {"connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding"}
Refusal = Callable[[int, str], Response]
"""(status, text) → an error in the form of the store itself."""


class FaultProxy:
    """Passes requests on to ``target`` (an origin), with the Host that they came with: signatures hold it.

    Use as a context manager. With a ``plan``, requests meet the faults that it says, in the form of ``refusal``.
    """

    def __init__(
        self, target: str, plan: FaultPlan | None = None, refusal: Refusal | None = None, *, transport: str = "http"
    ) -> None:
        self.token: str | None = None
        """When set, only requests that carry it in some header are passed on; the others get 401."""
        self._plan, self._refusal, self._transport = plan, refusal, transport
        self._faults: deque[tuple[Callable[[Request], bool], Response]] = deque()
        self._guard = threading.Lock()
        secure = target.startswith("https:")
        self._client = httpx.Client(base_url=target, timeout=30, trust_env=False, verify=secure)
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
        if self._plan is not None and (fault := self._plan.next(self._transport)) is not None:
            return self._planned(fault, request, self._plan)
        with self._guard:
            for one in self._faults:
                if one[0](request):
                    self._faults.remove(one)
                    return one[1]
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        answer = self._client.request(request.method, request.path, headers=headers, content=request.body)
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED_ON}
        if request.method == "HEAD" and "content-length" in answer.headers:
            passed["Content-Length"] = answer.headers["content-length"]
        return Response(answer.content, answer.status_code, passed)

    def _planned(self, fault: str, request: Request, plan: FaultPlan) -> Response:
        # As impolite as can be: what was sent is in every answer.
        quoted = f"you sent {dict(request.headers)} to {request.path} {NOISE}"
        match fault:
            case "timeout":
                plan.over.wait(60)
                return Response(cut_after=0)
            case "reset":
                return Response(reset=True)
            case "garbage":
                return Response(f"<html>welcome! {quoted}".encode(), 200, {"Content-Type": "text/html"})
            case "404 of a proxy":
                return Response(f"<html>no such site: {quoted}</html>".encode(), 404, {"Content-Type": "text/html"})
        if self._refusal is None:
            raise ValueError(f"fault {fault!r} needs the form of the store's own refusals")
        answer = self._refusal(int(fault), quoted)
        waits = {"Retry-After": f"{RETRY_AFTER:.0f}"} if fault == "429" else {}
        return Response(answer.body, answer.status, {**answer.headers, **waits})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._plan is not None:
            self._plan.disarm()
        self._server.close()
        self._client.close()
