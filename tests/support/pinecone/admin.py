"""The admin plane of the double: a service account asks for a token, and makes, lists and deletes API keys with it.

API keys are never changed in place: a new one is made, its secret told once, and the old one deleted. Roles decide what
a key may do on the other two planes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .refusals import Refusal

CLIENT_ID = "service-account-of-the-tests"
CLIENT_SECRET = "the secret of the service account"
TOKEN_SECONDS = 1_800
_READS = {
    "control": {"ProjectEditor", "ProjectViewer", "ControlPlaneEditor", "ControlPlaneViewer"},
    "data": {"ProjectEditor", "ProjectViewer", "DataPlaneEditor", "DataPlaneViewer"},
}
_WRITES = {
    "control": {"ProjectEditor", "ControlPlaneEditor"},
    "data": {"ProjectEditor", "DataPlaneEditor"},
}
ROLES = _READS["control"] | _READS["data"]


@dataclass(slots=True)
class ApiKey:
    """A key of a project. ``value`` is its secret."""

    project: str
    value: str
    name: str = "default"
    roles: tuple[str, ...] = ("ProjectEditor",)
    id: str = field(default_factory=lambda: f"key-{secrets.token_hex(6)}")
    usable_at: float = 0.0

    def may(self, plane: str, *, write: bool) -> bool:
        """Whether the roles of the key allow it."""
        return bool(set(self.roles) & (_WRITES if write else _READS)[plane])

    def told(self) -> dict[str, Any]:
        """Without the secret."""
        return {"id": self.id, "name": self.name, "project_id": self.project, "roles": list(self.roles)}


class AdminPlane:
    """The keys of an organization, by their secrets."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self.keys = {key.value: key for key in keys}
        self.usable_after = 0.0
        """Seconds from the creation of a key until the other planes know it."""
        self._tokens: set[str] = set()

    def key(self, value: str) -> ApiKey:
        """The key with that secret. Raises Refusal."""
        found = self.keys.get(value)
        if found is None or time.monotonic() < found.usable_at:
            raise Refusal(401, "Invalid API Key")
        return found

    def token(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of the token endpoint (OAuth 2.0, client credentials). Raises Refusal."""
        if (body.get("client_id"), body.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise Refusal(401, "Unauthorized")
        if body.get("grant_type") != "client_credentials" or not body.get("audience"):
            raise Refusal(400, "grant_type must be client_credentials, with an audience")
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        return {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}

    def answer(self, method: str, path: str, body: dict[str, Any], authorization: str) -> tuple[int, Any]:
        """(status, body). Raises Refusal."""
        if authorization.removeprefix("Bearer ") not in self._tokens:
            raise Refusal(401, "Unauthorized")
        parts = path.strip("/").split("/")[1:]
        match (method, parts):
            case ("GET", ["projects"]):
                return 200, {"data": [self._project(name) for name in self._projects()]}
            case ("GET", ["projects", project]):
                return 200, self._project(self._known(project))
            case ("GET", ["projects", project, "api-keys"]):
                known = self._known(project)
                return 200, {"data": [key.told() for key in self.keys.values() if key.project == known]}
            case ("POST", ["projects", project, "api-keys"]):
                return 201, self._make(self._known(project), body)
            case ("GET", ["api-keys", key_id]):
                return 200, self._by_id(key_id).told()
            case ("PATCH", ["api-keys", key_id]):
                return 200, self._change(self._by_id(key_id), body)
            case ("DELETE", ["api-keys", key_id]):
                del self.keys[self._by_id(key_id).value]
                return 202, {}
        raise Refusal(404, f"{method} {path} is not known")

    def _projects(self) -> list[str]:
        return sorted({key.project for key in self.keys.values()})

    def _known(self, project: str) -> str:
        if project not in self._projects():
            raise Refusal(404, f"project {project} not found")
        return project

    def _project(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "name": f"project {name}",
            "max_pods": 0,
            "force_encryption_with_cmek": False,
            "organization_id": "organization-of-the-tests",
            "created_at": "2026-07-01T00:00:00Z",
        }

    def _by_id(self, key_id: str) -> ApiKey:
        for key in self.keys.values():
            if key.id == key_id:
                return key
        raise Refusal(404, f"api key {key_id} not found")

    def _make(self, project: str, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("name")
        if not isinstance(name, str) or not 1 <= len(name) <= 80:
            raise Refusal(400, "name must have 1 to 80 characters")
        key = ApiKey(
            project=project,
            value=f"pcsk_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}",
            name=name,
            roles=_roles(body.get("roles", ["ProjectEditor"])),
            usable_at=time.monotonic() + self.usable_after,
        )
        self.keys[key.value] = key
        return {"key": key.told(), "value": key.value}

    def _change(self, key: ApiKey, body: dict[str, Any]) -> dict[str, Any]:
        key.roles = _roles(body["roles"]) if "roles" in body else key.roles
        key.name = str(body.get("name", key.name))
        return key.told()


def _roles(roles: Any) -> tuple[str, ...]:
    if not isinstance(roles, list) or not roles or set(roles) - ROLES:
        raise Refusal(400, f"roles must be of {', '.join(sorted(ROLES))}")
    return tuple(roles)
