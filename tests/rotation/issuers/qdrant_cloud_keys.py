"""Database API keys of a Qdrant Cloud cluster: a double, or the cluster of ``QDRANT_CLOUD_CLUSTER_ID`` at
``QDRANT_CLOUD_CLUSTER_URL``, in the account ``QDRANT_CLOUD_ACCOUNT_ID`` with the key ``QDRANT_CLOUD_MANAGEMENT_KEY``.

In a real cluster keys whose names are those of these tests are deleted before and after each test; others are not
touched. Faults are tried on the double alone.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_client.http.exceptions import UnexpectedResponse
from tests.contract.providers.exclusive import take_turns
from tests.rotation.cases import BY_HAND, METHODS, OURS, IssuerCase, owner
from tests.support.qdrant_cloud import QdrantCloudDouble

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection, StoreCredentials

REAL_KEY = os.environ.get("QDRANT_CLOUD_MANAGEMENT_KEY", "")
REAL_ACCOUNT = os.environ.get("QDRANT_CLOUD_ACCOUNT_ID", "")
REAL_CLUSTER = os.environ.get("QDRANT_CLOUD_CLUSTER_ID", "")
REAL_URL = os.environ.get("QDRANT_CLOUD_CLUSTER_URL", "")
REAL = bool(REAL_KEY and REAL_ACCOUNT and REAL_CLUSTER and REAL_URL)


class QdrantCloudDualKey(IssuerCase):
    id = "qdrantCloud-DualKey"
    identity = "qdrantCloud"
    strategy = Strategy.DUAL_KEY
    traits = IssuerTraits(generates=False)
    calls: ClassVar[frozenset[str]] = frozenset({"live"}) if REAL else METHODS
    refusal_seconds = 300.0 if REAL else 5.0
    acceptance_seconds = 300.0 if REAL else 5.0
    missing_reason = "ClusterNotFound"

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        if REAL:
            self._api = "https://api.cloud.qdrant.io"
            self.account, self.cluster, self.management_key = REAL_ACCOUNT, REAL_CLUSTER, REAL_KEY
            take_turns(request, "QDRANT_CLOUD_CLUSTER_ID", self.cluster, held=list, empty=self._clear)
            return
        self.double: QdrantCloudDouble = request.getfixturevalue("qdrant_cloud")
        self.double.usable_after = self.double.usable_until = 0.2
        self._api = self.double.url
        self.account, self.cluster = self.double.account_id, self.double.cluster_id
        self.management_key = self.double.management_key

    def assigned(self, management_key: str, name: str = "search", **identity: Any) -> Assignment:
        """An assignment with some management key."""
        block: dict[str, Any] = {"accountId": self.account, "clusterId": self.cluster}
        settings: dict[str, Any] = {"url": REAL_URL}
        if not REAL:
            host, port = self.through(self.double.host, self.double.port)
            block["apiUrl"] = f"http://{host}:{port}"
            host, port = self.through(self.double.cluster.host, self.double.cluster.grpc_port)
            settings = {"url": f"http://{host}:{port}", "grpcPort": port}
        connection = Connection("qdrant", settings, StoreCredentials(token=management_key), timeout=10)
        return Assignment(connection, {**block, **identity}, owner(name))

    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        return self.assigned(self.management_key, name, **identity)

    def wrong_admin(self) -> Assignment:
        return self.assigned("no-such-management-key")

    def without_right(self) -> Assignment:
        if REAL:
            pytest.skip("a real account has no such management key for the tests")
        return self.assigned(self.double.add_management_key("read:api_keys", "read:roles"))

    def missing_role(self) -> Assignment:
        return self.assignment(clusterId=str(uuid4()))

    async def use(self, key: KeyMaterial) -> bool:
        url = REAL_URL or self.double.cluster.url
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection", UserWarning)
            client = AsyncQdrantClient(url=url, api_key=key.token, check_compatibility=False, timeout=10)
        try:
            await client.get_collections()
        except UnexpectedResponse as error:
            if error.status_code not in {401, 403}:
                raise
            return False
        finally:
            await client.close()
        return True

    def _ask(self, method: str, path: str = "", **body: Any) -> dict[str, Any]:
        """The vendor has no client for this API in Python: plain HTTP, as its documentation shows."""
        answer = httpx.request(
            method,
            f"{self._api}/api/cluster/auth/v2/accounts/{self.account}/database-api-keys{path}",
            params={"clusterId": self.cluster},
            headers={"Authorization": f"apikey {self.management_key}"},
            timeout=30,
            **body,
        )
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def keys(self) -> list[dict[str, Any]]:
        """Keys of these tests, as the Cloud API tells them."""
        return [one for one in self._ask("GET").get("items", []) if one["name"].startswith(OURS)]

    async def make_by_hand(self) -> KeyMaterial:
        wanted = {"accountId": self.account, "clusterId": self.cluster, "name": BY_HAND}
        made = await asyncio.to_thread(self._ask, "POST", json={"databaseApiKey": wanted})
        return KeyMaterial(token=made["databaseApiKey"]["key"])

    async def inventory(self) -> set[str]:
        return {one["name"] for one in await asyncio.to_thread(self.keys)}

    def _clear(self) -> None:
        for key in self.keys():
            self._ask("DELETE", f"/{key['id']}")


class QdrantCloudExpiringKey(QdrantCloudDualKey):
    """Keys that expire, for one collection that does not exist yet."""

    id = "qdrantCloud-DualKey-expiring"
    traits = IssuerTraits(generates=False, expires=True)

    def assigned(self, management_key: str, name: str = "search", **identity: Any) -> Assignment:
        rules = {"expires": True, "collections": [{"collection": "not-made-yet", "access": "r"}]}
        return super().assigned(management_key, name, **{**rules, **identity})


CASES = (QdrantCloudDualKey, QdrantCloudExpiringKey)
