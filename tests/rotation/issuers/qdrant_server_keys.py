"""Both keys of Qdrant servers of two replicas, each run by a workload of its own on the API double."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.rotation.cases import IssuerCase, owner
from tests.rotation.issuers.qdrant_tokens import lets_in
from tests.rotation.steps import revoke
from tests.support.api_double import ApiDouble
from tests.support.qdrant_workload import FIRST, READ_ONLY, PlayedWorkload, identity, played_server

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuedKey, IssuerTraits, KeyMaterial
from vectorwright.rotation.qdrant_server_keys import QdrantServerKeys
from vectorwright.rotation.qdrant_server_secret import HANDED_OVER, SEALED
from vectorwright.stores.registry import Connection


class QdrantServerCase(IssuerCase):
    id = "qdrant-DualKey-server"
    identity = "qdrantServer"
    strategy = Strategy.DUAL_KEY
    traits = IssuerTraits(generates=True)
    calls: ClassVar[frozenset[str]] = frozenset({"check", "accepts"})  # the others ask the API server alone

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self._stack = contextlib.ExitStack()
        self._folder: Path = request.getfixturevalue("tmp_path")
        self._api = ApiDouble()
        self.servers: dict[str, PlayedWorkload] = {}
        self.assignment()

    def assignment(self, name: str = "search", **changes: Any) -> Assignment:
        if name not in self.servers:
            self.servers[name] = self._stack.enter_context(played_server(self._api, self._folder, name))
        replicas = self.servers[name].replicas
        host, port = self.through(replicas.host, replicas.grpc_port)
        connection = Connection("qdrant", {"url": f"http://{host}:{replicas.port}", "grpcPort": port}, timeout=10)
        return Assignment(connection, identity(name, **changes), owner(name), self._api.client())

    async def use(self, key: KeyMaterial) -> bool:
        told = [
            {await lets_in(server, key.token) for server in played.replicas.servers} for played in self.servers.values()
        ]
        assert all(len(one) == 1 for one in told), "replicas of one server differ"
        return {True} in told

    async def make_by_hand(self) -> KeyMaterial:
        return KeyMaterial(token=READ_ONLY)

    async def inventory(self) -> set[str]:
        noted = {str(played.ids.get(slot)) for played in self.servers.values() for slot in ("primary", "alternative")}
        return noted - {HANDED_OVER, SEALED, "None", ""}

    async def published(self, *keys: KeyMaterial) -> None:
        """The first rotation ends with the revocation of the key that was handed over: it makes room for the next."""
        values = {key.token for key in keys}
        for name, played in self.servers.items():
            if played.ids.get("primary") == HANDED_OVER and played.keys["alt-api-key"] in values:
                handed_over = IssuedKey(HANDED_OVER, KeyMaterial(token=played.keys["api-key"]))
                await revoke(QdrantServerKeys(self.assignment(name)), handed_over, 0)

    async def predecessor_named(self) -> tuple[Assignment, KeyMaterial]:
        return self.assignment(), KeyMaterial(token=FIRST)

    def secrets(self) -> list[str]:
        return [FIRST, READ_ONLY]

    def close(self) -> None:
        super().close()
        self._stack.close()


CASES = (QdrantServerCase,)
