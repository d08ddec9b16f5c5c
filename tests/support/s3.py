"""Real S3 servers on loopback, and a proxy before one that keeps the signatures of requests valid."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from deploy.servers.versitygw_server import VersitygwServer, start_versitygw_server
from tests.support.loopback_http import LoopbackHttp, Request, Response

from vectorwright.stores.registry import Connection, StoreCredentials

__all__ = ["S3Proxy", "VersitygwServer", "s3_bucket", "s3_connection"]

_NOT_PASSED_ON = {"connection", "content-length", "transfer-encoding"}


def s3_bucket(server: VersitygwServer) -> str:
    """A new bucket, with nothing in it."""
    name = f"test-{secrets.token_hex(6)}"
    server.make_bucket(name)
    return name


def s3_connection(server: VersitygwServer, bucket: str, *, endpoint: str | None = None, **more: Any) -> Connection:
    """A connection to a folder of a bucket. ``more`` goes into the block."""
    block = {"bucket": bucket, "prefix": "vectors", "endpoint": endpoint or server.url, "region": server.region, **more}
    credentials = StoreCredentials(username=server.access_key, password=server.secret_key)
    return Connection("lance", {"s3": block}, credentials=credentials)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[VersitygwServer]:
    """One server for the whole session: use a bucket of your own, and do not stop it."""
    base = Path(tempfile.mkdtemp(prefix="vectorwright-s3-"))
    server = start_versitygw_server(base, remove=base)
    yield server
    server.stop()
    shutil.rmtree(base)


class S3Proxy:
    """Passes requests on to an S3 server, and fails or holds those that it is told to. Use as a context manager.

    Clients sign the host that they speak to, so it is passed on as it came.
    """

    def __init__(self, target: str) -> None:
        self._faults: deque[tuple[Callable[[Request], bool], Response]] = deque()
        self._holds: list[tuple[Callable[[Request], bool], threading.Event, threading.Event]] = []
        self._overlooked: set[str] = set()
        self._cuts: list[Callable[[Request], bool]] = []
        self._guard = threading.Lock()
        self._client = httpx.Client(base_url=target, timeout=30, trust_env=False)
        self._server = LoopbackHttp(self._answer)
        self.origin = self._server.origin

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order."""
        return self._server.requests

    def fail(self, response: Response, when: Callable[[Request], bool] = lambda _: True, *, times: int = 1) -> None:
        """Answer the next requests that fit with this."""
        with self._guard:
            self._faults.extend([(when, response)] * times)

    def recover(self) -> None:
        """Forget the faults that are still to come."""
        with self._guard:
            self._faults.clear()

    def overlook(self, condition: str) -> None:
        """Say of requests with this header that they succeeded though it was not met, as a server that ignores it."""
        self._overlooked.add(condition)

    def cut_answer(self, when: Callable[[Request], bool]) -> None:
        """Pass the next request that fits on, and end the connection in place of its answer."""
        with self._guard:
            self._cuts.append(when)

    def hold(self, when: Callable[[Request], bool]) -> tuple[threading.Event, threading.Event]:
        """Keep back the next request that fits: the first event tells that it came, the second lets it go on."""
        came, go = threading.Event(), threading.Event()
        with self._guard:
            self._holds.append((when, came, go))
        return came, go

    def _answer(self, request: Request) -> Response:
        with self._guard:
            fault = next((one for one in self._faults if one[0](request)), None)
            if fault is not None:
                self._faults.remove(fault)
            kept_back = next((one for one in self._holds if one[0](request)), None)
            if kept_back is not None:
                self._holds.remove(kept_back)
        if fault is not None:
            return fault[1]
        if kept_back is not None:
            kept_back[1].set()
            kept_back[2].wait(60)
        headers = {name: value for name, value in request.headers.items() if name not in _NOT_PASSED_ON}
        answer = self._client.request(request.method, request.path, headers=headers, content=request.body)
        if answer.status_code == 412 and self._overlooked & set(request.headers):
            return Response(b"", 200, {"ETag": f'"{secrets.token_hex(16)}"'})
        with self._guard:
            cut = next((one for one in self._cuts if one(request)), None)
            if cut is not None:
                self._cuts.remove(cut)
                return Response(cut_after=0)
        kept = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() not in {"connection", "transfer-encoding"}
        }
        return Response(answer.content, answer.status_code, kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            for waiting in self._holds:
                waiting[2].set()
        self._server.close()
        self._client.close()
