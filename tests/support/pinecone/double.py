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
from tests.support.operations import Operations

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

    Operations are ``oauth.token``, ``projects.list``, ``projects.get``, ``keys.list``, ``keys.create``, ``keys.get``,
    ``keys.update`` and ``keys.delete`` of the admin plane, ``control`` and ``data`` of the other two.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        """``keys``: API key → project. Projects begin empty."""
        self.knobs = Knobs()
        self.admin = AdminPlane((ApiKey(project, value) for value, project in keys.items()), self.knobs.clock)
        self._projects = {project: ControlPlane(project, self.knobs) for project in keys.values()}
        self._faults: deque[tuple[Callable[[Request], bool], Response]] = deque()
        self._guard = threading.Lock()
        self.operations = Operations()
        self.requests: list[Request] = []
        """What the control and the data plane were asked so far, in order: what the admin plane is asked is secret."""
        self._server: LoopbackHttp | None = None
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start serving (again) on the same port, with all that was there. Nothing happens when it serves."""
        if self._server is None:
            self._server = LoopbackHttp(self._answer, self.port, keep_requests=False)
            self.host, self.port, self.url = self._server.host, self._server.port, self._server.origin

    def stop(self) -> None:
        """Stop serving; ``start()`` brings it back."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

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
            self.admin.issue(ApiKey(project, key, roles=roles or ("ProjectEditor",)))
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
        operation = _operation(request)
        if operation in {"control", "data"}:
            self.requests.append(request)
        fault = self.operations.met(operation)
        time.sleep(self.knobs.latency + (fault.delay if fault else 0.0))
        if fault is None or fault.status is None:
            return self._honest(request)
        if fault.done:
            self._honest(request)
        waits = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        refusal = Refusal(fault.status, "failed on purpose")
        return _response(fault.status, refusal.of_control_plane(), waits)

    def _honest(self, request: Request) -> Response:
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
                return _response(200, self.admin.token(_credentials(request)))
            if parts.path.startswith("/admin/"):
                return _response(*self._administered(request))
            gateway = _GATEWAY.fullmatch(parts.path)
            at, path = (gateway["at"], gateway["path"]) if gateway else (f"{self.host}:{self.port}", parts.path)
            plane = self._authenticated(request, "control")
            return _response(*plane.answer(request.method, unquote(path), _json(request), at))
        except Refusal as refusal:
            if parts.path == "/oauth/token":
                return _response(refusal.status, refusal.of_token_endpoint())
            if refusal.status == 401:
                return Response(b"Unauthorized", 401, {"Content-Type": "text/plain"})
            told = refusal.of_data_plane() if data else refusal.of_control_plane()
            return _response(refusal.status, told, refusal.headers)

    def _administered(self, request: Request) -> tuple[int, Any]:
        if "x-pinecone-api-version" not in request.headers:
            raise Refusal(400, "the header X-Pinecone-Api-Version is required")
        parts = urlsplit(request.path)
        page = parse_qs(parts.query).get("paginationToken", [""])[0]
        authorization = request.headers.get("authorization", "")
        return self.admin.answer(request.method, unquote(parts.path), _json(request), authorization, page)

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
        index = plane.indexes.get(asked["host"].removesuffix(f"-{plane.project}"))
        if not asked["host"].endswith(f"-{plane.project}") or index is None or not index.ready:
            raise Refusal(404, "no such index")
        if len(request.body) > MAX_REQUEST_BYTES:
            raise Refusal(413, f"Request size exceeds the maximum supported size of {MAX_REQUEST_BYTES} bytes")
        return DataPlane(index, self.knobs).answer(request.method, unquote(asked["path"]), _json(request), parameters)

    def close(self) -> None:
        """Stop serving."""
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_ADMIN_OPERATIONS = (
    ("oauth.token", "POST", r"/oauth/token"),
    ("projects.list", "GET", r"/admin/projects"),
    ("projects.get", "GET", r"/admin/projects/[^/]+"),
    ("keys.list", "GET", r"/admin/projects/[^/]+/api-keys"),
    ("keys.create", "POST", r"/admin/projects/[^/]+/api-keys"),
    ("keys.get", "GET", r"/admin/api-keys/[^/]+"),
    ("keys.update", "PATCH", r"/admin/api-keys/[^/]+"),
    ("keys.delete", "DELETE", r"/admin/api-keys/[^/]+"),
)


def _operation(request: Request) -> str:
    path = urlsplit(request.path).path
    for name, method, pattern in _ADMIN_OPERATIONS:
        if request.method == method and re.fullmatch(pattern, path):
            return name
    if path.startswith("/admin/"):
        return "admin"
    return "data" if _DATA_PATH.fullmatch(path) else "control"


def _response(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def _credentials(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    return _json(request)


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
