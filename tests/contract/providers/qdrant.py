"""Qdrant: the server at ``QDRANT_URL``, where that is set, or else a double; emptied before each test.

A real server is used as it is: ``QDRANT_API_KEY`` and ``QDRANT_GRPC_PORT`` (6334) say how. It has no databases, so give
it to the suite alone: what is there from the beginning and is none of the suite's fails the run, and is not touched;
what comes after that is dropped.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import quote, urlsplit

import httpx
import pytest
from tests.contract.providers.base import SECRET, Provider
from tests.contract.providers.exclusive import take_turns
from tests.support.qdrant import API_KEY, QdrantDouble

from vectorwright.stores.filters import And, Eq, Exists, Filter, In, Ne, Not, Or, Range
from vectorwright.stores.registry import Connection, StoreCredentials

URL = os.environ.get("QDRANT_URL", "").rstrip("/")
KEY = os.environ.get("QDRANT_API_KEY", "")
LEFT_BEHIND = re.compile(
    r"(docs[0-9]*|more|made|plain|bare|times|divided|source|target|life[0-9a-f]{8}|aaa|bbb|ccc)(-[a-z0-9-]*)?"
)
"""Names of collections that a run which was killed may have left on a real server."""
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True, slots=True)
class RealServer:
    """Where ``QDRANT_URL`` is."""

    host: str
    port: int
    grpc_port: int
    secure: bool


class Qdrant(Provider):
    name = "qdrant"
    speaks_grpc = True
    checks_credentials = bool(KEY) or not URL
    cannot: ClassVar = {
        "identity": "Qdrant has no identity of its own: a backend is an address",
        "restart": "the server of QDRANT_URL is not ours to stop" if URL else "the double keeps everything in memory",
    }
    tuned: ClassVar = {
        "hnsw.m": (16, 24),
        "hnsw.ef_construct": (100, 120),
        "optimizers.indexing_threshold": (20_000, 30_000),
        "optimizers.flush_interval_sec": (5, 7),
        "quantization.type": ("none", "scalar"),
        "on_disk": (False, True),
        "on_disk_payload": (True, False),
    }

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        if URL:
            parts = urlsplit(URL)
            self.server: RealServer | QdrantDouble = RealServer(
                parts.hostname or "",
                parts.port or 6333,
                int(os.environ.get("QDRANT_GRPC_PORT") or 6334),
                parts.scheme == "https",
            )
            self.token = KEY or SECRET
            take_turns(request, "QDRANT_URL", URL, held=_strangers, empty=_clear)
        else:
            double: QdrantDouble = request.getfixturevalue("qdrant_double")
            double.empty()
            self.server, self.token = double, API_KEY

    def connection(self) -> Connection:
        server = self.server
        connection = self.at(server.host, server.port, server.grpc_port)
        if isinstance(server, RealServer) and server.secure:
            return replace(connection, settings={**connection.settings, "url": f"https://{server.host}:{server.port}"})
        return connection

    def at(self, host: str, port: int, grpc_port: int | None = None) -> Connection:
        settings = {"url": f"http://{host}:{port}", "grpcPort": grpc_port or port}
        return Connection("qdrant", settings, credentials=StoreCredentials(token=self.token))

    def wrong_credentials(self) -> Connection:
        return replace(self.connection(), credentials=StoreCredentials(token=f"not-{SECRET}"))

    def grpc_port(self) -> int:
        return self.server.grpc_port

    def may_refuse(self, where: Filter) -> bool:
        return _cannot_be_said(where)


def _cannot_be_said(where: Filter) -> bool:
    """Strings have no order but instants of declared fields, numbers one below 2^53: see stores/qdrant/filters.py."""
    match where:
        case Eq() | Ne() | In() | Exists():
            return False
        case Range(name):
            bounds = [bound for bound in (where.gt, where.gte, where.lt, where.lte) if bound is not None]
            if len({isinstance(bound, str) for bound in bounds}) == 2:
                return False
            if bounds and isinstance(bounds[0], str):
                return name != "when" or not all(
                    isinstance(bound, str) and INSTANT.fullmatch(bound) for bound in bounds
                )
            return any(not isinstance(bound, str) and abs(bound) >= 2**53 for bound in bounds)
        case And(parts) | Or(parts):
            return any(map(_cannot_be_said, parts))
        case Not(part):
            return _cannot_be_said(part)


def _collections(client: httpx.Client) -> list[str]:
    listed = client.get("/collections").raise_for_status().json()["result"]["collections"]
    return [str(one["name"]) for one in listed]


def _client() -> httpx.Client:
    return httpx.Client(base_url=URL, headers={"api-key": KEY} if KEY else {}, timeout=30, trust_env=False)


def _strangers() -> list[str]:
    """What no run of the suite leaves behind, not even one that was killed."""
    with _client() as client:
        return [name for name in _collections(client) if not LEFT_BEHIND.fullmatch(name)]


def _clear() -> None:
    """Drop every collection of the real server; their aliases go with them."""
    with _client() as client:
        for name in _collections(client):
            client.delete(f"/collections/{quote(name, safe='')}").raise_for_status()
