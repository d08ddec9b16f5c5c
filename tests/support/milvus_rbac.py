"""A double of Milvus with users and roles: milvus-lite, the server that tests run on, has neither.

It answers the calls of users and roles as Milvus 2.4 to 2.6 do (``internal/proxy`` and ``internal/rootcoord`` of its
source), and reads which privilege a call needs where Milvus itself does: in the options of its messages. What else is
asked goes on to a real server behind it, if there is one. Privileges count for all collections and databases alike.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tests.support.milvus_accounts import ROOT, ROOT_PASSWORD, Accounts, Refused
from tests.support.operations import Operations

from vectorwright.stores.milvus.stubs import common_pb2, milvus_pb2

__all__ = ["ROOT", "ROOT_PASSWORD", "MilvusRbacDouble", "StartMilvusRbac"]

_SERVICE = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
_PREFIX = "/milvus.proto.milvus.MilvusService/"
_FAULTS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

StartMilvusRbac = Callable[..., "MilvusRbacDouble"]


class _Denied(Exception):  # noqa: N818 - it is an answer
    """A status of gRPC: who is asking is not known, or may not."""

    def __init__(self, code: grpc.StatusCode, said: str) -> None:
        super().__init__(said)
        self.code, self.said = code, said


class MilvusRbacDouble(Accounts):
    """Serves on a port of 127.0.0.1, at first a free one, until ``close()``.

    ``root`` may do everything. ``upstream`` is the ``host:port`` of a real server without users, which answers what has
    nothing to do with them. Operations are the methods of MilvusService (``CreateCredential``, ``OperateUserRole``, …).
    """

    def __init__(self, *, root_password: str = ROOT_PASSWORD, upstream: str | None = None) -> None:
        super().__init__(root_password)
        self.operations = Operations()
        self._channel = grpc.insecure_channel(upstream, (("grpc.enable_http_proxy", 0),)) if upstream else None
        self._server: tuple[Any, ThreadPoolExecutor] | None = None
        self.host, self.port = "127.0.0.1", 0
        self.start()
        self.url = f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start (again) on the same port, with its users. Nothing happens when it runs."""
        if self._server is None:
            workers = ThreadPoolExecutor(8, "milvus-rbac-double")
            server = grpc.server(workers, handlers=(_Methods(self._handle),))
            self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
            server.start()
            self._server = server, workers

    def stop(self) -> None:
        """Stop serving; ``start()`` brings it back."""
        running, self._server = self._server, None
        if running is not None:
            running[0].stop(0).wait(10)
            running[1].shutdown()

    def close(self) -> None:
        self.stop()
        if self._channel is not None:
            self._channel.close()

    # The door.

    def _handle(self, method: str, body: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
        fault = self.operations.met(method)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.status is not None and not fault.done:
                raise _Denied(_FAULTS.get(fault.status, grpc.StatusCode.INTERNAL), "failed on purpose")
        answer = self._honest(method, body, metadata)
        if fault is not None and fault.status is not None:
            raise _Denied(_FAULTS.get(fault.status, grpc.StatusCode.INTERNAL), "failed on purpose")
        return answer

    def _honest(self, method: str, body: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
        headers = dict(metadata)
        user = self._authenticated(headers.get("authorization"))
        kinds = _SERVICE.methods_by_name.get(method)
        if kinds is None:
            raise _Denied(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {method}")
        request = getattr(milvus_pb2, kinds.input_type.name).FromString(body)
        self._permit(request, user, headers.get("dbname") or "default")
        if self._channel is not None and (method not in self.answers or method in {"ListDatabases", "ShowCollections"}):
            return self._passed_on(method, body, headers.get("dbname"))
        if method not in self.answers:
            raise _Denied(grpc.StatusCode.UNIMPLEMENTED, f"the double does not know {method}")
        with self.guard:
            try:
                answer = self.answers[method](request, user) or common_pb2.Status()
            except Refused as refused:
                answer = self._status(kinds.output_type.name, refused.status)
        sent: bytes = answer.SerializeToString()
        return sent

    @staticmethod
    def _status(kind: str, status: Any) -> Any:
        return status if kind == "Status" else getattr(milvus_pb2, kind)(status=status)

    def _authenticated(self, authorization: str | None) -> str:
        if not authorization:
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, "missing authorization in header")
        try:
            token = base64.b64decode(authorization, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, "invalid token format") from None
        user, separator, password = token.partition(":")
        if not separator:
            said = "auth check failure, please check api key is correct"
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, said)
        if not self.accepts(user, password):
            said = "auth check failure, please check username and password are correct"
            raise _Denied(grpc.StatusCode.UNAUTHENTICATED, said)
        return user

    def _permit(self, request: Any, user: str, database: str) -> None:
        options = request.DESCRIPTOR.GetOptions()
        if user == ROOT or not options.HasExtension(common_pb2.privilege_ext_obj):
            return
        needs = options.Extensions[common_pb2.privilege_ext_obj]
        if needs.object_type == common_pb2.ObjectType.Value("User") and _named(request) == user:
            return
        name = common_pb2.ObjectPrivilege.Name(needs.object_privilege)
        granted = self.granted(user)
        if not granted & {"*", name.removeprefix("Privilege")}:
            said = f"{name}: permission deny to {user} in the `{database}` database"
            raise _Denied(grpc.StatusCode.PERMISSION_DENIED, said)

    def _passed_on(self, method: str, body: bytes, database: str | None) -> bytes:
        assert self._channel is not None
        metadata = (("dbname", database),) if database else ()
        try:
            answer: bytes = self._channel.unary_unary(_PREFIX + method)(body, timeout=60, metadata=metadata)
        except grpc.RpcError as error:
            raise _Denied(error.code(), error.details() or "") from None
        return answer


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handle: Callable[[str, bytes, tuple[tuple[str, str], ...]], bytes]) -> None:
        self._handle = handle

    def service(self, details: Any) -> Any:
        if not details.method.startswith(_PREFIX):
            return None
        method = details.method.removeprefix(_PREFIX)

        def serve(request: bytes, context: Any) -> bytes:
            metadata = tuple((str(key), str(value)) for key, value in context.invocation_metadata())
            try:
                return self._handle(method, request, metadata)
            except _Denied as denied:
                context.abort(denied.code, denied.said)
                raise AssertionError("abort() raises") from None

        return grpc.unary_unary_rpc_method_handler(serve)


def _named(request: Any) -> str:
    """The user that a request about one names."""
    return str(request.user.name if hasattr(request, "user") else request.username)


@pytest.fixture
def start_milvus_rbac() -> Iterator[StartMilvusRbac]:
    """``start_milvus_rbac(**options)`` starts a double of this test's own."""
    doubles: list[MilvusRbacDouble] = []

    def start(**options: Any) -> MilvusRbacDouble:
        doubles.append(MilvusRbacDouble(**options))
        return doubles[-1]

    yield start
    for double in doubles:
        double.close()


@pytest.fixture
def milvus_rbac(start_milvus_rbac: StartMilvusRbac) -> MilvusRbacDouble:
    """A double without users but root, and with the role ``docs`` for points and collections."""
    double = start_milvus_rbac()
    double.add_role(
        "docs", "Insert", "Upsert", "Delete", "Query", "Search", "Load", "CreateCollection", "DropCollection"
    )
    return double
