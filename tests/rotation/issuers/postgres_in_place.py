"""The password of a login role, changed in place on a real PostgreSQL."""

from __future__ import annotations

from typing import ClassVar

import pytest
from psycopg import sql
from tests.rotation.cases import IssuerCase
from tests.rotation.issuers.postgres_roles import PostgresRolesCase

from vectorwright.api.v1alpha1.apikeyrotation import Strategy
from vectorwright.rotation.base import IssuerTraits


class PostgresInPlaceCase(PostgresRolesCase):
    id = "postgres-InPlace"
    strategy = Strategy.IN_PLACE
    traits = IssuerTraits(generates=True, overlaps=False)
    calls: ClassVar[frozenset[str]] = frozenset({"check", "create", "accepts", "revoke"})

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__(request)
        self.role = f"{self.served.database}_user"
        with self.served.as_admin() as admin:
            make = sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}")
            admin.execute(make.format(sql.Identifier(self.role), sql.Identifier(self.served.base_role)))

    # The password of another role is another role's: it is not touched.
    changed_identity = IssuerCase.changed_identity


CASES: tuple[type[IssuerCase], ...] = (PostgresInPlaceCase,)
