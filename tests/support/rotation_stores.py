"""Rotations at the stores of the issuers' cases, beside an operator."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.rotation.cases import IssuerCase
from tests.rotation.issuers import over
from tests.support.rotations import Rotation
from tests.support.vectorwright import Resources

from vectorwright.rotation.base import Assignment, KeyMaterial

STORES = {"weaviate-DualIdentity", "postgres-DualIdentity", "pinecone-DualKey", "qdrantCloud-DualKey"}
CREATE = {
    "weaviate": "users.create",
    "postgres": "CREATE ROLE",
    "pinecone": "keys.create",
    "qdrantCloud": "keys.create",
}
"""The operation that makes a key, by identity."""


def chosen(*identities: str) -> pytest.MarkDecorator:
    """Run a test, which asks for the fixture ``case``, with these identities; with all where none is named."""
    return over(lambda case: case.id in STORES and (not identities or case.identity in identities))


def until(done: Callable[[], object], seconds: float = 30.0) -> None:
    """Return as soon as it holds."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.1)


@contextlib.contextmanager
def team(cluster: Cluster, operator_for: Callable[[str], TrialOperator]) -> Iterator[Resources]:
    """A namespace whose keys the cases know by their names, and the operator for it."""
    name = f"team-a-{secrets.token_hex(4)}"
    cluster.kubectl_run("create", "namespace", name)
    found = Resources(cluster, name, operator_for(name))
    try:
        yield found
    finally:
        found.close()
    cluster.kubectl_run("delete", "namespace", name, "--wait=false")


class Scene:
    """Rotations at the server of a case."""

    def __init__(self, team: Resources, case: IssuerCase) -> None:
        self.team, self.case = team, case
        connection = case.assignment().connection
        team.create(
            "VectorStore", "store", {connection.provider: dict(connection.settings), "limits": {"timeout": "10s"}}
        )

    @property
    def server(self) -> Any:
        """What counts operations, and fails them."""
        return getattr(self.case, "double", None) or getattr(self.case, "served", None)

    def admin(self, assignment: Assignment, name: str) -> None:
        """The Secret of an admin."""
        given = assignment.connection.credentials
        parts = {"token": given.token, "username": given.username, "password": given.password}
        self.team.secret(name, **{part: value for part, value in parts.items() if value})

    def make(self, name: str = "rotation", assignment: Assignment | None = None, **changes: Any) -> Rotation:
        """A rotation whose admin and identity are those of an assignment."""
        wanted = assignment or self.case.assignment(name)
        self.admin(wanted, f"{name}-admin")
        made = Rotation(self.team, name, f"{name}-key")
        made.make(
            identity={self.case.identity: dict(wanted.identity)},
            strategy=self.case.strategy.value,
            adminCredentials={"name": f"{name}-admin"},
            **changes,
        )
        return made

    def accepted(self, values: dict[str, str]) -> bool:
        """Whether what a Secret holds is accepted, asked by the vendor's client."""
        parts = {part: values[part] for part in ("token", "username", "password") if part in values}
        return asyncio.run(self.case.use(KeyMaterial(**parts)))

    def inventory(self) -> set[str]:
        """Names of the keys at the server."""
        return asyncio.run(self.case.inventory())
