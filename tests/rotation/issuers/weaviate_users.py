"""Users of a real Weaviate server, made by an admin who may do no more than manage users of one name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import weaviate
from tests.rotation.cases import IssuerCase, owner
from tests.support.weaviate import WeaviateWithUsers
from weaviate.auth import Auth
from weaviate.exceptions import UnexpectedStatusCodeError

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection, StoreCredentials

ADMIN = "rotating-admin"
ROLE = "docs-writer"


class WeaviateCase(IssuerCase):
    """What both strategies share: a server, an admin for users ``docs*``, and a role for those."""

    identity = "weaviate"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.served: WeaviateWithUsers = request.getfixturevalue("weaviate_with_users")
        self.served.make_role(ROLE, collection="Docs*")
        self.served.make_role("rotator", actions=(), users="docs*")
        self.admin_key = self.served.make_user(ADMIN, "rotator")

    def assigned(self, name: str, key: str, identity: dict[str, Any]) -> Assignment:
        """An assignment with the key of some admin."""
        host, port = self.through(self.served.host, self.served.port)
        connection = Connection("weaviate", {"url": f"http://{host}:{port}"}, StoreCredentials(token=key), timeout=10)
        return Assignment(connection, identity, owner(name))

    def identity_of(self, **changes: Any) -> dict[str, Any]:
        """The block ``spec.identity.weaviate``."""
        raise NotImplementedError

    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        return self.assigned(name, self.admin_key, self.identity_of(**identity))

    async def use(self, key: KeyMaterial) -> bool:
        return await asyncio.to_thread(self._lists_collections, key.token or "")

    def _lists_collections(self, token: str) -> bool:
        server, auth = self.served.server, Auth.api_key(token)
        try:
            with weaviate.connect_to_local(
                server.host, server.port, server.grpc_port, auth_credentials=auth, skip_init_checks=True
            ) as client:
                client.collections.list_all()
        except UnexpectedStatusCodeError as error:
            if error.status_code != 401:
                raise
            return False
        return True

    async def make_by_hand(self) -> KeyMaterial:
        return KeyMaterial(token=self.served.make_user("docs-by-hand", ROLE), username="docs-by-hand")

    async def inventory(self) -> set[str]:
        return set(self.served.users()) - {ADMIN, "reader"}

    def wrong_admin(self) -> Assignment:
        return self.assigned("search", "no-such-key", self.identity_of())

    def without_right(self) -> Assignment:
        return self.assigned("search", self.served.make_user("reader", ROLE), self.identity_of())


class WeaviateDualIdentity(WeaviateCase):
    id = "weaviate-DualIdentity"
    strategy = Strategy.DUAL_IDENTITY
    traits = IssuerTraits(generates=False)

    def identity_of(self, **changes: Any) -> dict[str, Any]:
        return {"user": "docs", "roles": [ROLE], **changes}

    def missing_role(self) -> Assignment:
        return self.assignment(roles=[ROLE, "no-such-role"])


CASES = (WeaviateDualIdentity,)
