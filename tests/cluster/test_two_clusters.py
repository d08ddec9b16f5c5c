"""Two installations on one store do not fight.

Each has its own id, as the operators of two clusters have. What is checked: of two that make one index at the same
moment one has it and the other says whose it is; nobody takes over, changes or deletes what carries the other's mark;
an index that both may adopt gets one owner, and its mark stands still; what one lets go of the other can take.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from psycopg import sql
from tests.support.cluster import new_namespace
from tests.support.postgres import PostgresServer
from tests.support.vectorwright import Resources, condition

from vectorwright.stores.base import FieldDefinition, IndexDefinition, IndexDescription
from vectorwright.stores.registry import Connection, StoreCredentials, open_store

pytestmark = pytest.mark.cluster
STEADY_S = 3.0
"""Seconds that a mark is watched for: three intervals of the stores' timers."""


class Side:
    """One installation: its operator, its namespace, and its VectorStore for the shared database."""

    def __init__(self, resources: Resources, installation: str) -> None:
        self.resources = resources
        self.installation = installation

    def index(self, name: str, **spec: object) -> None:
        """A VectorIndex for the index ``name`` of the store."""
        self.resources.create("VectorIndex", name, {"storeRef": {"name": "shared"}, "dimension": 4, **spec})

    def owns(self, name: str) -> bool | None:
        """Whether it has the index; None while that is not decided."""
        body = self.resources.get("VectorIndex", name)
        if condition(body, "Ready").get("status") == "True":
            return True
        return False if condition(body, "Stalled").get("status") == "True" else None

    def reason(self, name: str) -> str:
        """Why it is stalled."""
        return str(condition(self.resources.get("VectorIndex", name), "Stalled")["reason"])


class World:
    """Two sides, and the store as it is."""

    def __init__(self, sides: tuple[Side, Side], connection: Connection) -> None:
        self.sides = sides
        self._connection = connection

    def describe(self, name: str) -> IndexDescription:
        """The index as the store has it."""

        async def described() -> IndexDescription:
            async with open_store(self._connection) as store:
                return await store.describe_index(name)

        return asyncio.run(described())

    def make(self, definition: IndexDefinition) -> None:
        """Make an index that is nobody's."""

        async def make() -> None:
            async with open_store(self._connection) as store:
                await store.create_index(definition)

        asyncio.run(make())

    def settled(self, name: str) -> tuple[Side, Side]:
        """(owner, other) once both sides are decided."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            verdicts = [side.owns(name) for side in self.sides]
            if sorted(map(str, verdicts)) == ["False", "True"]:
                return self.sides if verdicts[0] else (self.sides[1], self.sides[0])
            time.sleep(0.1)
        pytest.fail(f"not decided: {[side.resources.get('VectorIndex', name).get('status') for side in self.sides]}")


@pytest.fixture
def world(devcluster: Cluster, crds: list[str], postgres_server: PostgresServer, tmp_path: Path) -> Iterator[World]:
    database = {
        "host": postgres_server.host,
        "port": postgres_server.port,
        "database": postgres_server.database,
        "schema": f"two_{secrets.token_hex(6)}",
        "sslMode": "disable",
    }
    with postgres_server.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(str(database["schema"]))))
    with ExitStack() as stack:
        sides = []
        for name in ("blue", "green"):
            namespace = stack.enter_context(new_namespace(devcluster))
            directory = tmp_path / name
            directory.mkdir()
            flags = ("--namespace", namespace, "--no-leader-election", "--installation-id", name)
            operator = stack.enter_context(TrialOperator(devcluster.kubeconfig, *flags, directory=directory))
            resources = Resources(devcluster, namespace, operator)
            stack.callback(resources.close)
            resources.secret("key", username=postgres_server.user, password=postgres_server.password)
            spec = {"pgvector": database, "controlCredentials": {"name": "key"}, "probeInterval": "1s"}
            resources.create("VectorStore", "shared", spec)
            resources.wait_ready("VectorStore", "shared")
            sides.append(Side(resources, name))
        credentials = StoreCredentials(username=postgres_server.user, password=postgres_server.password)
        yield World((sides[0], sides[1]), Connection("pgvector", database, credentials=credentials))


def test_what_both_make_at_once_has_one_owner(world: World) -> None:
    for side in world.sides:
        side.index("docs", deletionPolicy="Delete", updatePolicy="Disruptive")
    owner, other = world.settled("docs")
    found = world.describe("docs")
    assert found.mark is not None
    assert found.mark.installation == owner.installation
    assert other.reason("docs") in ("OwnedByAnother", "AlreadyExists")
    message = other.resources.wait_condition("VectorIndex", "docs", "Stalled", "True", "OwnedByAnother")
    assert f"of installation {owner.installation}" in message

    # Neither a change nor the deletion by the other touches it.
    other.resources.patch(
        "VectorIndex",
        "docs",
        {"spec": {"adoptionPolicy": "IfMatching", "metadataFields": [{"name": "word", "type": "keyword"}]}},
    )
    other.resources.wait(
        "VectorIndex", "docs", lambda body: body["status"].get("observedGeneration") == body["metadata"]["generation"]
    )
    assert other.reason("docs") == "OwnedByAnother"
    other.resources.delete("VectorIndex", "docs")
    other.resources.wait_gone("VectorIndex", "docs")
    assert world.describe("docs") == found
    assert owner.owns("docs")


def test_what_both_may_adopt_gets_one_owner_and_its_mark_stands_still(world: World) -> None:
    world.make(IndexDefinition("docs", 4, "cosine", fields=(FieldDefinition("word", "keyword"),)))
    for side in world.sides:
        side.index("docs", adoptionPolicy="IfMatching")
    owner, other = world.settled("docs")
    first = world.describe("docs")
    assert first.mark is not None
    assert first.mark.installation == owner.installation
    end = time.monotonic() + STEADY_S
    while time.monotonic() < end:
        assert world.describe("docs") == first
        time.sleep(0.2)
    assert owner.owns("docs")

    # What one lets go of, the other takes.
    owner.resources.delete("VectorIndex", "docs")
    owner.resources.wait_gone("VectorIndex", "docs")
    other.resources.wait_ready("VectorIndex", "docs")
    mark = world.describe("docs").mark
    assert mark is not None
    assert mark.installation == other.installation
