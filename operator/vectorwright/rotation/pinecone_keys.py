"""API keys of a Pinecone project, made by the Admin API: strategy DualKey.

Spoken in plain HTTP. The SDK's ``Admin`` is synchronous, asks for an access token when it is constructed, and repeats
requests whose answer was lost, which would make two keys of one.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.kube import clock
from vectorwright.stores.registry import StoreCredentials
from vectorwright.stores.safe_text import safe_text

from .admin_http import MAX_PAGES, AdminHttp, Answer, in_brackets, open_api, present, text_of, usable
from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import numbered, revision_of

PUBLIC_API = "https://api.pinecone.io"
PUBLIC_LOGIN = "https://login.pinecone.io"
AUDIENCE = "https://api.pinecone.io/"
"""Of every access token, whatever the address."""
API_VERSION = "2026-07"
"""What the installed SDK speaks; a test holds the two together."""
TOKEN_MARGIN = 300.0
"""Seconds before its stated expiry from which a token is not used any more; half its life where that is shorter. The
SDK's own number."""
SETTLES_AFTER = 5.0
"""Seconds after which to look again whether a deletion, which is asynchronous, has made room."""
_CONTROL_PLANE = {"ProjectEditor", "ProjectViewer", "ControlPlaneEditor", "ControlPlaneViewer"}
"""Roles with which a key may list indexes."""
_VERSION = {"X-Pinecone-Api-Version": API_VERSION}


class ServiceAccount:
    """A service account that signs in by OAuth client credentials. Its access token is shared by all calls."""

    def __init__(self, login: AdminHttp, credentials: StoreCredentials) -> None:
        """Raises Terminal (``MissingCredentials``, ``InvalidCredentials``)."""
        client_id = present(credentials.username, "the client id (`username`)")
        client_secret = present(credentials.password, "the client secret (`password`)")
        self._login = login
        self._material = KeyMaterial(username=client_id, password=client_secret)
        self._access = KeyMaterial()
        """Its token, where there is one."""
        self._until = 0.0
        self._signing_in = asyncio.Lock()

    @property
    def secrets(self) -> tuple[str | None, ...]:
        """What must not be shown."""
        return self._material.password, self._access.token

    async def token(self, refused: str | None = None) -> str:
        """A token that is still good: the present one, unless that is the one that was ``refused``.

        Raises Terminal (``AccessDenied``), Retryable.
        """
        async with self._signing_in:
            token = self._access.token
            if token is None or token == refused or clock.now() >= self._until:
                self._access = KeyMaterial()
                token, life = await self._sign_in()
                self._access = KeyMaterial(token=token)
                # From the moment of the answer, and on a clock that nobody sets.
                self._until = clock.now() + life - min(TOKEN_MARGIN, life / 2) if life < math.inf else math.inf
            return token

    async def _sign_in(self) -> tuple[str, float]:
        """(token, seconds that it lives: infinite where nothing was said, so that a refusal tells)."""
        answer = await self._login.call(
            "POST",
            "/oauth/token",
            headers=_VERSION,
            body={
                "client_id": self._material.username,
                "client_secret": self._material.password,
                "grant_type": "client_credentials",
                "audience": AUDIENCE,
            },
        )
        token = (answer.body or {}).get("access_token")
        if not answer.fine or not isinstance(token, str) or not token:
            raise self._refusal(answer)
        if not (token.isascii() and token.isprintable()):  # no header would take it
            raise self._login.stranger(answer.status)
        life = (answer.body or {}).get("expires_in")
        stated = isinstance(life, int | float) and not isinstance(life, bool) and life > 0
        return token, float(life) if stated else math.inf  # type: ignore[arg-type]

    def _refusal(self, answer: Answer) -> VectorwrightError:
        body = answer.body or {}
        code, told = body.get("error"), body.get("error_description")
        told = told if isinstance(told, str) else ""
        known = answer.status == 401 or (answer.status in {400, 403} and isinstance(code, str))
        if known and (answer.status != 400 or code in {"invalid_client", "access_denied", "unauthorized_client"}):
            said = f": {safe_text(told, self.secrets)}" if told else ""
            return Terminal(
                f"{self._login.endpoint} refused the service account (HTTP {answer.status}){said}: check client id and "
                "client secret in the Secret of spec.adminCredentials, and whether the account still exists",
                reason="AccessDenied",
            )
        return self._login.refusal(answer, told or (code if isinstance(code, str) else ""), self.secrets)


class PineconeKeys:
    """The API keys of one project."""

    traits = IssuerTraits(generates=False)

    def __init__(self, assignment: Assignment) -> None:
        """Raises Terminal (``MissingCredentials``, ``InvalidCredentials``)."""
        connection, identity = assignment.connection, assignment.identity
        self._owner = assignment.owner
        self._project = str(identity["projectId"])
        self._roles = [str(role) for role in identity["roles"]]
        store_url = str(connection.settings.get("controlUrl") or PUBLIC_API)
        where = "spec.identity.pinecone"
        admin_url, login_url = identity.get("adminUrl"), identity.get("loginUrl")
        self._admin = open_api(connection, admin_url, PUBLIC_API, f"{where}.adminUrl", store_url)
        self._login = open_api(connection, login_url, PUBLIC_LOGIN, f"{where}.loginUrl", store_url)
        self._store = AdminHttp(store_url, "spec.pinecone.controlUrl", connection.tls, connection.timeout)
        self._account = ServiceAccount(self._login, connection.credentials)

    @property
    def _keys_path(self) -> str:
        return f"/admin/projects/{quote(self._project, safe='')}/api-keys"

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`. Pinecone takes 80 characters, and several keys of one name."""
        return numbered(self._owner, revision, most=80)

    def draft(self, request: KeyRequest) -> None:
        """None: Pinecone makes the value."""

    async def check(self) -> None:
        """Whether the service account reaches the project and manages its keys.

        No call tells the latter, but one refused for want of a right does: a key is deleted that does not exist. Where
        Pinecone looks for the key first, :meth:`create` finds out. Raises Terminal (``AccessDenied``,
        ``AdminRightMissing``, ``ProjectNotFound``), Retryable.
        """
        answer = await self._ask("GET", f"/admin/projects/{quote(self._project, safe='')}")
        if not answer.fine or not isinstance((answer.body or {}).get("id"), str):
            raise self._refusal(answer, "see the details")
        await self._keys()
        answer = await self._ask("DELETE", f"/admin/api-keys/{uuid4()}")
        if answer.status not in {400, 404} and not answer.fine:
            raise self._refusal(answer, "delete API keys")

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Make a key. What has its name already is deleted first: nobody has its value.

        Raises Terminal (``KeyQuotaReached``, ``AdminRightMissing``, ``RoleNotFound`` …), Retryable; ``InProgress``
        where a deletion has not made room yet.
        """
        remains = [key for key in await self._keys() if key.name == request.name]
        for key in remains:
            await self._delete(key)
        answer = await self._ask(
            "POST", self._keys_path, body={"name": request.name, "roles": self._roles}, changes=True
        )
        body = answer.body or {}
        value, key_id = body.get("value"), text_of(body.get("key"), "id")
        if answer.fine and isinstance(value, str) and value and key_id:
            return IssuedKey(key_id, KeyMaterial(token=value))
        if _is_quota(answer):
            if remains:
                raise Retryable(
                    f"project {self._project} has no room for a key until key {remains[0].id} is deleted",
                    reason="InProgress",
                    after=SETTLES_AFTER,
                )
            raise Terminal(
                f"project {self._project} has all the API keys that it may have{self._said(answer)}: delete keys that "
                "nobody uses, or have the quota raised",
                reason="KeyQuotaReached",
            )
        told = _words(answer)[1]
        if answer.status == 403 and re.search("|".join((r"\bplan\b", *self._roles)), told):
            raise Terminal(
                f"Pinecone gives no key of project {self._project} the roles {', '.join(self._roles)}"
                f"{self._said(answer)}: change spec.identity.pinecone.roles, or the organization's plan",
                reason="RoleNotFound",
            )
        raise self._refusal(answer, "make API keys")

    async def accepts(self, key: KeyMaterial) -> bool:
        """Lists the project's indexes with the key. 401 is what Pinecone says to a key that it does not know.

        403 says that it knows the key, whose roles do not cover the call: a key of the data plane is accepted. A key
        that should be able to list indexes is neither that nor refused: Retryable (``UnexpectedAnswer``).
        """
        token = usable(key.token, "the API key")
        answer = await self._store.call("GET", "/indexes", headers={**_VERSION, "Api-Key": token})
        if answer.status == 401:
            return False
        if answer.fine and isinstance((answer.body or {}).get("indexes"), list):
            return True
        told = _words(answer)[1]
        if answer.status == 403 and told:
            if not _CONTROL_PLANE.intersection(self._roles):
                return True
            raise Retryable(
                f"{self._store.endpoint} knows the key and does not let it list indexes, as its roles allow "
                f"({safe_text(told, (token,))}): check the project's plan and network rules",
                reason="UnexpectedAnswer",
            )
        raise self._store.refusal(answer, told, (token,))

    async def revoke(self, key: LiveKey) -> None:
        """Delete a key. Pinecone accepts the request (202) and carries it out some time later.

        Raises Conflict (``NotOurs``) for a key whose name is not this resource's: what says that it is was changed.
        """
        found = next((known for known in await self._keys() if known.id == key.id), None)
        if found is None:
            return
        if found.revision is None:
            raise Conflict(f"key {key.id} was not made by this resource: it is left alone", reason="NotOurs")
        await self._delete(key)

    async def _delete(self, key: LiveKey) -> None:
        """Delete a key that was found to be ours. Fine when it is gone."""
        answer = await self._ask("DELETE", f"/admin/api-keys/{quote(key.id, safe='')}", changes=True)
        if answer.fine:
            return
        error = self._refusal(answer, "delete API keys", of_project=False)
        if not isinstance(error, NotFound):
            raise error

    async def live(self) -> list[LiveKey]:
        """The project's keys that have a name of ours. A deleted one may be among them for a while."""
        return [key for key in await self._keys() if key.revision is not None]

    async def predecessor(self) -> None:
        """None: keys have no name by which the spec could hand one over."""

    async def close(self) -> None:
        """Close connections."""
        for api in (self._admin, self._login, self._store):
            await api.close()

    async def _keys(self) -> list[LiveKey]:
        """All keys of the project, whoever made them; ``revision`` is set of ours."""
        found: list[LiveKey] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            answer = await self._ask("GET", self._keys_path, params={"paginationToken": cursor} if cursor else None)
            listed = (answer.body or {}).get("data")
            if not answer.fine or not isinstance(listed, list):
                raise self._refusal(answer, "list API keys")
            for one in listed:
                key_id, name = text_of(one, "id"), text_of(one, "name")
                if not key_id:
                    raise self._admin.stranger(answer.status)
                found.append(LiveKey(key_id, name, revision_of(self._owner, name)))
            cursor = text_of((answer.body or {}).get("pagination"), "next")
            if not cursor:
                return found
        raise self._admin.stranger(200)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        changes: bool = False,
    ) -> Answer:
        """Ask the Admin API. A token that it refuses is replaced once: tokens end with their service account."""
        token = await self._account.token()
        for attempt in range(2):
            answer = await self._admin.call(
                method,
                path,
                headers={**_VERSION, "Authorization": f"Bearer {token}"},
                params=params,
                body=body,
                changes=changes,
            )
            if answer.status != 401:
                return answer
            if attempt == 0:
                token = await self._account.token(refused=token)
        raise Terminal(
            f"{self._admin.endpoint} refuses access tokens of the service account (HTTP 401){self._said(answer)}: "
            "check whether it still exists",
            reason="AccessDenied",
        )

    def _said(self, answer: Answer) -> str:
        return in_brackets(_words(answer)[1], self._account.secrets)

    def _refusal(self, answer: Answer, doing: str, *, of_project: bool = True) -> VectorwrightError:
        told = _words(answer)[1]
        if answer.status == 403 and told:
            return Terminal(
                f"the service account may not {doing} of project {self._project}{self._said(answer)}: give it a role "
                "in the project that manages API keys, such as project owner",
                reason="AdminRightMissing",
            )
        if answer.status == 404 and told and of_project:
            return Terminal(
                f"project {self._project} does not exist, or the service account does not see it{self._said(answer)}: "
                "check spec.identity.pinecone.projectId",
                reason="ProjectNotFound",
            )
        return self._admin.refusal(answer, told, self._account.secrets)


def _words(answer: Answer) -> tuple[str, str]:
    """(code, message) of an error of Pinecone's own; ("", "") of anything else."""
    error = (answer.body or {}).get("error")
    return text_of(error, "code"), text_of(error, "message")


def _is_quota(answer: Answer) -> bool:
    """Whether there are too many keys. Too many requests are 429 as well, without that code."""
    code, told = _words(answer)
    if "QUOTA" in code.upper():
        return answer.status in {403, 429}
    return answer.status == 403 and bool(re.search(r"\b(quota|limit|maximum)\b", told, re.IGNORECASE))


def open_issuer(assignment: Assignment) -> PineconeKeys:
    """As every strategy's module has it."""
    return PineconeKeys(assignment)
