"""A proxy in front of a real gRPC server, for any service: it passes messages on as bytes, and fails when told to.

Faults are gRPC statuses, silence, a reset connection, and a message that is none. Unary and streaming methods look
alike on the wire, so all are served as streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, Self

import grpc
from tests.contract.fault_plan import NOISE, RETRY_AFTER, FaultPlan
from tests.contract.tcp_front import TcpFront

_UNLIMITED: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 2**20),
)
_NOT_PASSED_ON = {"user-agent", "te", "content-type", "grpc-timeout", "grpc-accept-encoding", "accept-encoding"}
STATUSES = {
    "401": (grpc.StatusCode.UNAUTHENTICATED, "invalid API key"),
    "403": (grpc.StatusCode.PERMISSION_DENIED, "forbidden"),
    "404": (grpc.StatusCode.NOT_FOUND, "not found"),
    # What gRPC makes of an HTTP 404 in front of it.
    "404 of a proxy": (grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404"),
    "409": (grpc.StatusCode.ALREADY_EXISTS, "already exists"),
    "413": (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (70000000 vs. 67108864)"),
    "429": (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit exceeded, too many requests"),
    "500": (grpc.StatusCode.INTERNAL, "internal error"),
    "503": (grpc.StatusCode.UNAVAILABLE, "unavailable"),
}
"""Fault → status and what it says."""


class GrpcFaultProxy:
    """Passes calls on to ``target`` (host:port), with the faults of ``plan``. Use as a context manager.

    ``exempt`` says of a method's full name (``/package.Service/Method``) that its calls are neither counted nor failed.
    """

    def __init__(self, target: str, plan: FaultPlan, exempt: Callable[[str], bool] = lambda _: False) -> None:
        self._plan, self._exempt = plan, exempt
        self.methods: list[str] = []
        """What was called so far, in order."""
        self._channel = grpc.insecure_channel(target, options=_UNLIMITED)
        self._workers = ThreadPoolExecutor(16, "grpc-fault-proxy")
        self._server = grpc.server(self._workers, handlers=(_Everything(self._call),), options=_UNLIMITED)
        inner = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._front = TcpFront(("127.0.0.1", inner))
        self.host, self.port = self._front.host, self._front.port

    def _call(self, method: str, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.methods.append(method)
        fault = None if self._exempt(method) else self._plan.next("grpc")
        sent = tuple((key, value) for key, value in context.invocation_metadata() if key not in _NOT_PASSED_ON)
        if fault is not None:
            next(messages, None)  # so that the client has written its request
            yield from self._fail(fault, sent, context)
            return
        call = self._channel.stream_stream(method)(messages, metadata=sent, timeout=context.time_remaining())
        context.add_callback(call.cancel)
        try:
            context.send_initial_metadata(tuple(call.initial_metadata() or ()))
            yield from call
        except grpc.RpcError:
            context.set_trailing_metadata(tuple(call.trailing_metadata() or ()))
            _abort(context, call.code(), call.details())
        context.set_trailing_metadata(tuple(call.trailing_metadata() or ()))

    def _fail(self, fault: str, sent: Sequence[tuple[str, str | bytes]], context: Any) -> Iterator[bytes]:
        match fault:
            case "timeout":
                self._plan.over.wait(60)
                _abort(context, grpc.StatusCode.CANCELLED, "the test is over")
            case "reset":
                self._front.reset_all()
                _abort(context, grpc.StatusCode.CANCELLED, "nobody hears this")
            case "garbage":
                yield b"\xff\xff\xff no message of any service"
                return
        code, says = STATUSES[fault]
        if fault == "429":
            context.set_trailing_metadata((("retry-after", f"{RETRY_AFTER:.0f}"),))
        # As impolite as can be, within what a header may hold.
        _abort(context, code, f"{says}; you sent {dict(sent)} {NOISE[:2_000]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._plan.disarm()
        self._front.close()
        self._server.stop(0).wait(10)
        self._channel.close()
        self._workers.shutdown()


def _abort(context: Any, code: grpc.StatusCode, says: str) -> NoReturn:
    context.abort(code, says)
    raise AssertionError("abort() raises")


class _Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles every method of every service, without knowing its messages."""

    def __init__(self, call: Callable[[str, Iterator[bytes], Any], Iterator[bytes]]) -> None:
        self._call = call

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        return grpc.stream_stream_rpc_method_handler(lambda messages, context: self._call(method, messages, context))
