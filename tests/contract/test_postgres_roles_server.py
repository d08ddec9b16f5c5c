"""The PostgreSQL server whose roles are rotated.

- passwords are checked: a role that was made is let in, and one that was dropped or has another password is not
- the admin makes roles of the base role, whose tables they share, and may do nothing else
- what open sessions see of a role that is gone
- what is counted, what fails on purpose, and what a restart leaves
"""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from tests.support.postgres_roles import PostgresWithRoles

pytestmark = pytest.mark.server
MAY_NOT = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def served(postgres_with_roles: PostgresWithRoles) -> PostgresWithRoles:
    return postgres_with_roles


def statement(served: PostgresWithRoles, text: str, name: str, password: str = "") -> sql.Composed:
    role, base = sql.Identifier(f"{served.database}_{name}"), sql.Identifier(served.base_role)
    return sql.SQL(text).format(role=role, base=base, password=sql.Literal(password))


def make_role(served: PostgresWithRoles, name: str, password: str) -> str:
    """A login role of the base role, as a rotation makes it."""
    with served.as_admin() as admin:
        admin.execute(statement(served, "CREATE ROLE {role} LOGIN PASSWORD {password} IN ROLE {base}", name, password))
        admin.execute(statement(served, "ALTER ROLE {role} SET role = {base}", name))
    return f"{served.database}_{name}"


def test_passwords_are_checked_over_tcp(served: PostgresWithRoles) -> None:
    with served.server.connect() as connection:
        rules = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE type LIKE 'host%'")
        assert rules.fetchall() == [("scram-sha-256",)]
    assert served.accepts(served.admin_role, served.admin_password)
    assert not served.accepts(served.admin_role, "wrong")
    assert not served.accepts(served.base_role, "none")


def test_roles_of_the_base_role_share_its_tables(served: PostgresWithRoles) -> None:
    a, b = make_role(served, "a", "of a"), make_role(served, "b", "of b")
    with served.connect(a, "of a") as first, served.connect(b, "of b") as second:
        first.execute("CREATE TABLE docs.words (id text, embedding vector(2))")
        first.execute("INSERT INTO docs.words VALUES ('a', '[1,2]')")
        second.execute("ALTER TABLE docs.words ADD COLUMN more text")
        assert second.execute(
            "SELECT id, tableowner FROM docs.words, pg_tables WHERE tablename = 'words'"
        ).fetchone() == (
            "a",
            served.base_role,
        )
    assert served.roles() == {a: True, b: True}


def test_a_role_that_was_dropped_is_refused_and_the_other_is_not(served: PostgresWithRoles) -> None:
    a, b = make_role(served, "a", "of a"), make_role(served, "b", "of b")
    with served.as_admin() as admin:
        admin.execute(statement(served, "DROP ROLE {role}", "a"))
        assert not served.accepts(a, "of a")
        assert served.accepts(b, "of b")
        admin.execute(statement(served, "ALTER ROLE {role} PASSWORD {password}", "b", "another"))
        assert not served.accepts(b, "of b")
        assert served.accepts(b, "another")
        admin.execute(statement(served, "ALTER ROLE {role} NOLOGIN", "b"))
        assert not served.accepts(b, "another")
    assert served.roles() == {b: False}


def test_open_sessions_outlive_their_password_until_the_admin_ends_them(served: PostgresWithRoles) -> None:
    a = make_role(served, "a", "of a")
    with served.connect(a, "of a") as session, served.as_admin() as admin:
        admin.execute(statement(served, "ALTER ROLE {role} PASSWORD {password} NOLOGIN", "a", "another"))
        assert session.execute("SELECT 1").fetchone() == (1,)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
        with pytest.raises(MAY_NOT):
            admin.execute(end, (a,))
        grant = "GRANT {role} TO CURRENT_USER WITH INHERIT TRUE"
        admin.execute(statement(served, grant, "a"))
        admin.execute(end, (a,))
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            session.execute("SELECT 1")
    assert served.sessions(a) == 0


def test_admins_may_do_no_more_than_they_were_granted(served: PostgresWithRoles) -> None:
    with served.as_admin() as admin:
        for refused in ("CREATE ROLE {role} SUPERUSER", "GRANT {role} TO CURRENT_USER"):
            with pytest.raises((MAY_NOT, psycopg.errors.UndefinedObject)):
                admin.execute(statement(served, refused, "a"))
        with pytest.raises(MAY_NOT):
            admin.execute("SELECT rolpassword FROM pg_authid")
    served.make_admin(f"{served.database}_powerless", "p", createrole=False)
    with served.connect(f"{served.database}_powerless", "p") as powerless, pytest.raises(MAY_NOT):
        powerless.execute(statement(served, "CREATE ROLE {role}", "a"))
    served.make_admin(f"{served.database}_stranger", "p", grants_base=False)
    with served.connect(f"{served.database}_stranger", "p") as stranger, pytest.raises(MAY_NOT):
        stranger.execute(statement(served, "CREATE ROLE {role} IN ROLE {base}", "a"))


def test_what_is_counted_and_fails_on_purpose(served: PostgresWithRoles) -> None:
    def make() -> str:
        try:
            with served.connect(served.admin_role, served.admin_password, counted=True) as admin:
                admin.execute(statement(served, "CREATE ROLE {role} IN ROLE {base}", "a"))
        except psycopg.Error as error:
            return error.sqlstate or type(error).__name__
        return "made"

    served.operations.fail("connect", status=429)
    assert make() == "OperationalError"
    served.operations.fail("CREATE ROLE")
    assert make() == "57P03"
    assert served.roles() == {}
    served.operations.fail("CREATE ROLE", done=True)
    assert make() == "57P03"
    assert list(served.roles()) == [f"{served.database}_a"]
    assert make() == "42710"
    assert served.operations.counts == {"connect": 4, "CREATE ROLE": 3}


def test_roles_outlive_a_restart(served: PostgresWithRoles) -> None:
    a = make_role(served, "a", "of a")
    served.stop()
    with pytest.raises(psycopg.OperationalError):
        served.connect(a, "of a", counted=True)
    served.start()
    served.connect(a, "of a", counted=True).close()
    assert served.roles() == {a: True}
