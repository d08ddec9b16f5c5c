"""The double's gRPC API."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from tests.support.qdrant.errors import QdrantError

Handle = Callable[[str, bytes, dict[str, str]], bytes]
"""(method without its package, request, headers) → answer. Raises QdrantError."""


class GrpcApi:
    """Serves every method of the package ``qdrant`` on a port of 127.0.0.1, a free one for 0, until ``close()``.

    ``tls`` is (private key, certificate chain) as PEM.
    """

    def __init__(self, handle: Handle, tls: tuple[bytes, bytes] | None = None, port: int = 0) -> None:
        self._workers = ThreadPoolExecutor(8, "qdrant-double")
        self._server = grpc.server(
            self._workers,
            handlers=(_Methods(handle),),
            # As Qdrant: it checks no size here. ``handle`` does.
            options=(("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)),
        )
        if tls is None:
            self.port: int = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([tls]))
        self._server.start()

    def close(self, grace: float = 0.0) -> None:
        """Stop serving; requests that are being answered have ``grace`` seconds."""
        self._server.stop(grace).wait(grace + 10)
        self._workers.shutdown()


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def service(self, details: Any) -> Any:
        package, _, method = str(details.method).lstrip("/").partition(".")
        if package != "qdrant":
            return None

        def serve(request: bytes, context: Any) -> bytes:
            headers = {str(key).lower(): str(value) for key, value in context.invocation_metadata()}
            try:
                return self._handle(method, request, headers)
            except QdrantError as error:
                context.abort(grpc.StatusCode[error.grpc_code], error.said)
                raise AssertionError("abort() raises") from None

        return grpc.unary_unary_rpc_method_handler(serve)
