"""A real PostgreSQL server whose roles are rotated: an admin that is no superuser, a base role that owns a schema."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from tests.support.operations import Operations
from tests.support.postgres import PostgresServer, start_postgres_server
from tests.support.postgres_front import PostgresFront

from vectorwright.rotation.postgres_session import GRANTS_HAVE_OPTIONS

__all__ = ["PostgresWithRoles"]

Connection = psycopg.Connection[tuple[object, ...]]
_REFUSED = re.compile(
    'authentication failed|not permitted to log in|terminating connection due to administrator|role ".*" does not exist'
)


def refuses(error: Exception) -> bool:
    """Whether a connection failed because its role may not come in, or because it just lost that right."""
    return _REFUSED.search(str(error)) is not None


class PostgresWithRoles:
    """A database of this test's own, with pgvector, and roles for it. Passwords are checked (scram-sha-256).

    ``base_role`` may not log in; it owns ``schema``. ``admin_role`` may make roles (CREATEROLE) and grant the base role
    (WITH ADMIN OPTION), and is no superuser. ``port`` counts operations and fails them on purpose; ``server.port`` does
    neither.
    """

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._front = PostgresFront(server.port)
        self.host, self.port = self._front.host, self._front.port
        self.database = server.new_database()
        self.schema = "docs"
        self.base_role = f"{self.database}_docs"
        self.admin_role = f"{self.database}_admin"
        self.admin_password = secrets.token_hex(16)
        base = sql.Identifier(self.base_role)
        with server.connect(self.database) as connection:
            available = connection.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'").fetchone()
            self.holds_vectors = available is not None
            """Whether it has pgvector: one of POSTGRES_BIN may not."""
            if self.holds_vectors:
                connection.execute("CREATE EXTENSION vector")
            self.grants_have_options = connection.info.server_version >= GRANTS_HAVE_OPTIONS
            """Whether CREATEROLE alone does not reach every role, and a membership says whether it is inherited."""
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(base))
            connection.execute(sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(sql.Identifier(self.schema), base))
        self.make_admin(self.admin_role, self.admin_password)

    @property
    def operations(self) -> Operations:
        """Calls of ``port`` by operation (``connect``, ``CREATE ROLE``, ``GRANT``, …), and their faults."""
        return self._front.operations

    def make_admin(self, name: str, password: str, *, createrole: bool = True, grants_base: bool = True) -> None:
        """A role that may log in: with less than rotation needs where it is told so."""
        role, base = sql.Identifier(name), sql.Identifier(self.base_role)
        may = sql.SQL("CREATEROLE" if createrole else "NOCREATEROLE")
        with self.server.connect() as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(role, may, sql.Literal(password)))
            if grants_base:
                grant = "GRANT {} TO {} WITH ADMIN OPTION"
                if self.grants_have_options:
                    grant += ", INHERIT FALSE, SET FALSE"
                connection.execute(sql.SQL(grant).format(base, role))

    def connect(self, user: str, password: str, *, counted: bool = False) -> Connection:
        """A connection in autocommit, beside the counting front unless ``counted``. Raises psycopg.OperationalError."""
        return psycopg.connect(
            host=self.host,
            port=self.port if counted else self.server.port,
            user=user,
            password=password,
            dbname=self.database,
            sslmode="disable",
            connect_timeout=10,
            autocommit=True,
        )

    def as_admin(self) -> Connection:
        """A connection of the admin role, beside the counting front."""
        return self.connect(self.admin_role, self.admin_password)

    def accepts(self, user: str, password: str) -> bool:
        """Whether a role gets in with a password. Other errors than a refusal (28P01, 28000) are raised."""
        try:
            self.connect(user, password).close()
        except psycopg.OperationalError as error:
            if refuses(error):
                return False
            raise
        return True

    def roles(self) -> dict[str, bool]:
        """Members of the base role that are no admins → whether they may log in."""
        asked = (
            "SELECT m.rolname, m.rolcanlogin FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member"
            " JOIN pg_roles b ON b.oid = a.roleid WHERE b.rolname = %s AND NOT a.admin_option"
        )
        with self.server.connect() as connection:
            return {str(name): bool(may) for name, may in connection.execute(asked, (self.base_role,))}

    def sessions(self, user: str) -> int:
        """Open sessions of a role."""
        with self.server.connect() as connection:
            asked = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (user,))
            return int(str((asked.fetchone() or (0,))[0]))

    def stop(self) -> None:
        """Stop the server; ``start()`` brings it back on the same port with its roles."""
        self.server.stop()

    def start(self) -> None:
        """Start the server again."""
        self.server.start()

    def close(self) -> None:
        self._front.close()


@pytest.fixture(scope="session")
def postgres_roles_server() -> Iterator[PostgresServer]:
    """One server for the whole session that tests may stop: ask for ``postgres_with_roles``."""
    server = start_postgres_server()
    yield server
    server.remove()


@pytest.fixture
def postgres_with_roles(postgres_roles_server: PostgresServer) -> Iterator[PostgresWithRoles]:
    """A database and roles of this test's own on a server that it may stop."""
    postgres_roles_server.start()
    served = PostgresWithRoles(postgres_roles_server)
    yield served
    served.close()
