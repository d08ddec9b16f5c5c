"""The server of the double: who asks, which plane is asked, and what goes wrong on purpose."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.loopback_http import LoopbackHttp, Request, Response

from .admin import AdminPlane, ApiKey
from .control import ControlPlane
from .data import DataPlane
from .knobs import Knobs
from .refusals import Refusal
from .writing import MAX_REQUEST_BYTES

API_VERSION = "2026-07"
_DATA_PATH = re.compile(r"/(?P<host>[a-z0-9-]+)\.svc\.double(?P<path>/.*)")
_READING = ("/query", "/vectors/fetch_by_metadata", "/describe_index_stats")
"""Ends of paths that are posted to and change nothing."""
_GATEWAY = re.compile(r"/at/(?P<at>[^/]+)(?P<path>/.*)")


class PineconeDouble:
    """Projects, each with its key, behind one address. Use as a context manager.

    The service gives every index a host of its own; here an index has a path below the one address. A control plane
    asked under ``/at/<host:port>`` tells that address for its indexes, as a gateway before it would.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        """``keys``: API key → project. Projects begin empty."""
        self.knobs = Knobs()
        self.admin = AdminPlane(ApiKey(project, value) for value, project in keys.items())
        self._projects = {project: ControlPlane(project, self.knobs) for project in keys.values()}
        self._faults: deque[tuple[Callable[[Request], bool], Response]] = deque()
        self._guard = threading.Lock()
        self._server = LoopbackHttp(self._answer)
        self.host, self.port, self.url = self._server.host, self._server.port, self._server.origin

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        return self._server.requests

    def project(self, name: str) -> ControlPlane:
        """The project, to look behind the API."""
        return self._projects[name]

    def revoke(self, key: str) -> None:
        """A key is no longer valid."""
        with self._guard:
            del self.admin.keys[key]

    def issue(self, key: str, project: str, *roles: str) -> None:
        """One more key of a project, which may do everything where no roles are named."""
        with self._guard:
            self.admin.keys[key] = ApiKey(project, key, roles=roles or ("ProjectEditor",))
            self._projects.setdefault(project, ControlPlane(project, self.knobs))

    def fail(self, response: Response, when: Callable[[Request], bool] = lambda _: True) -> None:
        """Answer the next request that fits with this."""
        with self._guard:
            self._faults.append((when, response))

    def throttle(self, requests: int, seconds: int) -> None:
        """Answer the next requests with 429, asking to wait."""
        for _ in range(requests):
            body = Refusal(429, "Too many requests").of_data_plane()
            self.fail(Response(json.dumps(body).encode(), 429, {"Retry-After": str(seconds)}))

    def _answer(self, request: Request) -> Response:
        if self.knobs.latency:
            time.sleep(self.knobs.latency)
        with self._guard:
            for fault in self._faults:
                if fault[0](request):
                    self._faults.remove(fault)
                    return fault[1]
            return self._guarded(request)

    def _guarded(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        data = _DATA_PATH.fullmatch(parts.path)
        try:
            if data:
                plane = self._authenticated(request, "data")
                body, headers = self._data(plane, data, request, parse_qs(parts.query, keep_blank_values=True))
                return _response(200, body, headers)
            if parts.path == "/oauth/token":
                return _response(200, self.admin.token(_json(request)))
            if parts.path.startswith("/admin/"):
                authorization = request.headers.get("authorization", "")
                return _response(*self.admin.answer(request.method, unquote(parts.path), _json(request), authorization))
            gateway = _GATEWAY.fullmatch(parts.path)
            at, path = (gateway["at"], gateway["path"]) if gateway else (f"{self.host}:{self.port}", parts.path)
            plane = self._authenticated(request, "control")
            return _response(*plane.answer(request.method, unquote(path), _json(request), at))
        except Refusal as refusal:
            if refusal.status == 401:
                return Response(b"Unauthorized", 401, {"Content-Type": "text/plain"})
            told = refusal.of_data_plane() if data else refusal.of_control_plane()
            return _response(refusal.status, told, refusal.headers)

    def _authenticated(self, request: Request, plane: str) -> ControlPlane:
        key = self.admin.key(request.headers.get("api-key", ""))
        if request.headers.get("x-pinecone-api-version") != API_VERSION:
            raise Refusal(400, f"this double speaks version {API_VERSION} of the API")
        reads = request.method == "GET" or urlsplit(request.path).path.endswith(_READING)
        if not key.may(plane, write=not reads):
            raise Refusal(403, f"the roles {', '.join(key.roles)} of this key do not allow it")
        return self._projects[key.project]

    def _data(
        self, plane: ControlPlane, asked: re.Match[str], request: Request, parameters: dict[str, list[str]]
    ) -> tuple[Any, dict[str, str]]:
        name, _, project = asked["host"].rpartition("-")
        index = plane.indexes.get(name)
        if project != plane.project or index is None or not index.ready:
            raise Refusal(404, "no such index")
        if len(request.body) > MAX_REQUEST_BYTES:
            raise Refusal(413, f"Request size exceeds the maximum supported size of {MAX_REQUEST_BYTES} bytes")
        return DataPlane(index, self.knobs).answer(request.method, unquote(asked["path"]), _json(request), parameters)

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def _json(request: Request) -> dict[str, Any]:
    if not request.body:
        return {}
    try:
        body = json.loads(request.body)
    except ValueError:
        raise Refusal(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body is no JSON object")
    return body
