"""The admin plane of the double: a service account asks for a token, and makes, lists and deletes API keys with it.

API keys are never changed in place: a new one is made, its secret told once, and the old one deleted. Roles decide what
a key may do on the other two planes.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.support.double_clock import DoubleClock

from .refusals import Refusal

CLIENT_ID = "service-account-of-the-tests"
CLIENT_SECRET = "the secret of the service account"
AUDIENCE = "https://api.pinecone.io/"
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
    value: str = field(repr=False)
    name: str = "default"
    roles: tuple[str, ...] = ("ProjectEditor",)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    usable_at: float = 0.0
    refused_at: float = float("inf")

    def may(self, plane: str, *, write: bool) -> bool:
        """Whether the roles of the key allow it."""
        return bool(set(self.roles) & (_WRITES if write else _READS)[plane])

    def told(self) -> dict[str, Any]:
        """Without the secret."""
        return {"id": self.id, "name": self.name, "project_id": self.project, "roles": list(self.roles)}


@dataclass(frozen=True, slots=True)
class _Account:
    secret: str = field(repr=False)
    looks: bool = True
    manages: bool = True


@dataclass(frozen=True, slots=True)
class _Token:
    client_id: str
    ends: float


class AdminPlane:
    """The keys of an organization, by their secrets. There may be many of one name, as the service has it."""

    def __init__(self, keys: Iterable[ApiKey], clock: DoubleClock) -> None:
        self.keys = {key.value: key for key in keys}
        self.clock = clock
        self.usable_after = 0.0
        """Seconds from the creation of a key until the other planes know it."""
        self.usable_until = 0.0
        """Seconds from the deletion of a key until the other planes refuse it: deletions are accepted, not done."""
        self.token_seconds: float = TOKEN_SECONDS
        """How long a token is taken. It is told in whole seconds."""
        self.max_keys = 100
        """Keys of a project: the next one is refused."""
        self.page_size: int | None = None
        """Keys of a page of their list; None for all in one."""
        self._projects = {key.project for key in self.keys.values()}
        self._deleted: dict[str, ApiKey] = {}
        self._accounts = {CLIENT_ID: _Account(CLIENT_SECRET)}
        self._tokens: dict[str, _Token] = {}

    def key(self, value: str) -> ApiKey:
        """The key with that secret. Raises Refusal."""
        found = self.keys.get(value) or self._deleted.get(value)
        if found is None or not found.usable_at <= self.clock.monotonic() < found.refused_at:
            raise Refusal(401, "Invalid API Key")
        return found

    def issue(self, key: ApiKey) -> None:
        """A key that nobody asked for."""
        self.keys[key.value] = key
        self._projects.add(key.project)

    def add_account(self, name: str, *, may_manage_keys: bool = True, may_look: bool = True) -> tuple[str, str]:
        """(id, secret) of one more service account."""
        client_id, secret = f"service-account-{name}", secrets.token_urlsafe(24)
        self._accounts[client_id] = _Account(secret, may_look, may_manage_keys)
        return client_id, secret

    def remove_account(self, client_id: str) -> None:
        """Revoke a service account: its secret is refused, and so are its tokens."""
        del self._accounts[client_id]

    def forget_tokens(self) -> None:
        """Tokens are no longer taken, though they did not expire: new ones are."""
        self._tokens.clear()

    def token(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of the token endpoint (OAuth 2.0, client credentials). Raises Refusal."""
        if body.get("grant_type") != "client_credentials" or body.get("audience") != AUDIENCE:
            raise Refusal(400, f"grant_type must be client_credentials, and audience {AUDIENCE}")
        account = self._accounts.get(str(body.get("client_id")))
        if account is None or account.secret != body.get("client_secret"):
            raise Refusal(401, "Unauthorized")
        token = secrets.token_urlsafe(24)
        self._tokens[token] = _Token(str(body["client_id"]), self.clock.monotonic() + self.token_seconds)
        return {"access_token": token, "token_type": "Bearer", "expires_in": int(self.token_seconds)}

    def answer(
        self, method: str, path: str, body: dict[str, Any], authorization: str, page: str = ""
    ) -> tuple[int, Any]:
        """(status, body). ``page`` is the token of a page of a list. Raises Refusal."""
        token = self._tokens.get(authorization.removeprefix("Bearer "))
        account = self._accounts.get(token.client_id) if token is not None else None
        if token is None or account is None or self.clock.monotonic() >= token.ends:
            raise Refusal(401, "Unauthorized")
        if not account.looks or (method != "GET" and not account.manages):
            raise Refusal(403, "The roles of this service account do not allow it")
        parts = path.strip("/").split("/")[1:]
        match (method, parts):
            case ("GET", ["projects"]):
                return 200, {"data": [self._project(name) for name in sorted(self._projects)]}
            case ("GET", ["projects", project]):
                return 200, self._project(self._known(project))
            case ("GET", ["projects", project, "api-keys"]):
                return 200, self._page(self._of(self._known(project)), page)
            case ("POST", ["projects", project, "api-keys"]):
                return 201, self._make(self._known(project), body)
            case ("GET", ["api-keys", key_id]):
                return 200, self._by_id(key_id).told()
            case ("PATCH", ["api-keys", key_id]):
                return 200, self._change(self._by_id(key_id), body)
            case ("DELETE", ["api-keys", key_id]):
                key = self.keys.pop(self._by_id(key_id).value)
                key.refused_at = self.clock.monotonic() + self.usable_until
                self._deleted[key.value] = key
                return 202, {}
        raise Refusal(404, f"{method} {path} is not known")

    def _of(self, project: str) -> list[ApiKey]:
        return [key for key in self.keys.values() if key.project == project]

    def _page(self, keys: list[ApiKey], page: str) -> dict[str, Any]:
        first = int(page) if page.isdecimal() else 0
        end = len(keys) if self.page_size is None else first + self.page_size
        told: dict[str, Any] = {"data": [key.told() for key in keys[first:end]]}
        return told if end >= len(keys) else {**told, "pagination": {"next": str(end)}}

    def _known(self, project: str) -> str:
        if project not in self._projects:
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
        name, roles = _name(body.get("name")), _roles(body.get("roles", ["ProjectEditor"]))
        if len(self._of(project)) >= self.max_keys:
            said = f"Project {project} reached its quota of {self.max_keys} API keys"
            raise Refusal(403, said, code="QUOTA_EXCEEDED")
        key = ApiKey(
            project=project,
            value=f"pcsk_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}",
            name=name,
            roles=roles,
            usable_at=self.clock.monotonic() + self.usable_after,
        )
        self.keys[key.value] = key
        return {"key": key.told(), "value": key.value}

    def _change(self, key: ApiKey, body: dict[str, Any]) -> dict[str, Any]:
        roles = _roles(body["roles"]) if "roles" in body else key.roles
        key.name = _name(body["name"]) if "name" in body else key.name
        key.roles = roles
        return key.told()


def _name(name: Any) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= 80:
        raise Refusal(400, "name must have 1 to 80 characters")
    return name


def _roles(roles: Any) -> tuple[str, ...]:
    if not isinstance(roles, list) or not roles or set(roles) - ROLES:
        raise Refusal(400, f"roles must be of {', '.join(sorted(ROLES))}")
    return tuple(roles)
