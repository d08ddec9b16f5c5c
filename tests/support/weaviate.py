"""Real Weaviate servers on loopback: one with an API key, and one that makes users with keys and roles of their own."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from deploy.servers.weaviate_server import API_KEY_USER, WeaviateServer, start_weaviate_server
from tests.support.http_front import HttpFront
from tests.support.operations import Operations

__all__ = ["API_KEY", "API_KEY_USER", "WeaviateServer", "WeaviateWithUsers", "clear_weaviate"]

API_KEY = "s3cret-that-never-shows"
DATA = ("create_data", "read_data", "update_data", "delete_data")
COLLECTIONS = ("create_collections", "read_collections", "update_collections", "delete_collections")
_OPERATIONS = (
    ("users.list", "GET", r"/v1/users/db"),
    ("users.get", "GET", r"/v1/users/db/[^/]+"),
    ("users.create", "POST", r"/v1/users/db/[^/]+"),
    ("users.delete", "DELETE", r"/v1/users/db/[^/]+"),
    ("users.rotate_key", "POST", r"/v1/users/db/[^/]+/rotate-key"),
    ("users.activate", "POST", r"/v1/users/db/[^/]+/activate"),
    ("users.deactivate", "POST", r"/v1/users/db/[^/]+/deactivate"),
    ("users.own", "GET", r"/v1/users/own-info"),
    ("users.roles", "GET", r"/v1/authz/users/[^/]+/roles(/db)?"),
    ("users.assign", "POST", r"/v1/authz/users/[^/]+/assign"),
    ("users.revoke", "POST", r"/v1/authz/users/[^/]+/revoke"),
    ("roles.list", "GET", r"/v1/authz/roles"),
    ("roles.get", "GET", r"/v1/authz/roles/[^/]+"),
    ("schema.list", "GET", r"/v1/schema"),
    ("meta", "GET", r"/v1/meta"),
)


def operation_of(method: str, path: str) -> str:
    """The name of a request's operation; ``other`` for those that rotation has nothing to do with."""
    path = path.partition("?")[0]
    for name, of, pattern in _OPERATIONS:
        if method == of and re.fullmatch(pattern, path):
            return name
    return "other"


class WeaviateWithUsers:
    """A server that makes users. ``url`` counts operations and fails them on purpose; ``server.url`` does neither.

    ``admin_key`` is that of the root user, who may do everything and cannot be changed. The gRPC API is at
    ``grpc_port``.
    """

    def __init__(self, server: WeaviateServer, admin_key: str) -> None:
        self.server, self.admin_key = server, admin_key
        self._front = HttpFront(server.url, operation_of)
        self.host, self.port, self.url = self._front.host, self._front.port, self._front.url
        self.grpc_port = server.grpc_port

    @property
    def operations(self) -> Operations:
        """Calls of ``url`` by operation (``users.create``, ``users.delete``, …), and their faults."""
        return self._front.operations

    def stop(self) -> None:
        """Stop the server; ``start()`` brings it back on the same ports with its users."""
        self.server.stop()

    def start(self) -> None:
        """Start the server again."""
        self.server.start()

    def api(self, key: str | None = None) -> httpx.Client:
        """The REST API below ``/v1``, asked beside the counting front: as the root user where no key is given."""
        headers = {"Authorization": f"Bearer {self.admin_key if key is None else key}"}
        return httpx.Client(base_url=f"{self.server.url}/v1", headers=headers, timeout=60, trust_env=False)

    def make_role(
        self, name: str, *, collection: str = "*", actions: Sequence[str] = (*DATA, *COLLECTIONS), users: str = ""
    ) -> str:
        """Make a role, which may do ``actions`` on collections of a pattern, and return its name.

        ``users`` is a pattern of users that it may make, change and delete, too: what a rotating admin needs.
        """
        on = {"data": {"collection": collection}, "collections": {"collection": collection}}
        permissions: list[dict[str, Any]] = []
        for action in actions:
            resource = action.partition("_")[2]
            permissions.append({"action": action, resource: on[resource]})
        if users:
            verbs = ("create", "read", "update", "delete", "assign_and_revoke")
            permissions += [{"action": f"{verb}_users", "users": {"users": users}} for verb in verbs]
        with self.api() as api:
            api.post("/authz/roles", json={"name": name, "permissions": permissions}).raise_for_status()
        return name

    def make_user(self, name: str, *roles: str) -> str:
        """Make a user with roles, and return its key."""
        with self.api() as api:
            key = str(api.post(f"/users/db/{name}", json={}).raise_for_status().json()["apikey"])
            if roles:
                api.post(
                    f"/authz/users/{name}/assign", json={"roles": list(roles), "userType": "db"}
                ).raise_for_status()
        return key

    def users(self) -> dict[str, list[str]]:
        """The users that were made, and the roles of each."""
        with self.api() as api:
            listed = api.get("/users/db").raise_for_status().json()
        return {one["userId"]: sorted(one["roles"]) for one in listed if one["dbUserType"] == "db_user"}

    def status_of(self, key: str) -> int:
        """The HTTP status that a key gets for a question that everybody may ask who is known."""
        with self.api(key) as api:
            return api.get("/users/own-info").status_code

    def clear(self) -> None:
        """Delete the users, roles and collections that were made; nothing counted, nothing fails any more."""
        self.operations.forget()
        clear_weaviate(self.server, self.admin_key)
        with self.api() as api:
            for user in self.users():
                api.delete(f"/users/db/{user}").raise_for_status()
            for role in api.get("/authz/roles").raise_for_status().json():
                if role["name"] not in {"admin", "root", "viewer", "read-only"}:
                    api.delete(f"/authz/roles/{role['name']}").raise_for_status()

    def close(self) -> None:
        self._front.close()


@contextmanager
def _served(request: pytest.FixtureRequest, *, makes_users: bool) -> Iterator[WeaviateServer]:
    base = Path(tempfile.mkdtemp(prefix="vectorwright-weaviate-"))
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def tell(message: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{message}", flush=True)  # noqa: T201

    server = start_weaviate_server(base / "data", api_key=API_KEY, makes_users=makes_users, remove=base, progress=tell)
    yield server
    server.stop()
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def weaviate_server(request: pytest.FixtureRequest) -> Iterator[WeaviateServer]:
    """One server for the whole session, which asks for :data:`API_KEY`: its place is this process's own.

    Its program is built first, which takes some minutes, where that was never done.
    """
    with _served(request, makes_users=False) as server:
        yield server


@pytest.fixture(scope="session")
def weaviate_users_server(request: pytest.FixtureRequest) -> Iterator[WeaviateServer]:
    """One server that makes users for the whole session: ask for ``weaviate_with_users``."""
    with _served(request, makes_users=True) as server:
        yield server


@pytest.fixture
def weaviate_with_users(weaviate_users_server: WeaviateServer) -> Iterator[WeaviateWithUsers]:
    """The session's server that makes users, without any yet. A test that stops it starts it again."""
    served = WeaviateWithUsers(weaviate_users_server, API_KEY)
    served.start()
    served.clear()
    yield served
    served.close()


def clear_weaviate(server: WeaviateServer, key: str = API_KEY) -> None:
    """Delete everything that the server holds."""
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers, timeout=60, trust_env=False) as client:
        for alias in client.get("/aliases").raise_for_status().json()["aliases"] or ():
            client.delete(f"/aliases/{alias['alias']}")
        for collection in client.get("/schema").raise_for_status().json()["classes"] or ():
            client.delete(f"/schema/{collection['class']}").raise_for_status()
