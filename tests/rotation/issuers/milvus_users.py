"""Users of the double of Milvus' access control, made by an admin who may do no more than manage users."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from pymilvus import MilvusClient, MilvusException
from tests.rotation.cases import IssuerCase, owner
from tests.support.milvus_rbac import MilvusRbacDouble

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection, StoreCredentials

ADMIN = "rotating_admin"
PASSWORD = "The-admins-own-passw0rd"
ROLE = "docs"


class MilvusCase(IssuerCase):
    """What both strategies share: a server, an admin, and the role ``docs``."""

    identity = "milvus"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.double: MilvusRbacDouble = request.getfixturevalue("milvus_rbac")
        self.double.add_rotating_admin(ADMIN, PASSWORD)

    def assigned(self, name: str, user: str, password: str, identity: dict[str, Any]) -> Assignment:
        """An assignment with the credentials of some admin."""
        host, port = self.through(self.double.host, self.double.port)
        credentials = StoreCredentials(username=user, password=password)
        connection = Connection("milvus", {"url": f"http://{host}:{port}"}, credentials, timeout=10)
        return Assignment(connection, identity, owner(name))

    def identity_of(self, **changes: Any) -> dict[str, Any]:
        """The block ``spec.identity.milvus``."""
        raise NotImplementedError

    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        return self.assigned(name, ADMIN, PASSWORD, self.identity_of(**identity))

    async def use(self, key: KeyMaterial) -> bool:
        return await asyncio.to_thread(self._lists_collections, key.username or "", key.password or "")

    def _lists_collections(self, user: str, password: str) -> bool:
        try:
            # A connection of its own: one of the same user and address is used again, whatever the password.
            client = MilvusClient(uri=self.double.url, user=user, password=password, timeout=10, dedicated=True)
        except MilvusException as error:
            cause = error.__cause__
            if not isinstance(cause, grpc.RpcError) or cause.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            return False
        try:
            client.list_collections()
        except grpc.RpcError as error:  # the key ended since the connection was made
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                raise
            return False
        finally:
            client.close()
        return True

    async def make_by_hand(self) -> KeyMaterial:
        made = KeyMaterial(username="docs_by_hand", password="Passw0rd-by-hand")
        self.double.add_user("docs_by_hand", made.password or "", ROLE)
        return made

    async def inventory(self) -> set[str]:
        return set(self.double.users()) - {ADMIN, "reader"}

    def wrong_admin(self) -> Assignment:
        return self.assigned("search", ADMIN, "An0ther-password", self.identity_of())

    def without_right(self) -> Assignment:
        self.double.add_user("reader", "Readers-passw0rd", ROLE)
        return self.assigned("search", "reader", "Readers-passw0rd", self.identity_of())


class MilvusDualIdentity(MilvusCase):
    id = "milvus-DualIdentity"
    strategy = Strategy.DUAL_IDENTITY
    traits = IssuerTraits(generates=True)

    def identity_of(self, **changes: Any) -> dict[str, Any]:
        return {"user": "docs", "roles": [ROLE], **changes}

    def missing_role(self) -> Assignment:
        return self.assignment(roles=[ROLE, "no_such_role"])


CASES = (MilvusDualIdentity,)
