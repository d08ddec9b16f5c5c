"""Tokens of a Qdrant server, with a collection in which they can be revoked, and without one."""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import Any, ClassVar

import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from tests.rotation.cases import METHODS, IssuerCase, owner
from tests.support.qdrant import jwt
from tests.support.qdrant_binary import HasUrl, qdrant_server, service

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection, StoreCredentials

ADMIN = "the-api-key-of-a-qdrant-server-of-tests"
READ_ONLY = "the-read-only-key-of-a-qdrant-of-tests"
REVOCATIONS = "valid-tokens"


def client(server: HasUrl, key: str | None) -> AsyncQdrantClient:
    """The vendor's own, over REST: the issuer speaks gRPC."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        return AsyncQdrantClient(url=server.url, api_key=key, check_compatibility=False)


async def lets_in(server: HasUrl, key: str | None) -> bool:
    """Whether a key may list collections."""
    asking = client(server, key)
    try:
        await asking.get_collections()
    except UnexpectedResponse as error:
        if error.status_code not in {401, 403}:
            raise
        return False
    finally:
        await asking.close()
    return True


class QdrantTokenCase(IssuerCase):
    id = "qdrant-Token"
    identity = "qdrantToken"
    strategy = Strategy.TOKEN
    traits = IssuerTraits(generates=True, revocable=False, expires=True, leeway=31.0)
    calls: ClassVar[frozenset[str]] = frozenset({"check", "accepts"})
    fields: ClassVar[dict[str, Any]] = {}

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._stack = contextlib.ExitStack()
        keys = service(ADMIN, read_only_key=READ_ONLY)
        folder = request.getfixturevalue("tmp_path") / "qdrant"
        self.server = self._stack.enter_context(qdrant_server(folder, lambda: keys))

    def assignment(self, name: str = "search", *, admin: str = ADMIN, **identity: Any) -> Assignment:
        host, port = self.through(self.server.host, self.server.grpc_port)
        connection = Connection(
            "qdrant",
            {"url": f"http://{host}:{self.server.port}", "grpcPort": port},
            StoreCredentials(token=admin),
            timeout=10,
        )
        return Assignment(connection, {"access": "r", **self.fields, **identity}, owner(name))

    async def use(self, key: KeyMaterial) -> bool:
        return await lets_in(self.server, key.token)

    async def make_by_hand(self) -> KeyMaterial:
        return KeyMaterial(token=jwt(ADMIN, exp=int(time.time()) + 3600, access="r", subject="a person"))

    async def inventory(self) -> set[str]:
        return set()  # nobody keeps a list

    def wrong_admin(self) -> Assignment:
        return self.assignment(admin="not-the-api-key-of-this-qdrant-server")

    def close(self) -> None:
        super().close()
        self._stack.close()


class RevocableTokenCase(QdrantTokenCase):
    id = "qdrant-Token-revocable"
    traits = IssuerTraits(generates=True, revocable=True, expires=True, leeway=31.0)
    calls = METHODS
    fields: ClassVar[dict[str, Any]] = {"revocationCollection": REVOCATIONS}

    async def inventory(self) -> set[str]:
        asking = client(self.server, ADMIN)
        try:
            if not await asking.collection_exists(REVOCATIONS):
                return set()
            points, _ = await asking.scroll(REVOCATIONS, limit=1000)
        finally:
            await asking.close()
        return {str((point.payload or {})["key_id"]) for point in points}

    def without_right(self) -> Assignment:
        return self.assignment(admin=READ_ONLY)


CASES = (QdrantTokenCase, RevocableTokenCase)
