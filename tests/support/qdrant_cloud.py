"""A double of Qdrant Cloud: one account with clusters, whose database keys are made by the Cloud API.

It follows the vendor's published API (qdrant-cloud-public-api: cluster/auth/v2, as its gRPC gateway speaks it in JSON).
Differences: what a real key is (a token that a collection of the cluster vouches for) is not copied, keys are opaque.
The published API does not say whether names may repeat: they may, unless ``unique_names`` is set.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from tests.support.double_clock import DoubleClock
from tests.support.loopback_http import LoopbackHttp, Request, Response
from tests.support.operations import Operations
from tests.support.qdrant.access import Access
from tests.support.qdrant.double import QdrantDouble
from tests.support.qdrant.errors import rejected

__all__ = ["PERMISSIONS", "QdrantCloudDouble"]

PERMISSIONS = ("read:api_keys", "write:api_keys", "delete:api_keys", "read:clusters", "read:roles")
MAX_RULES = 20
_KEYS = r"/api/cluster/auth/v2/accounts/(?P<account>[^/]+)/database-api-keys"
_ROUTES = (
    ("keys.list", "GET", _KEYS, "read:api_keys"),
    ("keys.create", "POST", _KEYS, "write:api_keys"),
    ("keys.delete", "DELETE", rf"{_KEYS}/(?P<key>[^/]+)", "delete:api_keys"),
    (
        "clusters.get",
        "GET",
        r"/api/cluster/v1/accounts/(?P<account>[^/]+)/clusters/(?P<cluster>[^/]+)",
        "read:clusters",
    ),
    ("permissions", "GET", r"/api/iam/v1/accounts/(?P<account>[^/]+)/effective-permissions", "read:roles"),
)
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}
"""HTTP status → gRPC code, as the gateway has them."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NAME = re.compile(r"[\w\s-]{4,128}")
_COLLECTION = re.compile(r"[a-zA-Z0-9-_]{4,64}")
_GLOBAL = "GLOBAL_ACCESS_RULE_ACCESS_TYPE_"
_COLLECTIONS = "COLLECTION_ACCESS_RULE_ACCESS_TYPE_"


class _Refusal(Exception):  # noqa: N818 - it is an answer
    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


@dataclass(slots=True)
class _Key:
    cluster: str
    name: str
    value: str = field(repr=False)
    access: Access
    rules: list[dict[str, Any]]
    expires_at: datetime | None
    usable_at: float
    refused_at: float = float("inf")
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: str = field(default_factory=lambda: _told(datetime.now(UTC)))


class QdrantCloudDouble:
    """The Cloud API at ``url``, and ``cluster``, a double of Qdrant that takes the keys that are made there.

    ``add_cluster()`` makes more of them. Operations are ``keys.list``, ``keys.create``, ``keys.delete``,
    ``clusters.get`` and ``permissions``. ``management_key`` may do everything.
    """

    def __init__(self) -> None:
        self.account_id = str(uuid.uuid4())
        self.operations = Operations()
        self.clock = DoubleClock()
        self.usable_after = 0.0
        """Seconds from the creation of a key until its cluster takes it."""
        self.usable_until = 0.0
        """Seconds from the deletion of a key until its cluster refuses it."""
        self.max_keys = 1_000
        """Keys of an account: the next one is refused."""
        self.unique_names = False
        """Whether a name that a key of the cluster has already is refused (409)."""
        self.clusters: dict[str, QdrantDouble] = {}
        self._keys: dict[str, _Key] = {}
        self._deleted: dict[str, _Key] = {}
        self._management_keys: dict[str, frozenset[str]] = {}
        self._guard = threading.RLock()
        self.management_key = self.add_management_key(*PERMISSIONS)
        self.cluster_id = self.add_cluster()
        self.cluster = self.clusters[self.cluster_id]
        self._server: LoopbackHttp | None = None
        self.host, self.port = "127.0.0.1", 0
        self.start()
        self.url = f"http://{self.host}:{self.port}"

    def add_management_key(self, *permissions: str) -> str:
        """One more management key of the account, with some of :data:`PERMISSIONS`."""
        value = f"{uuid.uuid4()}|{secrets.token_urlsafe(32)}"
        self._management_keys[value] = frozenset(permissions)
        return value

    def remove_management_key(self, value: str) -> None:
        """It is refused from now on."""
        del self._management_keys[value]

    def add_cluster(self) -> str:
        """The id of one more cluster of the account, in :attr:`clusters`."""
        cluster_id = str(uuid.uuid4())

        def issued(value: str) -> Access | None:
            return self._access(cluster_id, value)

        self.clusters[cluster_id] = QdrantDouble(api_key=secrets.token_hex(16), jwt_rbac=False, issued=issued)
        return cluster_id

    def names(self, cluster_id: str | None = None) -> list[str]:
        """Names of the keys that were not deleted, as they were made."""
        with self._guard:
            return [key.name for key in self._keys.values() if cluster_id in {None, key.cluster}]

    def start(self) -> None:
        """Start the Cloud API (again) on the same port, with all that was there. The clusters have their own."""
        if self._server is None:
            self._server = LoopbackHttp(self._answer, self.port, keep_requests=False)
            self.port = self._server.port

    def stop(self) -> None:
        """Stop the Cloud API; ``start()`` brings it back."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    def close(self) -> None:
        self.stop()
        for cluster in self.clusters.values():
            cluster.close()

    def _access(self, cluster_id: str, value: str) -> Access | None:
        with self._guard:
            for key in (*self._keys.values(), *self._deleted.values()):
                if key.cluster == cluster_id and secrets.compare_digest(key.value, value):
                    break
            else:
                return None
        if not key.usable_at <= self.clock.monotonic() < key.refused_at:
            return None
        if key.expires_at is not None and self.clock.now() >= key.expires_at:
            raise rejected("ExpiredSignature")
        return key.access

    def _answer(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        for operation, method, pattern, permission in _ROUTES:
            found = re.fullmatch(pattern, parts.path)
            if found is None or method != request.method:
                continue
            fault = self.operations.met(operation)
            if fault is not None:
                time.sleep(fault.delay)
            if fault is not None and fault.status is not None:
                if fault.done:
                    self._honest(operation, permission, found, request)
                waits = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                return _error(fault.status, "failed on purpose", waits)
            return self._honest(operation, permission, found, request)
        return _error(404, "Not Found")

    def _honest(self, operation: str, permission: str, found: re.Match[str], request: Request) -> Response:
        names = {name: unquote(value) for name, value in found.groupdict().items()}
        asked = parse_qs(urlsplit(request.path).query)
        names["cluster"] = names.get("cluster") or (asked.get("clusterId") or asked.get("cluster_id") or [""])[0]
        try:
            with self._guard:
                permissions = self._admitted(request, permission, names["account"])
                match operation:
                    case "keys.list":
                        return _json(self._list(names["cluster"]))
                    case "keys.create":
                        return _json(self._create(_body(request)))
                    case "keys.delete":
                        return _json(self._delete(names["cluster"], names["key"]))
                    case "clusters.get":
                        return _json(self._cluster(names["cluster"]))
                    case _:
                        told = [{"value": one, "category": one.partition(":")[2]} for one in sorted(permissions)]
                        return _json({"permissions": told})
        except _Refusal as refusal:
            return _error(refusal.status, refusal.said)

    def _admitted(self, request: Request, permission: str, account: str) -> frozenset[str]:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        permissions = self._management_keys.get(value) if scheme.lower() == "apikey" else None
        if permissions is None:
            raise _Refusal(401, "authentication failed")
        if not _UUID.fullmatch(account):
            raise _Refusal(400, "validation error: account_id: value must be a valid UUID")
        if account != self.account_id or permission not in permissions:
            raise _Refusal(403, f"permission denied: {permission} is required")
        return permissions

    def _list(self, cluster: str) -> dict[str, Any]:
        if cluster and not _UUID.fullmatch(cluster):
            raise _Refusal(400, "validation error: cluster_id: value must be a valid UUID")
        listed = [self._key(key) for key in self._keys.values() if cluster in {"", key.cluster}]
        return {"items": listed}

    def _cluster(self, cluster: str) -> dict[str, Any]:
        if cluster not in self.clusters:
            raise _Refusal(404, f"cluster {cluster} not found")
        endpoint = {"url": self.clusters[cluster].url, "restPort": self.clusters[cluster].port}
        return {"cluster": {"id": cluster, "accountId": self.account_id, "state": {"endpoint": endpoint}}}

    def _delete(self, cluster: str, key_id: str) -> dict[str, Any]:
        for name, value in (("cluster_id", cluster), ("database_api_key_id", key_id)):
            if not _UUID.fullmatch(value):
                raise _Refusal(400, f"validation error: {name}: value must be a valid UUID")
        key = self._keys.get(key_id)
        if key is None or key.cluster != cluster:
            raise _Refusal(404, f"database api key {key_id} not found")
        del self._keys[key_id]
        key.refused_at = self.clock.monotonic() + self.usable_until
        self._deleted[key_id] = key
        return {}

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        given = _field(body, "databaseApiKey")
        if not isinstance(given, dict):
            raise _Refusal(400, "validation error: database_api_key: value is required")
        cluster, name = str(_field(given, "clusterId") or ""), str(given.get("name") or "")
        if not _UUID.fullmatch(cluster):
            raise _Refusal(400, "validation error: database_api_key.cluster_id: value must be a valid UUID")
        if not _NAME.fullmatch(name):
            raise _Refusal(400, r"validation error: database_api_key.name: 4 to 128 characters of ^[\w\s-]+$")
        rules = _field(given, "accessRules") or []
        access, expires = _allowed(rules), _instant(_field(given, "expiresAt"))
        if cluster not in self.clusters:
            raise _Refusal(404, f"cluster {cluster} not found")
        if self.unique_names and name in self.names(cluster):
            raise _Refusal(409, f"database api key {name} already exists")
        if len(self._keys) >= self.max_keys:
            raise _Refusal(429, f"the account has its {self.max_keys} database api keys")
        value = secrets.token_urlsafe(40)
        key = _Key(cluster, name, value, access, rules, expires, self.clock.monotonic() + self.usable_after)
        self._keys[key.id] = key
        return {"databaseApiKey": {**self._key(key), "key": value}}

    def _key(self, key: _Key) -> dict[str, Any]:
        """Without its value."""
        told = {
            "id": key.id,
            "accountId": self.account_id,
            "createdAt": key.created_at,
            "clusterId": key.cluster,
            "name": key.name,
            "accessRules": key.rules or [{"globalAccess": {"accessType": f"{_GLOBAL}MANAGE"}}],
            "createdByEmail": "",
            "postfix": key.value[-7:],
        }
        return told if key.expires_at is None else {**told, "expiresAt": _told(key.expires_at)}


def _allowed(rules: Any) -> Access:
    """What access rules allow. Raises _Refusal."""
    if not isinstance(rules, list) or len(rules) > MAX_RULES:
        raise _Refusal(400, f"validation error: access_rules: at most {MAX_RULES} items")
    everywhere = [one for rule in rules if (one := _field(rule, "globalAccess")) is not None]
    collections = [one for rule in rules if (one := _field(rule, "collectionAccess")) is not None]
    if everywhere and collections:
        raise _Refusal(400, "There can't be global and collection access rules in the same database api key.")
    if len(everywhere) > 1:
        raise _Refusal(400, "There can't be more than one global access rule in the configuration.")
    if len(everywhere) + len(collections) < len(rules):
        raise _Refusal(400, "validation error: access_rules: a rule has no scope")
    if collections:
        return Access(collections=dict(map(_allowed_collection, collections)))
    kind = str(_field(everywhere[0], "accessType")) if everywhere else f"{_GLOBAL}MANAGE"
    if kind not in {f"{_GLOBAL}MANAGE", f"{_GLOBAL}READ_ONLY"}:
        raise _Refusal(400, "validation error: global_access.access_type: value must be specified")
    return Access(writes=kind == f"{_GLOBAL}MANAGE")


def _allowed_collection(rule: Any) -> tuple[str, bool]:
    name, kind = str(_field(rule, "collectionName") or ""), str(_field(rule, "accessType"))
    if not _COLLECTION.fullmatch(name):
        raise _Refusal(400, "validation error: collection_name: 4 to 64 characters of ^[a-zA-Z0-9-_]+$")
    if kind not in {f"{_COLLECTIONS}READ_ONLY", f"{_COLLECTIONS}READ_WRITE"}:
        raise _Refusal(400, "validation error: collection_access.access_type: value must be specified")
    return name, kind == f"{_COLLECTIONS}READ_WRITE"


def _field(of: Any, name: str) -> Any:
    """By its name in JSON, or by its name in proto: the gateway reads both."""
    if not isinstance(of, dict):
        return None
    return of.get(name, of.get(re.sub("([A-Z])", r"_\1", name).lower()))


def _instant(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise _Refusal(400, "invalid value for timestamp field expiresAt") from None
    return instant


def _told(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(request.body or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _Refusal(400, "the body is no JSON object")
    return body


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def _error(status: int, said: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"code": _CODES.get(status, 2), "message": said, "details": []}, status, headers)


@pytest.fixture
def qdrant_cloud() -> Iterator[QdrantCloudDouble]:
    """An account of this test's own, with one cluster and no keys."""
    cloud = QdrantCloudDouble()
    yield cloud
    cloud.close()
