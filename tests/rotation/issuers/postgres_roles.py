"""Login roles on a real PostgreSQL whose admin is no superuser."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.rotation.cases import IssuerCase, owner
from tests.support.postgres_roles import PostgresWithRoles, refuses

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import Assignment, IssuerTraits, KeyMaterial
from vectorwright.stores.registry import Connection, StoreCredentials


class PostgresRolesCase(IssuerCase):
    id = "postgres-DualIdentity"
    identity = "postgres"
    strategy = Strategy.DUAL_IDENTITY
    traits = IssuerTraits(generates=True)

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.served: PostgresWithRoles = request.getfixturevalue("postgres_with_roles")
        self.role = self.served.base_role
        self._weaker: dict[str, str] = {}

    def assignment(self, name: str = "search", **identity: Any) -> Assignment:
        host, port = self.through(self.served.host, self.served.port)
        settings = {
            "host": host,
            "port": port,
            "database": self.served.database,
            "schema": self.served.schema,
            "sslMode": "disable",
        }
        credentials = StoreCredentials(username=self.served.admin_role, password=self.served.admin_password)
        return Assignment(
            Connection("pgvector", settings, credentials, timeout=10),
            {"role": self.role, **identity},
            owner(name, self.served.database),  # the server, and so its roles, are shared by all tests
        )

    async def use(self, key: KeyMaterial) -> bool:
        return await asyncio.to_thread(self._use, key)

    def _use(self, key: KeyMaterial) -> bool:
        try:
            with self.served.connect(key.username or "", key.password or "") as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError as error:
            if refuses(error):
                return False
            raise

    async def make_by_hand(self) -> KeyMaterial:
        made = KeyMaterial(username=f"{self.role}_0badcafe_a", password=secrets.token_hex(12))
        with self.served.as_admin() as admin:
            make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                sql.Identifier(made.username or ""), sql.Literal(made.password), sql.Identifier(self.role)
            )
            admin.execute(make)
        return made

    async def inventory(self) -> set[str]:
        return {name for name, may_log_in in self.served.roles().items() if may_log_in}

    def wrong_admin(self) -> Assignment:
        return self.as_admin(StoreCredentials(username=self.served.admin_role, password=secrets.token_hex(12)))

    def without_right(self) -> Assignment:
        return self.as_admin(self.weaker("powerless", createrole=False))

    def missing_role(self) -> Assignment:
        return self.assignment(role="no_such_role")

    def changed_identity(self) -> dict[str, Any]:
        another = f"{self.served.database}_another"
        with self.served.as_admin() as admin:  # whoever makes a role has the ADMIN option on it
            admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(another)))
        return {"role": another}

    def weaker(self, name: str, *, createrole: bool = True, grants_base: bool = True) -> StoreCredentials:
        """An admin with less than all rights; the same one for the same name."""
        role = f"{self.served.database}_{name}"
        if role not in self._weaker:
            self._weaker[role] = secrets.token_hex(12)
            self.served.make_admin(role, self._weaker[role], createrole=createrole, grants_base=grants_base)
        return StoreCredentials(username=role, password=self._weaker[role])

    def as_admin(self, credentials: StoreCredentials) -> Assignment:
        made = self.assignment()
        return replace(made, connection=replace(made.connection, credentials=credentials))


CASES: tuple[type[IssuerCase], ...] = (PostgresRolesCase,)
