"""Login roles of PostgreSQL that take turns: what is theirs alone.

- what they make belongs to the base role, so that the other goes on with it, and the one can be dropped
- sessions of a revoked role end, also where the admin is no member of it; unless told otherwise
- a role that something depends on stays, cannot log in, and takes its turn again
- settings of the base role are theirs, too
- roles that are not this resource's are left alone, and rights that are missing are named
- no password reaches the server: not its log, its activities or its catalog
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
import trustme
from psycopg import sql
from tests.contract.data import batch, definition
from tests.rotation.cases import OpenIssuer, key_request
from tests.rotation.issuers.postgres_roles import PostgresRolesCase
from tests.rotation.steps import becomes, make, revoke
from tests.support.postgres_roles import PostgresWithRoles

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.rotation.base import IssuedKey, KeyIssuer, LiveKey
from vectorwright.rotation.postgres_settings import _value
from vectorwright.stores.registry import StoreCredentials, TlsSettings, open_store

pytestmark = pytest.mark.server


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[PostgresRolesCase]:
    made = PostgresRolesCase(request)
    yield made
    made.close()


@pytest.fixture
def served(case: PostgresRolesCase) -> PostgresWithRoles:
    return case.served


async def made_by(issuer: KeyIssuer, revision: int = 1) -> IssuedKey:
    return await make(issuer, key_request(issuer, revision))


def session_of(served: PostgresWithRoles, key: IssuedKey) -> psycopg.Connection[tuple[object, ...]]:
    return served.connect(key.material.username or "", key.material.password or "")


def as_superuser(served: PostgresWithRoles, statement: str, *names: str) -> list[tuple[object, ...]]:
    with served.server.connect(served.database) as connection:
        found = connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
        return found.fetchall() if found.description else []


async def test_the_other_role_goes_on_with_what_one_made(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    if not served.holds_vectors:
        pytest.skip("this server has no pgvector")
    issuer = open_issuer()
    connection = case.assignment().connection
    a = await made_by(issuer)
    async with open_store(replace(connection, credentials=a.material.credentials)) as store:
        await store.create_index(definition())
        await store.upsert("docs", batch(10))
        b = await made_by(issuer, 2)
        async with open_store(replace(connection, credentials=b.material.credentials)) as other:
            await other.upsert("docs", batch(10, start=10))
            await revoke(issuer, a, 1)
            with pytest.raises(Retryable):  # its session was ended
                await store.count("docs")
            with pytest.raises(Terminal) as refused:
                await store.count("docs")
            assert refused.value.reason == "AccessDenied"
            assert await other.count("docs") == 20
            await other.set_mark("docs", None, None)
            await other.delete_index("docs")
    assert served.roles() == {b.id: True}
    assert as_superuser(served, "SELECT FROM pg_roles WHERE rolname = '" + a.id + "'") == []


async def test_sessions_end_with_their_role(served: PostgresWithRoles, open_issuer: OpenIssuer) -> None:
    issuer = open_issuer()
    a, b = await made_by(issuer), await made_by(issuer, 2)
    with session_of(served, a) as old, session_of(served, a) as older, session_of(served, b) as new:
        await issuer.revoke(LiveKey(a.id, a.id, 1))  # one call is enough
        for ended in (old, older):
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                ended.execute("SELECT 1")
        assert new.execute("SELECT current_user, session_user").fetchone() == (served.base_role, b.id)
    inherited = " AND m.inherit_option" if served.grants_have_options else ""
    members = "SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE r.rolname = "
    assert as_superuser(served, f"{members}'{b.id}'{inherited}") == []  # the admin is no member of it


async def test_sessions_may_outlive_their_role(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    issuer = open_issuer(case.assignment(terminateSessions=False))
    a = await made_by(issuer)
    with session_of(served, a) as old:
        await revoke(issuer, a, 1)
        assert old.execute("SELECT 1").fetchone() == (1,)
    assert not await issuer.accepts(a.material)


async def test_a_role_that_owns_something_stays_and_takes_its_turn_again(
    served: PostgresWithRoles, open_issuer: OpenIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = open_issuer()
    a = await made_by(issuer)
    with session_of(served, a) as session:
        for reset in ("RESET ROLE", "DISCARD ALL"):  # the latter is a pooler's between two clients
            session.execute(reset)
            assert session.execute("SELECT current_user").fetchone() == (served.base_role,)
        session.execute("SET ROLE NONE")
        session.execute("CREATE TABLE docs.its_own ()")
    for _ in range(2):
        await revoke(issuer, a, 1)
    assert "REASSIGN OWNED" in caplog.text
    assert await issuer.live() == []
    assert served.roles() == {a.id: False}
    again = await made_by(issuer, 3)
    assert again.id == a.id
    assert await issuer.accepts(again.material)
    assert not await issuer.accepts(a.material)
    assert served.roles() == {a.id: True}


async def test_settings_of_the_base_role_are_theirs(
    served: PostgresWithRoles, open_issuer: OpenIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    base = served.base_role
    as_superuser(served, "CREATE SCHEMA {}", 'a "quoted", one')
    as_superuser(served, 'ALTER ROLE {} SET search_path = docs, {}, "$user"', base, 'a "quoted", one')
    as_superuser(served, "ALTER ROLE {} SET statement_timeout = '7s'", base)
    as_superuser(served, "ALTER ROLE {} IN DATABASE {} SET statement_timeout = '9s'", base, served.database)
    for not_for_admins in ("my.own_setting = 'its'", "log_statement = 'none'"):
        as_superuser(served, "ALTER ROLE {} SET " + not_for_admins, base)
    issuer = open_issuer()

    def seen(key: IssuedKey) -> tuple[object, ...]:
        with session_of(served, key) as session:
            found = session.execute("SELECT current_setting('search_path'), current_setting('statement_timeout')")
            return found.fetchone() or ()

    assert seen(await made_by(issuer)) == ('docs, "a ""quoted"", one", "$user"', "9s")
    assert all(f"does not get the setting {name}" in caplog.text for name in ("my.own_setting", "log_statement"))
    as_superuser(served, "ALTER ROLE {} IN DATABASE {} RESET ALL", base, served.database)
    as_superuser(served, "ALTER ROLE {} SET search_path = ''", base)
    assert seen(await made_by(issuer)) == ('""', "7s")
    as_superuser(served, "ALTER ROLE {} RESET ALL", base)
    assert seen(await made_by(issuer)) == ('"$user", public', "0")


def test_values_of_settings_are_quoted() -> None:
    assert _value("work_mem", "4MB'; DROP ROLE x").as_string() == "'4MB''; DROP ROLE x'"
    assert _value("search_path", 'a, "b, c", "d""e"').as_string() == "'a', 'b, c', 'd\"e'"


@pytest.mark.parametrize("comment", [None, "somebody's", "vectorwright.dev/owner: tests/team-b/search"])
async def test_a_role_that_is_not_ours_is_left_alone(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer, comment: str | None
) -> None:
    issuer = open_issuer()
    name = issuer.name_of(1)
    with served.as_admin() as admin:
        make_role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'theirs'").format(sql.Identifier(name))
        admin.execute(make_role)
        admin.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(comment)))
    for call in (lambda: issuer.create(key_request(issuer, 1)), lambda: issuer.revoke(LiveKey(name, name))):
        with pytest.raises(Conflict) as refused:
            await call()
        assert name in refused.value.message
    assert await issuer.live() == []
    assert served.accepts(name, "theirs")
    with pytest.raises(Conflict):
        await issuer.revoke(LiveKey(served.base_role, served.base_role))
    assert case.served.roles() == {}


async def test_rights_that_are_missing_are_named(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    lacking = [(case.weaker("powerless", createrole=False), "CREATEROLE")]
    if served.grants_have_options:  # before, CREATEROLE may grant every role
        lacking.append((case.weaker("stranger", grants_base=False), f"GRANT {served.base_role} TO"))
    for admin, said in lacking:
        issuer = open_issuer(case.as_admin(admin))
        for call in (issuer.check, lambda: issuer.create(key_request(issuer, 1))):  # noqa: B023
            with pytest.raises(Terminal) as refused:
                await call()
            assert refused.value.reason == "AdminRightMissing"
            assert said in refused.value.message


async def test_an_admin_who_did_not_make_the_roles_needs_to_be_given_them(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    if not served.grants_have_options:
        pytest.skip("before PostgreSQL 16 CREATEROLE reaches every role")
    a = await made_by(open_issuer())
    successor = open_issuer(case.as_admin(case.weaker("successor")))
    await successor.check()
    for call in (lambda: successor.create(key_request(successor, 1)), lambda: successor.revoke(LiveKey(a.id, a.id, 1))):
        with pytest.raises(Terminal) as refused:
            await call()
        assert refused.value.reason == "AdminRightMissing"
        assert "those that are made of it" in refused.value.message
    assert await open_issuer().accepts(a.material)


async def test_a_superuser_may_be_the_admin(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    superuser = StoreCredentials(username=served.server.user, password=served.server.password)
    issuer = open_issuer(case.as_admin(superuser))
    await issuer.check()
    a = await made_by(issuer)
    with session_of(served, a):
        await revoke(issuer, a, 1)
    assert served.roles() == {}


async def test_an_attempt_that_is_still_under_way_is_waited_for(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    issuer = open_issuer()
    name, mark = issuer.name_of(1), f"vectorwright.dev/owner: {case.assignment().owner}"
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{served.database}'"

    async def waits() -> bool:
        return bool(await asyncio.to_thread(as_superuser, served, waiting))

    with served.as_admin() as admin:  # of a process that is gone, on a server that has not noticed
        admin.execute("BEGIN")
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE {}").format(*map(sql.Identifier, (name, case.role))))
        admin.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(mark)))
        attempt = asyncio.ensure_future(issuer.create(key_request(issuer, 1)))
        await becomes(True, waits, 30)
        admin.execute("COMMIT")
    with pytest.raises(Retryable) as again:
        await attempt
    assert again.value.reason == "InProgress"
    a = await made_by(issuer)
    assert await issuer.accepts(a.material)
    assert served.roles() == {a.id: True}


async def test_the_way_there_is_encrypted_and_the_server_verified(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    plain = case.assignment()
    settings = {**plain.connection.settings, "host": served.server.host, "port": served.server.tls_port}
    del settings["sslMode"]

    def over(tls: TlsSettings) -> KeyIssuer:
        return open_issuer(replace(plain, connection=replace(plain.connection, settings=settings, tls=tls)))

    trusted = over(TlsSettings(ca=served.server.ca_file.read_text()))
    await trusted.check()
    a = await made_by(trusted)
    assert await trusted.accepts(a.material)
    assert not await trusted.accepts(case.other(a.material))
    stranger = over(TlsSettings(ca=trustme.CA().cert_pem.bytes().decode()))
    for call in (stranger.check, stranger.live, lambda: stranger.accepts(a.material)):
        with pytest.raises(Terminal) as refused:
            await call()
        assert refused.value.reason == "TLSVerificationFailed"


async def test_names_fit_into_what_the_server_keeps(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    base = f"{served.base_role}_".ljust(40, "x")
    as_superuser(served, "CREATE ROLE {}", base)
    as_superuser(served, "GRANT {} TO {} WITH ADMIN OPTION", base, served.admin_role)
    issuer = open_issuer(case.assignment(role=base))
    a = await made_by(issuer)
    assert len(a.id) <= 63
    assert [key.id for key in await issuer.live()] == [a.id]


async def test_how_many_connections_a_role_may_have(
    case: PostgresRolesCase, served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    issuer = open_issuer(case.assignment(connectionLimit=1))
    a = await made_by(issuer)
    with session_of(served, a):
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            session_of(served, a)
        assert await issuer.accepts(a.material)  # its password was found right
        assert not await issuer.accepts(case.other(a.material))
    a = await made_by(open_issuer())
    with session_of(served, a), session_of(served, a):
        assert await issuer.accepts(a.material)


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_what_proves_nothing_is_no_answer(
    served: PostgresWithRoles, open_issuer: OpenIssuer, status: int
) -> None:
    issuer = open_issuer()
    a = await made_by(issuer)
    served.operations.fail("connect", status=status)  # in words that nobody knows
    with pytest.raises(Retryable):
        await issuer.accepts(a.material)
    served.operations.fail("SELECT", status=status)
    with pytest.raises((Retryable, Terminal)):
        await issuer.accepts(a.material)
    assert await issuer.accepts(a.material)


async def test_a_database_that_it_may_not_enter_is_neither_here_nor_there(
    served: PostgresWithRoles, open_issuer: OpenIssuer
) -> None:
    issuer = open_issuer()
    a = await made_by(issuer)
    as_superuser(served, "REVOKE CONNECT ON DATABASE {} FROM PUBLIC", served.database)
    with pytest.raises(Terminal) as refused:
        await issuer.accepts(a.material)
    assert refused.value.reason == "AccessDenied"
    assert "permission denied for database" in refused.value.message


async def test_no_password_reaches_the_server(
    served: PostgresWithRoles, open_issuer: OpenIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    try:
        as_superuser(served, "ALTER SYSTEM SET log_statement = 'all'")
        as_superuser(served, "ALTER SYSTEM SET password_encryption = 'md5'")
        as_superuser(served, "SELECT pg_reload_conf()")
        issuer = open_issuer()
        await issuer.check()
        assert "password_encryption is md5" in caplog.text
        keys = [await made_by(issuer, revision) for revision in (1, 2, 1)]
        stored = as_superuser(served, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{keys[1].id}'")
        assert str(stored[0][0]).startswith("SCRAM-SHA-256$")
        assert await issuer.accepts(keys[1].material)
        log = (served.server.base / "log").read_text()
        assert f'CREATE ROLE "{keys[1].id}"' in log
        assert not any(str(key.material.password) in log for key in keys)
        seen = as_superuser(served, "SELECT query FROM pg_stat_activity")
        assert not any(str(key.material.password) in str(seen) for key in keys)
    finally:
        as_superuser(served, "ALTER SYSTEM RESET ALL")
        as_superuser(served, "SELECT pg_reload_conf()")
