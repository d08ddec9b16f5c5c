"""API keys and JWTs as Qdrant checks them: HS256 with the API key as the secret, ``exp``, and ``access``.

``access`` is ``r`` (read), ``m`` (manage), or a list of collections with ``r`` or ``rw`` each.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.qdrant.errors import forbidden, unauthenticated


@dataclass(frozen=True, slots=True)
class Access:
    """What a key allows: everything, reading everything, or some collections."""

    writes: bool = True
    collections: Mapping[str, bool] | None = None
    """Collection → whether it may be written to; None for all."""

    def check(self, collection: str | None, *, writes: bool) -> None:
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

    def sees(self, collection: str) -> bool:
        """Whether a listing shows it."""
        return self.collections is None or collection in self.collections


class AccessKeys:
    """The keys of a server; without any, everything is allowed."""

    def __init__(self, api_key: str | None, read_only_key: str | None = None) -> None:
        self.api_key = api_key
        self.read_only_key = read_only_key

    def access(self, headers: Mapping[str, str]) -> Access:
        """What the headers (names in lower case) of a request allow. Raises QdrantError."""
        if self.api_key is None:
            return Access()
        key = headers.get("api-key")
        if key is None:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            if scheme != "Bearer":
                raise unauthenticated("Must provide an API key or an Authorization bearer token")
        if hmac.compare_digest(key, self.api_key):
            return Access()
        if self.read_only_key is not None and hmac.compare_digest(key, self.read_only_key):
            return Access(writes=False)
        return self._claimed(key)

    def _claimed(self, token: str) -> Access:
        parts = token.split(".")
        if len(parts) != 3:
            raise unauthenticated("Invalid API key or JWT")
        assert self.api_key is not None
        expected = _signed(".".join(parts[:2]), self.api_key)
        if not hmac.compare_digest(expected, parts[2]):
            raise unauthenticated("Invalid JWT: InvalidSignature")
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        if claims.get("exp", time.time()) < time.time() - 30:
            raise unauthenticated("Invalid JWT: ExpiredSignature")
        access = claims.get("access", "m")
        if isinstance(access, str):
            return Access(writes=access == "m")
        return Access(collections={one["collection"]: one.get("access") == "rw" for one in access})


def jwt(secret: str, **claims: Any) -> str:
    """A token that ``secret`` vouches for."""
    head = _base64(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{head}.{_base64(json.dumps(claims).encode())}"
    return f"{signed}.{_signed(signed, secret)}"


def _signed(text: str, secret: str) -> str:
    return _base64(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
