"""Database API keys of a Qdrant Cloud cluster, made by the Cloud API: strategy DualKey.

``qdrant.cloud.cluster.auth.v2`` over its REST gateway, which answers errors as gRPC statuses in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError

from .admin_http import MAX_PAGES, Answer, in_brackets, open_api, text_of, usable
from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import numbered, revision_of
from .qdrant_trial import refusal

PUBLIC_API = "https://api.cloud.qdrant.io"
RIGHTS = ("read:api_keys", "write:api_keys", "delete:api_keys")
"""Permissions of the management key that the three calls ask for."""
SETTLES_AFTER = 5.0
"""Seconds after which to look again whether a deletion has made room."""
_GLOBAL = {"r": "GLOBAL_ACCESS_RULE_ACCESS_TYPE_READ_ONLY", "m": "GLOBAL_ACCESS_RULE_ACCESS_TYPE_MANAGE"}
_OF_COLLECTION = {
    "r": "COLLECTION_ACCESS_RULE_ACCESS_TYPE_READ_ONLY",
    "rw": "COLLECTION_ACCESS_RULE_ACCESS_TYPE_READ_WRITE",
}
_RESOURCE_EXHAUSTED, _FAILED_PRECONDITION = 8, 9
"""gRPC codes: HTTP 429 and 400."""


class QdrantCloudKeys:
    """The database API keys of one cluster."""

    def __init__(self, assignment: Assignment) -> None:
        """Raises Terminal (``MissingCredentials``, ``InvalidCredentials``)."""
        connection, identity = assignment.connection, assignment.identity
        self._connection, self._owner = connection, assignment.owner
        self._account = str(identity["accountId"])
        self._cluster = str(identity["clusterId"])
        self._rules = access_rules(identity)
        self.traits = IssuerTraits(generates=False, expires=bool(identity.get("expires")))
        self._management_key = KeyMaterial(token=usable(connection.credentials.token, "the management key (`token`)"))
        self._cloud = open_api(
            connection,
            identity.get("apiUrl"),
            PUBLIC_API,
            "spec.identity.qdrantCloud.apiUrl",
            str(connection.settings.get("url") or ""),
        )

    @property
    def _keys_path(self) -> str:
        return f"/api/cluster/auth/v2/accounts/{quote(self._account, safe='')}/database-api-keys"

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`. Qdrant Cloud takes 4 to 128 letters, digits, spaces, ``_`` and ``-``."""
        return numbered(self._owner, revision, most=80)

    def draft(self, request: KeyRequest) -> None:
        """None: Qdrant Cloud makes the value."""

    async def check(self) -> None:
        """Whether the management key may list, make and delete keys, and whether the cluster exists.

        What a key may do and which clusters there are is told only to those who may ask that: it is no need.
        Raises Terminal (``AccessDenied``, ``AdminRightMissing``, ``ClusterNotFound``), Retryable.
        """
        await self._keys()
        account = quote(self._account, safe="")
        answer = await self._ask("GET", f"/api/iam/v1/accounts/{account}/effective-permissions")
        told = (answer.body or {}).get("permissions")
        if answer.fine and isinstance(told, list) and told:
            granted = {text_of(one, "value") for one in told}
            if missing := [right for right in RIGHTS if right not in granted]:
                raise self._without(", ".join(missing), "")
        elif not answer.fine and not _is_kept_from_us(answer):
            raise self._refusal(answer, "read:roles")
        answer = await self._ask("GET", f"/api/cluster/v1/accounts/{account}/clusters/{quote(self._cluster, safe='')}")
        if not answer.fine and not _is_kept_from_us(answer, but_not=404):
            raise self._refusal(answer, "read:clusters")

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Make a key. What has its name already is deleted first: nobody has its value.

        Raises Conflict where that is the published key, Terminal (``KeyQuotaReached``, ``AdminRightMissing`` …),
        Retryable; ``InProgress`` where a deletion has not made room yet.
        """
        remains = [(key, postfix) for key, postfix in await self._keys() if key.name == request.name]
        current = request.current.token if request.current else None
        for key, postfix in remains:
            if current and postfix and current.endswith(postfix):
                raise Conflict(
                    f"key {key.id} has the name {request.name} of the key that is to be made, and is the one that is "
                    "published: it is not deleted",
                    reason="Conflict",
                )
        for key, _ in remains:
            await self._delete(key)
        answer = await self._ask("POST", self._keys_path, body={"databaseApiKey": self._wanted(request)}, changes=True)
        made = (answer.body or {}).get("databaseApiKey")
        value, key_id = text_of(made, "key"), text_of(made, "id")
        if answer.fine and value and key_id:
            asked = request.not_after if self.traits.expires else None
            return IssuedKey(key_id, KeyMaterial(token=value), _instant(text_of(made, "expiresAt")) or asked)
        if remains and (_is_quota(answer) or (answer.status == 409 and _words(answer)[1])):
            raise Retryable(
                f"cluster {self._cluster} takes no key until {remains[0][0].id}, of the same name, is deleted",
                reason="InProgress",
                after=SETTLES_AFTER,
            )
        if _is_quota(answer):
            raise Terminal(
                f"cluster {self._cluster} has all the database keys that it may have{self._said(answer)}: delete keys "
                "that nobody uses, or have the quota raised",
                reason="KeyQuotaReached",
            )
        raise self._refusal(answer, "write:api_keys")

    def _wanted(self, request: KeyRequest) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "accountId": self._account,
            "clusterId": self._cluster,
            "name": request.name,
            "accessRules": self._rules,
        }
        if self.traits.expires and request.not_after is not None:
            wanted["expiresAt"] = request.not_after.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return wanted

    async def accepts(self, key: KeyMaterial) -> bool:
        """Asks the cluster itself for the names of its collections: every key may, and sees those that it may see."""
        return await refusal(self._connection, usable(key.token, "the database key")) is None

    async def revoke(self, key: LiveKey) -> None:
        """Delete a key. The cluster hears of it some time later.

        Raises Conflict (``NotOurs``) for a key whose name is not this resource's: what says that it is was changed.
        """
        found = next((known for known, _ in await self._keys() if known.id == key.id), None)
        if found is None:
            return
        if found.revision is None:
            raise Conflict(f"key {key.id} was not made by this resource: it is left alone", reason="NotOurs")
        await self._delete(key)

    async def _delete(self, key: LiveKey) -> None:
        """Delete a key that was found to be ours. Fine when it is gone."""
        answer = await self._ask(
            "DELETE", f"{self._keys_path}/{quote(key.id, safe='')}", params={"clusterId": self._cluster}, changes=True
        )
        if answer.fine:
            return
        error = self._refusal(answer, "delete:api_keys", of_cluster=False)
        if not isinstance(error, NotFound):
            raise error

    async def live(self) -> list[LiveKey]:
        """The cluster's keys that have a name of ours."""
        return [key for key, _ in await self._keys() if key.revision is not None]

    async def predecessor(self) -> None:
        """None: the spec names no key that it could hand over."""

    async def close(self) -> None:
        """Close connections."""
        await self._cloud.close()

    async def _keys(self) -> list[tuple[LiveKey, str]]:
        """All keys of the cluster, whoever made them, with the last letters of each; ``revision`` is set of ours."""
        found: list[tuple[LiveKey, str]] = []
        page = ""
        for _ in range(MAX_PAGES):
            params = {"clusterId": self._cluster, **({"pageToken": page} if page else {})}
            answer = await self._ask("GET", self._keys_path, params=params)
            listed = (answer.body or {}).get("items", [])  # an empty list may be left out, as in all of proto3's JSON
            if not answer.fine or not isinstance(listed, list):
                raise self._refusal(answer, "read:api_keys")
            for one in listed:
                key_id, name = text_of(one, "id"), text_of(one, "name")
                if not key_id:
                    raise self._cloud.stranger(answer.status)
                if text_of(one, "clusterId") in {"", self._cluster}:
                    found.append((LiveKey(key_id, name, revision_of(self._owner, name)), text_of(one, "postfix")))
            page = text_of(answer.body, "nextPageToken")
            if not page:
                return found
        raise self._cloud.stranger(200)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        changes: bool = False,
    ) -> Answer:
        return await self._cloud.call(
            method,
            path,
            headers={"Authorization": f"apikey {self._management_key.token}"},
            params=params,
            body=body,
            changes=changes,
        )

    def _said(self, answer: Answer) -> str:
        return in_brackets(_words(answer)[1], (self._management_key.token,))

    def _without(self, rights: str, said: str) -> Terminal:
        return Terminal(
            f"the management key lacks {rights} in account {self._account}{said}: give it a role with "
            f"{', '.join(RIGHTS)}",
            reason="AdminRightMissing",
        )

    def _refusal(self, answer: Answer, right: str, *, of_cluster: bool = True) -> VectorwrightError:
        told = _words(answer)[1]
        if answer.status == 401 and told:
            return Terminal(
                f"{self._cloud.endpoint} refused the management key (HTTP 401){self._said(answer)}: check `token` in "
                "the Secret of spec.adminCredentials",
                reason="AccessDenied",
            )
        if answer.status == 401:
            return self._cloud.stranger(answer.status)
        if answer.status == 403 and told:
            return self._without(right, self._said(answer))
        if answer.status == 404 and told and of_cluster:
            return Terminal(
                f"account {self._account} or its cluster {self._cluster} does not exist{self._said(answer)}: check "
                "accountId and clusterId of spec.identity.qdrantCloud",
                reason="ClusterNotFound",
            )
        return self._cloud.refusal(answer, told, (self._management_key.token,))


def access_rules(identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rules of a key, as the Cloud API takes them: one for everything, or one a collection."""
    collections = identity.get("collections")
    if not collections:
        return [{"globalAccess": {"accessType": _GLOBAL[identity.get("access") or "m"]}}]
    return [
        {"collectionAccess": {"collectionName": one["collection"], "accessType": _OF_COLLECTION[one["access"]]}}
        for one in collections
    ]


def _words(answer: Answer) -> tuple[int, str]:
    """(gRPC code, message) of an error of the Cloud API's own; (0, "") of anything else."""
    code = (answer.body or {}).get("code")
    told = text_of(answer.body, "message")
    return (code, told) if isinstance(code, int) and told else (0, "")


def _is_kept_from_us(answer: Answer, *, but_not: int = 0) -> bool:
    """Whether the API itself says that this is not for us to ask, or that there is no such thing to ask."""
    return answer.status in {400, 403, 404, 501} - {but_not} and bool(_words(answer)[1])


def _is_quota(answer: Answer) -> bool:
    """Whether there are too many keys. Too many requests have the same code, and speak of those."""
    code, told = _words(answer)
    if re.search(r"\brate\b|\brequests?\b", told, re.IGNORECASE):
        return False
    if code == _FAILED_PRECONDITION:
        return bool(re.search(r"\b(quota|limit|maximum|too many)\b", told, re.IGNORECASE))
    return code == _RESOURCE_EXHAUSTED and bool(re.search(r"\bquota\b|\bkeys?\b", told, re.IGNORECASE))


def _instant(told: str) -> datetime | None:
    """A timestamp as proto3's JSON writes it; None where there is none."""
    try:
        return datetime.fromisoformat(told).astimezone(UTC) if told else None
    except ValueError:
        return None


def open_issuer(assignment: Assignment) -> QdrantCloudKeys:
    """As every strategy's module has it."""
    return QdrantCloudKeys(assignment)
