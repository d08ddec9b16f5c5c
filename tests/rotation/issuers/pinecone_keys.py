"""API keys of a Pinecone project: a double, or the project of ``PINECONE_PROJECT_ID`` with the service account of
``PINECONE_CLIENT_ID`` and ``PINECONE_CLIENT_SECRET``.

In a real project keys whose names are those of these tests are deleted before and after each test; others are not
touched. Faults are tried on the double alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from pinecone import Admin, Pinecone, RetryConfig, UnauthorizedError
from tests.contract.providers.exclusive import take_turns
from tests.rotation.cases import BY_HAND, METHODS, OURS, IssuerCase, owner
from tests.support.pinecone import CLIENT_ID, CLIENT_SECRET, PineconeDouble

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection, StoreCredentials

REAL_ID = os.environ.get("PINECONE_CLIENT_ID", "")
REAL_SECRET = os.environ.get("PINECONE_CLIENT_SECRET", "")
REAL_PROJECT = os.environ.get("PINECONE_PROJECT_ID", "")
REAL = bool(REAL_ID and REAL_SECRET and REAL_PROJECT)
PROJECT = "5f1a6c0e-3b52-4d0e-9c53-3f7f0c6f2a11"


class PineconeDualKey(IssuerCase):
    id = "pinecone-DualKey"
    identity = "pinecone"
    strategy = Strategy.DUAL_KEY
    traits = IssuerTraits(generates=False)
    calls: ClassVar[frozenset[str]] = frozenset({"live"}) if REAL else METHODS
    refusal_seconds = 300.0 if REAL else 5.0
    acceptance_seconds = 300.0 if REAL else 5.0
    missing_reason = "ProjectNotFound"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._client_id, self._client_secret = REAL_ID or CLIENT_ID, REAL_SECRET or CLIENT_SECRET
        self.project = REAL_PROJECT or PROJECT
        if REAL:
            take_turns(request, "PINECONE_PROJECT_ID", self.project, held=list, empty=self._clear)
            return
        self.double = PineconeDouble({"pcsk_of_a_person": PROJECT})
        self.double.admin.usable_after = self.double.admin.usable_until = 0.2

    def assigned(self, client_id: str, client_secret: str, name: str = "search", **identity: Any) -> Assignment:
        """An assignment with some service account."""
        settings: dict[str, Any] = {}
        block: dict[str, Any] = {"projectId": self.project, "roles": ["ProjectEditor"]}
        if not REAL:
            host, port = self.through(self.double.host, self.double.port)
            url = f"http://{host}:{port}"
            settings = {"controlUrl": url}
            block |= {"adminUrl": url, "loginUrl": url}
        credentials = StoreCredentials(username=client_id, password=client_secret)
        connection = Connection("pinecone", settings, credentials, timeout=10)
        return Assignment(connection, {**block, **identity}, owner(name))

    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        return self.assigned(self._client_id, self._client_secret, name, **identity)

    def wrong_admin(self) -> Assignment:
        return self.assigned(self._client_id, "not the client secret")

    def without_right(self) -> Assignment:
        if REAL:
            pytest.skip("a real organization has no such service account for the tests")
        return self.assigned(*self.double.admin.add_account("viewer", may_manage_keys=False))

    def missing_role(self) -> Assignment:
        return self.assignment(projectId=str(uuid4()))

    async def use(self, key: KeyMaterial) -> bool:
        return await asyncio.to_thread(self._lists_indexes, key.token or "")

    def _lists_indexes(self, token: str) -> bool:
        place: dict[str, Any] = {} if REAL else {"host": self.double.url}
        with Pinecone(api_key=token, retry_config=RetryConfig(max_retries=0), **place) as client:
            try:
                list(client.indexes.list())
            except UnauthorizedError:
                return False
        return True

    def admin(self) -> Admin:
        """The vendor's own client."""
        place: dict[str, Any] = {}
        if not REAL:
            place = {"host": self.double.url, "oauth_url": f"{self.double.url}/oauth/token"}
        return Admin(client_id=self._client_id, client_secret=self._client_secret, **place)

    async def make_by_hand(self) -> KeyMaterial:
        with self.admin() as admin:
            return KeyMaterial(token=admin.api_keys.create(project_id=self.project, name=BY_HAND).value)

    async def inventory(self) -> set[str]:
        with self.admin() as admin:
            return set(self._ours(admin).values())

    def _ours(self, admin: Admin) -> dict[str, str]:
        """Id → name."""
        listed = {key.id: key.name or "" for key in admin.api_keys.list(project_id=self.project)}
        return {key_id: name for key_id, name in listed.items() if name.startswith(OURS)}

    def _clear(self) -> None:
        with self.admin() as admin:
            for key_id in self._ours(admin):
                admin.api_keys.delete(api_key_id=key_id)
            ends = time.monotonic() + 120
            while self._ours(admin):
                assert time.monotonic() < ends, "keys of these tests are still listed"
                time.sleep(1)

    def close(self) -> None:
        super().close()
        if not REAL:
            self.double.close()


CASES = (PineconeDualKey,)
