"""The password of a PostgreSQL role changed in place: what is this strategy's alone.

- open sessions go on, unless they are to end; a role keeps what it owns and its comment
- a role that may not log in, is not there, or is the admin itself is refused
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from tests.rotation.cases import OpenIssuer, key_request
from tests.rotation.issuers.postgres_in_place import PostgresInPlaceCase
from tests.rotation.steps import make, revoke
from tests.support.postgres_roles import PostgresWithRoles

from vectorwright.errors import Conflict, Terminal
from vectorwright.rotation.base import LiveKey
from vectorwright.stores.registry import StoreCredentials

pytestmark = pytest.mark.server


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[PostgresInPlaceCase]:
    made = PostgresInPlaceCase(request)
    yield made
    made.close()


@pytest.fixture
def served(case: PostgresInPlaceCase) -> PostgresWithRoles:
    return case.served


@pytest.mark.parametrize("terminate", [None, False, True])
async def test_open_sessions_go_on_unless_they_are_to_end(
    case: PostgresInPlaceCase, served: PostgresWithRoles, open_issuer: OpenIssuer, terminate: bool | None
) -> None:
    issuer = open_issuer(case.assignment(terminateSessions=terminate))
    first = await make(issuer, key_request(issuer, 1))
    assert first.id == case.role
    with served.connect(case.role, first.material.password or "") as session:
        second = await make(issuer, key_request(issuer, 2, first.material))
        if terminate:
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                session.execute("SELECT 1")
        else:
            assert session.execute("SELECT 1").fetchone() == (1,)
    with served.connect(case.role, second.material.password or "") as session:
        await revoke(issuer, second, 2)
        if terminate is False:
            assert session.execute("SELECT 1").fetchone() == (1,)
        else:
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                session.execute("SELECT 1")


async def test_the_role_stays_as_it_is_but_for_its_password(
    case: PostgresInPlaceCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    described = (
        "SELECT rolcanlogin, rolconnlimit, rolconfig, shobj_description(oid, 'pg_authid')"
        f" FROM pg_roles WHERE rolname = '{case.role}'"
    )
    with served.server.connect() as superuser:
        superuser.execute(sql.SQL("COMMENT ON ROLE {} IS 'of people'").format(sql.Identifier(case.role)))
        superuser.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 7").format(sql.Identifier(case.role)))
        before = superuser.execute(described).fetchone()
        issuer = open_issuer()
        made = await make(issuer, key_request(issuer, 1))
        await revoke(issuer, made, 1)
        assert superuser.execute(described).fetchone() == before
    with pytest.raises(Conflict):
        await issuer.revoke(LiveKey(served.base_role, served.base_role))


async def test_roles_whose_password_is_not_to_be_changed(
    case: PostgresInPlaceCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    for role, said in ((served.base_role, "may not log in"), (served.admin_role, "name another role")):
        issuer = open_issuer(case.assignment(role=role))
        for call in (issuer.check, lambda: issuer.create(key_request(issuer, 1))):  # noqa: B023
            with pytest.raises(Terminal) as refused:
                await call()
            assert refused.value.reason == "InvalidSpec"
            assert said in refused.value.message
    assert served.accepts(served.admin_role, served.admin_password)


async def test_a_role_that_another_made_needs_the_admin_option(
    case: PostgresInPlaceCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    if not served.grants_have_options:
        pytest.skip("before PostgreSQL 16 CREATEROLE reaches every role")
    weaker = case.weaker("stranger")
    issuer = open_issuer(case.as_admin(weaker))
    with pytest.raises(Terminal) as refused:
        await issuer.check()
    assert refused.value.reason == "AdminRightMissing"
    assert f"GRANT {case.role} TO {weaker.username} WITH ADMIN OPTION" in refused.value.message
    with served.server.connect() as superuser:
        grant = sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(
            sql.Identifier(case.role), sql.Identifier(weaker.username or "")
        )
        superuser.execute(grant)
    await issuer.check()
    made = await make(issuer, key_request(issuer, 1))
    assert await issuer.accepts(made.material)


async def test_an_admin_may_be_a_superuser(
    case: PostgresInPlaceCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    superuser = StoreCredentials(username=served.server.user, password=served.server.password)
    assignment = case.assignment()
    issuer = open_issuer(replace(assignment, connection=replace(assignment.connection, credentials=superuser)))
    made = await make(issuer, key_request(issuer, 1))
    assert await issuer.accepts(made.material)
