"""API keys and JWTs as Qdrant checks them, from version 1.17 on, which knows an alternative to the API key.

A token is HS256, with the API key or its alternative as the secret, where ``jwt_rbac`` is on. Of its claims ``exp``,
``access``, ``value_exists`` and ``subject`` are looked at. A token that nobody's key signed, or that is too old, is 403
and not 401: what does not look like a token is 401.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.qdrant.errors import QdrantError, forbidden, rejected, unauthenticated

LEEWAY = 30
"""Seconds that a token is taken for after it expired."""
_PREFIX = "QDRANT__SERVICE__"

ValueExists = Callable[[str, list[tuple[str, Any]]], bool]
"""(collection, (key, value) of each match) → whether a point has them all. Raises QdrantError where there is none."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a key allows: everything, reading everything, or some collections."""

    writes: bool = True
    collections: Mapping[str, bool] | None = None
    """Collection → whether it may be written to; None for all."""
    subject: str | None = None

    def check(self, collection: str | None, *, writes: bool, manages: bool = False) -> None:
        """Raise QdrantError where it is not allowed. ``collection`` None is the whole server."""
        if self.collections is None:
            if writes and not self.writes:
                raise forbidden(
                    "Global manage access is required" if collection is None else "Write access is required"
                )
        elif collection is None:
            if writes:
                raise forbidden("Global access is required")
        elif collection not in self.collections or (writes and not self.collections[collection]):
            raise forbidden(f"Access to collection {collection} is required")
        elif manages:
            raise forbidden("Manage access for this operation is required")

    def sees(self, collection: str) -> bool:
        """Whether a listing shows it."""
        return self.collections is None or collection in self.collections


Issued = Callable[[str], Access | None]
"""Key → what it allows; None where it was not issued."""


@dataclass(frozen=True, slots=True)
class ServiceKeys:
    """What a server is told at its start. An empty key counts as none; without any, everything is allowed."""

    api_key: str | None = field(default=None, repr=False)
    alt_api_key: str | None = field(default=None, repr=False)
    read_only_key: str | None = field(default=None, repr=False)
    jwt_rbac: bool = True

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> ServiceKeys:
        """As the server reads them: ``QDRANT__SERVICE__`` and API_KEY, ALT_API_KEY, READ_ONLY_API_KEY, JWT_RBAC."""
        return cls(
            environment.get(f"{_PREFIX}API_KEY"),
            environment.get(f"{_PREFIX}ALT_API_KEY"),
            environment.get(f"{_PREFIX}READ_ONLY_API_KEY"),
            environment.get(f"{_PREFIX}JWT_RBAC", "").lower() == "true",
        )


class AccessKeys:
    """The keys of a running server."""

    def __init__(self, keys: ServiceKeys, value_exists: ValueExists, issued: Issued | None = None) -> None:
        self._writing = [key for key in (keys.api_key, keys.alt_api_key) if key]
        self._reading = [key for key in (keys.read_only_key,) if key]
        self._signing = self._writing if keys.jwt_rbac else []
        self._value_exists = value_exists
        self._issued = issued

    def access(self, headers: Mapping[str, str]) -> Access:
        """What the headers (names in lower case) of a request allow. Raises QdrantError."""
        if not self._writing and not self._reading:
            return Access()
        key = headers.get("api-key")
        if key is None:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme != "Bearer":
                raise unauthenticated("Must provide an API key or an Authorization bearer token")
        if _among(key, self._writing):
            return Access()
        if _among(key, self._reading):
            return Access(writes=False)
        if self._issued is not None and (access := self._issued(key)) is not None:
            return access
        refusals = []
        for secret in self._signing:
            try:
                claims = _claims(key, secret)
            except QdrantError as refusal:
                refusals.append(refusal)
                continue
            if claims is not None:
                return self._claimed(claims)
        raise refusals[0] if refusals else unauthenticated("Invalid API key or JWT")

    def _claimed(self, claims: Mapping[str, Any]) -> Access:
        if (exists := claims.get("value_exists")) is not None:
            matches = [(str(one["key"]), one["value"]) for one in exists["matches"]]
            try:
                found = self._value_exists(str(exists["collection"]), matches)
            except QdrantError:
                raise rejected("Invalid JWT, stateful validation failed") from None
            if not found:
                raise unauthenticated("Invalid JWT, stateful validation failed")
        access, subject = claims.get("access", "m"), claims.get("subject")
        if isinstance(access, str):
            return Access(writes=access == "m", subject=subject)
        return Access(collections={one["collection"]: one["access"] == "rw" for one in access}, subject=subject)


def _among(key: str, keys: list[str]) -> bool:
    return any(hmac.compare_digest(key.encode(), one.encode()) for one in keys)


def _claims(token: str, secret: str) -> dict[str, Any] | None:
    """None where it does not look like a token of Qdrant's. Raises QdrantError where it does, and is not valid."""
    head, _, signature = token.rpartition(".")
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in head.split("."))
    except (ValueError, binascii.Error):
        return None
    if not isinstance(header, dict) or header.get("alg") != "HS256":
        return None
    if not hmac.compare_digest(_signed(head, secret), signature):
        raise rejected("InvalidSignature")
    if not isinstance(claims, dict) or not _well_formed(claims):
        return None
    if (expires := claims.get("exp")) is not None and expires < int(time.time()) - LEEWAY:
        raise rejected("ExpiredSignature")
    access = claims.get("access")
    if isinstance(access, list):
        if any(one.get("payload") for one in access):
            raise unauthenticated("access: payload restrictions are not supported any more")
        if len({one["collection"] for one in access}) < len(access):
            raise unauthenticated("access: Collection name should be unique")
    return claims


def _well_formed(claims: Mapping[str, Any]) -> bool:
    expires, access, exists = claims.get("exp"), claims.get("access", "m"), claims.get("value_exists")
    if expires is not None and (not isinstance(expires, int) or isinstance(expires, bool) or expires < 0):
        return False
    if isinstance(access, list):
        for one in access:
            if not isinstance(one, dict) or not isinstance(one.get("collection"), str):
                return False
            if one.get("access") not in {"r", "rw"}:
                return False
    elif access not in {"r", "m"}:
        return False
    if exists is not None:
        if not isinstance(exists, dict) or not isinstance(exists.get("collection"), str):
            return False
        matches = exists.get("matches")
        if not isinstance(matches, list) or not all({"key", "value"} <= set(one) for one in matches):
            return False
    return isinstance(claims.get("subject", ""), str)


def jwt(secret: str, **claims: Any) -> str:
    """A token that ``secret`` vouches for."""
    head = _base64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{head}.{_base64(json.dumps(claims).encode())}"
    return f"{signed}.{_signed(signed, secret)}"


def _signed(text: str, secret: str) -> str:
    return _base64(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
