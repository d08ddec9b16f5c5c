"""A server that speaks the part of Qdrant's published API that the store and the official client use.

It follows Qdrant 1.18 as its proto files, OpenAPI and source tell, over REST and gRPC, with its error codes and texts.
It keeps everything in memory and compares with every vector. Known differences:

- One segment, one shard, one peer: no optimisation runs, ``indexed_vectors_count`` is 0, counts are never estimates
  unless ``stale_counts`` says so, and writes always wait. A real server answers ``wait=false`` before it looks at
  dimensions; the double refuses them at once.
- Requests above 32 MiB are refused over gRPC, too, where Qdrant takes any size.
- Dense vectors only, by the nearest-neighbour query; filters by match, range, datetime range, empty, null, id and
  nesting. Text matches are plain containment. Anything else is refused as unknown.
- A JWT's ``value_exists``, ``payload`` and shard claims are not looked at. TLS is spoken over gRPC only.
- Strict mode and rate limits do not exist.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError
from tests.support.loopback_http import LoopbackHttp
from tests.support.qdrant.access import AccessKeys
from tests.support.qdrant.engine import VERSION, QdrantEngine
from tests.support.qdrant.errors import bad_request, too_large
from tests.support.qdrant.grpc_api import GrpcApi
from tests.support.qdrant.rest_api import RestApi

LIMIT = 32 * 2**20
"""Bytes of a request: Qdrant's default ``max_request_size_mb``."""


class QdrantDouble:
    """Serves on two free ports of 127.0.0.1 until ``close()``. Use ``empty()`` between tests.

    ``tls`` is the private key and the certificate chain of the gRPC API, as PEM.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        read_only_key: str | None = None,
        version: str = VERSION,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.keys = AccessKeys(api_key, read_only_key)
        self.engine = QdrantEngine(version)
        self.delay = 0.0
        """Seconds before each answer."""
        self.called: list[str] = []
        """Methods that were called, in order."""
        self._grpc = GrpcApi(self._handle, tls)
        self._rest = LoopbackHttp(RestApi(self._call, lambda: self.engine.version, LIMIT).answer)
        self.host = "127.0.0.1"
        self.port = self._rest.port
        self.grpc_port = self._grpc.port
        self.url = f"http://{self.host}:{self.port}"

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
        # A health check is before the door.
        access = AccessKeys(None).access({}) if method == "Qdrant/HealthCheck" else self.keys.access(headers)
        return self.engine.answer(method, message, access)

    def stale_counts(self, told: int | None) -> None:
        """Let every collection tell this number of points; None for the truth."""
        for collection in self.engine.collections.values():
            collection.told_count = told

    def empty(self) -> None:
        """As it was when it was made."""
        self.engine.empty()
        self.delay = 0.0
        self.called.clear()

    def close(self) -> None:
        self._grpc.close()
        self._rest.close()
