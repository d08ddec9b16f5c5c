"""A server that speaks the part of Qdrant's published API that the store and the official client use.

It follows Qdrant 1.18 as its proto files, OpenAPI and source tell, over REST and gRPC, with its error codes and texts.
It keeps everything in memory and compares with every vector. Known differences:

- One segment, one shard, one peer: no optimisation runs, ``indexed_vectors_count`` is 0, counts are never estimates
  unless ``stale_counts`` says so, and writes always wait. A real server answers ``wait=false`` before it looks at
  dimensions; the double refuses them at once.
- Requests above 32 MiB are refused over gRPC, too, where Qdrant takes any size.
- Dense vectors only, by the nearest-neighbour query; filters by match, range, datetime range, empty, null, id and
  nesting. Text matches are plain containment. Anything else is refused as unknown.
- TLS is spoken over gRPC only.
- Strict mode and rate limits do not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError
from tests.support.loopback_http import LoopbackHttp
from tests.support.operations import Operations
from tests.support.qdrant.access import Access, AccessKeys, Issued, ServiceKeys
from tests.support.qdrant.engine import VERSION, QdrantEngine
from tests.support.qdrant.errors import bad_request, on_purpose, too_large
from tests.support.qdrant.grpc_api import GrpcApi
from tests.support.qdrant.rest_api import RestApi

LIMIT = 32 * 2**20
"""Bytes of a request: Qdrant's default ``max_request_size_mb``."""


Environment = Callable[[], Mapping[str, str]]
"""Tells the environment that a server starts with."""


class QdrantDouble:
    """Serves on two ports of 127.0.0.1, at first free ones, until ``close()``. Use ``empty()`` between tests.

    It reads its keys when it starts: ``environment`` tells them as variables (``QDRANT__SERVICE__API_KEY`` and so on),
    if it is given, and ``restart()`` changes them, if it is not. Servers with the same ``engine`` hold the same data.
    ``issued`` knows keys that somebody else gives out at any time. ``tls`` is the private key and the certificate chain
    of the gRPC API, as PEM.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        alt_api_key: str | None = None,
        read_only_key: str | None = None,
        jwt_rbac: bool = True,
        environment: Environment | None = None,
        version: str = VERSION,
        engine: QdrantEngine | None = None,
        issued: Issued | None = None,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.engine = engine or QdrantEngine(version)
        self.operations = Operations()
        """Calls by method (``Points/Upsert``, ``Collections/List``, …) of both APIs, and their faults."""
        self.delay = 0.0
        """Seconds before each answer."""
        self.called: list[str] = []
        """Methods that were called, in order."""
        self.starts = 0
        """How often it was started."""
        self._keys = ServiceKeys(api_key, alt_api_key, read_only_key, jwt_rbac)
        self._environment = environment
        self._issued = issued
        self._tls = tls
        self._running: tuple[GrpcApi, LoopbackHttp] | None = None
        self.host = "127.0.0.1"
        self.port = self.grpc_port = 0
        self.start()
        self.url = f"http://{self.host}:{self.port}"

    @property
    def runs(self) -> bool:
        return self._running is not None

    def start(self) -> None:
        """Start (again) on the same ports, with the data that was there. Nothing happens when it runs."""
        if self._running is not None:
            return
        if self._environment is not None:
            self._keys = ServiceKeys.of_environment(self._environment())
        self.keys = AccessKeys(self._keys, self.engine.value_exists, self._issued)
        grpc_api = GrpcApi(self._handle, self._tls, self.grpc_port)
        rest_api = RestApi(self._call, lambda: self.engine.version, LIMIT)
        http = LoopbackHttp(rest_api.answer, self.port, keep_requests=False)
        self._running = grpc_api, http
        self.port, self.grpc_port = http.port, grpc_api.port
        self.starts += 1

    def stop(self, grace: float = 0.0) -> None:
        """Stop serving; ``start()`` brings it back. Requests that are being answered have ``grace`` seconds."""
        running, self._running = self._running, None
        if running is not None:
            for api in running:
                api.close(grace)

    def restart(self, *, down: float = 0.0, grace: float = 0.0, **keys: str | None) -> None:
        """Stop, stay away for ``down`` seconds, and start: with other ``api_key``, ``alt_api_key``, where named."""
        if self._environment is not None and keys:
            raise ValueError("this server reads its keys from its environment")
        self.stop(grace)
        time.sleep(down)
        self._keys = replace(self._keys, **keys)  # type: ignore[arg-type]  # names are checked by replace()
        self.start()

    def _handle(self, method: str, request: bytes, headers: dict[str, str]) -> bytes:
        if len(request) > LIMIT:
            raise too_large(len(request), LIMIT)
        kind = self.engine.methods[method][0] if method in self.engine.methods else None
        try:
            message = kind.FromString(request) if kind is not None else None
        except DecodeError:
            raise bad_request("failed to decode Protobuf message") from None
        answer: bytes = self._call(method, message, headers).SerializeToString()
        return answer

    def _call(self, method: str, message: Any, headers: Mapping[str, str]) -> Any:
        self.called.append(method)
        if self.delay:
            time.sleep(self.delay)
        fault = self.operations.met(method)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.status is not None and not fault.done:
                raise on_purpose(fault.status)
        # A health check is before the door.
        access = Access() if method == "Qdrant/HealthCheck" else self.keys.access(headers)
        answer = self.engine.answer(method, message, access)
        if fault is not None and fault.status is not None:
            raise on_purpose(fault.status)
        return answer

    def stale_counts(self, told: int | None) -> None:
        """Let every collection tell this number of points; None for the truth."""
        for collection in self.engine.collections.values():
            collection.told_count = told

    def empty(self) -> None:
        """As it was when it was made."""
        self.engine.empty()
        self.delay = 0.0
        self.called.clear()
        self.operations.forget()

    def close(self) -> None:
        self.stop()
