"""Tokens for a proxy before a real Chroma server: it lets those pass that a file holds, as the mounted Secret does."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from tests.rotation.cases import IssuerCase, owner
from tests.support.chroma import ChromaServer
from tests.support.loopback_http import LoopbackHttp, Request, Response

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection

_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding", "host"}


class TokenProxy:
    """Passes requests with a bearer token of ``file`` (one a line) on to ``origin``; 401 for the others."""

    def __init__(self, origin: str, file: Path) -> None:
        self._file = file
        self._client = httpx.Client(base_url=origin, timeout=30, trust_env=False)
        self.server = LoopbackHttp(self._answer, keep_requests=False)

    def _answer(self, request: Request) -> Response:
        known = {f"Bearer {token}" for token in self._file.read_text().split()}
        if request.headers.get("authorization") not in known:
            return Response(b'{"error":"AuthError","message":"unknown token"}', 401)
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        answer = self._client.request(request.method, request.path, headers=headers, content=request.body)
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        return Response(answer.content, answer.status_code, passed)

    def close(self) -> None:
        self.server.close()
        self._client.close()


class Generated(IssuerCase):
    id = "generated-Generate"
    identity = "generated"
    strategy = Strategy.GENERATE
    traits = IssuerTraits(generates=True, known_before_publication=False)
    calls: ClassVar[frozenset[str]] = frozenset({"accepts"})

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        chroma: ChromaServer = request.getfixturevalue("chroma_server")
        self._file: Path = request.getfixturevalue("tmp_path") / "tokens"
        self._file.touch()
        self._writing = threading.Lock()
        self._proxy = TokenProxy(chroma.url, self._file)

    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        host, port = self.through(self._proxy.server.host, self._proxy.server.port)
        return Assignment(
            Connection("chroma", {"url": f"http://{host}:{port}"}, timeout=10),
            {"verifyThroughStore": True, **identity},
            owner(name),
        )

    async def use(self, key: KeyMaterial) -> bool:
        # Plain HTTP: the vendor's own client leaves connections behind, and shares headers between its instances.
        async with httpx.AsyncClient(base_url=self._proxy.server.origin, trust_env=False) as client:
            path = "/api/v2/tenants/default_tenant/databases/default_database/collections"
            answer = await client.get(path, headers={"Authorization": f"Bearer {key.token}"})
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == 200

    async def make_by_hand(self) -> KeyMaterial:
        made = KeyMaterial(token="made-by-hand")
        self._hold(f"{self._file.read_text()}\n{made.token}")
        return made

    async def inventory(self) -> set[str]:
        return set()  # a proxy knows values, not names

    async def published(self, *keys: KeyMaterial) -> None:
        self._hold("\n".join(key.token or "" for key in keys))

    def _hold(self, tokens: str) -> None:
        """In one step, as the kubelet changes a mounted Secret: the proxy reads, and others publish, all the while."""
        with self._writing:
            following = self._file.with_suffix(".new")
            following.write_text(tokens)
            following.replace(self._file)

    def close(self) -> None:
        super().close()
        self._proxy.close()


CASES = (Generated,)
