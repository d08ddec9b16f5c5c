"""PostgreSQL as an admin of roles sees it: transactions, passwords, sessions, and whether a role is let in."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from vectorwright.errors import Retryable, Terminal
from vectorwright.kube.tenure import process_tenure
from vectorwright.stores.pgvector.deadline import deadline
from vectorwright.stores.pgvector.errors import statement_error
from vectorwright.stores.pgvector.login import Login
from vectorwright.stores.registry import Connection

from .base import KeyMaterial

GRANTS_HAVE_OPTIONS = 160_000
"""PostgreSQL 16: CREATEROLE alone no longer reaches every role; a membership says whether it is inherited."""
LOCK_SECONDS = 5.0
ENDING_SECONDS = 3.0
"""Within this time a session that is told to end does; otherwise it is asked for again."""

_REFUSED = re.compile(
    r"FATAL.*(authentication failed|not permitted to log in|role .* does not exist|no such user|pg_hba\.conf)",
    re.DOTALL,
)
_ROLE_IS_FULL = re.compile(r"FATAL.*too many connections for role", re.DOTALL)
"""Said after the password was found right (InitializeSessionUserId in PostgreSQL's miscinit.c)."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role as the server has it."""

    name: str
    may_log_in: bool
    superuser: bool
    comment: str | None
    administered: bool
    """Whether the admin has the ADMIN option on it."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Who is logged in, and where."""

    name: str
    superuser: bool
    makes_roles: bool
    server_version: int
    password_encryption: str


class Transaction:
    """A transaction of the admin. Statements are made by :mod:`psycopg.sql`; parameters are ``$1``, ``$2``, ….

    Names of roles and of settings come from the spec and from the server: they are always quoted.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self.server_version = connection.info.server_version

    async def run(self, statement: str, **parts: sql.Composable) -> None:
        """Run a statement that gives no rows: ``{name}`` stands for a part."""
        await self.connection.execute(sql.SQL(statement).format(**parts))

    async def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a query gives."""
        return await (await self.connection.execute(statement, values)).fetchall()

    async def role(self, name: str) -> Role | None:
        """A role, where there is one."""
        found = await self.rows(
            "SELECT rolname, rolcanlogin, rolsuper, pg_catalog.shobj_description(oid, 'pg_authid'),"
            " pg_catalog.pg_has_role(current_user, oid, 'MEMBER WITH ADMIN OPTION')"
            " FROM pg_catalog.pg_roles WHERE rolname = $1",
            name,
        )
        return Role(*found[0]) if found else None

    async def admin(self) -> Admin:
        """Who asks."""
        ((name, superuser, makes_roles, encryption),) = await self.rows(
            "SELECT rolname, rolsuper, rolcreaterole, pg_catalog.current_setting('password_encryption')"
            " FROM pg_catalog.pg_roles WHERE rolname = current_user"
        )
        return Admin(name, superuser, makes_roles or superuser, self.server_version, encryption)

    def verifier(self, role: str, password: str) -> sql.Literal:
        """A SCRAM verifier, so that the password itself is in no statement, log or list of activities.

        A server stores a verifier as it is, whatever its ``password_encryption``.
        """
        made = self.connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        return sql.Literal(made.decode())

    async def end_sessions(self, role: str) -> int:
        """Tell the sessions of a role to end; how many are left. Raises ``InsufficientPrivilege``."""
        left = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = $1"
        if (await self.rows(left, role))[0][0] == 0:
            return 0
        try:
            async with self.connection.transaction():
                await self._terminate(role)
        except psycopg.errors.InsufficientPrivilege:
            # Whoever made a role is no member of it, and may become one: for this moment only.
            async with self.connection.transaction(force_rollback=True):
                inherit = "WITH INHERIT TRUE" if self.server_version >= GRANTS_HAVE_OPTIONS else ""
                await self.run(f"GRANT {{role}} TO CURRENT_USER {inherit}", role=sql.Identifier(role))
                await self._terminate(role)
        await self.rows("SELECT pg_catalog.pg_stat_clear_snapshot()")  # a transaction sees what it saw first, otherwise
        return int((await self.rows(left, role))[0][0])

    async def _terminate(self, role: str) -> None:
        await self.rows(
            "SELECT pg_catalog.pg_terminate_backend(pid, $2) FROM pg_catalog.pg_stat_activity WHERE usename = $1",
            role,
            round(ENDING_SECONDS * 1000),
        )


class AdminSession:
    """The admin's way into a server: a connection for each transaction, since they are few and far between."""

    def __init__(self, connection: Connection) -> None:
        self._login = Login(connection)
        self.endpoint = self._login.endpoint

    @asynccontextmanager
    async def transaction(self, needs: str, *, changes: bool) -> AsyncIterator[Transaction]:
        """All or nothing. ``needs`` says what the admin must be granted, for when it is not.

        Raises Terminal (``AccessDenied``, ``AdminRightMissing``), Retryable.
        """
        connection = await self._login.connect()
        try:
            left = process_tenure().require() if changes else None
            seconds = self._login.timeout if left is None else min(self._login.timeout, left)
            with deadline(connection, seconds):
                async with connection.transaction():
                    await connection.execute(
                        "SELECT pg_catalog.set_config('statement_timeout', $1, true),"
                        " pg_catalog.set_config('lock_timeout', $2, true),"
                        " pg_catalog.set_config('search_path', 'pg_catalog', true)",
                        [str(math.ceil(time * 1000)) for time in (seconds, min(seconds, LOCK_SECONDS))],
                    )
                    yield Transaction(connection)
        except TimeoutError:
            raise Retryable(f"{self.endpoint} did not answer in time", reason="Timeout") from None
        except psycopg.errors.InsufficientPrivilege as error:
            said = statement_error(error, self.endpoint, secrets=self._login.secrets).message
            raise Terminal(
                f"{said}; role {self._login.user} of spec.adminCredentials needs {needs}", reason="AdminRightMissing"
            ) from None
        except psycopg.Error as error:
            raise statement_error(error, self.endpoint, secrets=self._login.secrets) from None
        finally:
            await connection.close()

    def close(self) -> None:
        """Nothing is open. Safe to call twice."""
        self._login.close()


async def is_let_in(connection: Connection, key: KeyMaterial) -> bool:
    """Whether a role gets into the database with a password, and is answered there.

    A role that has all the connections it may have is let in: it is told so after its password was found right. A
    server that has none left for anybody has said nothing: Retryable.

    Raises Terminal for what is not about the key (``DatabaseNotFound``, no right to connect to it), Retryable.
    """
    login = Login(replace(connection, credentials=key.credentials))
    try:
        opened = await login.open()
        try:
            with deadline(opened, login.timeout):
                await opened.execute("SELECT 1")
        finally:
            await opened.close()
    except TimeoutError:
        raise Retryable(f"{login.endpoint} did not answer within {login.timeout:g} s", reason="Timeout") from None
    except psycopg.Error as error:
        return _verdict(error, login)
    finally:
        login.close()
    return True


def _verdict(error: psycopg.Error, login: Login) -> bool:
    said, state = str(error), error.sqlstate
    if state is not None:
        if state.startswith("28"):
            return False
    elif _REFUSED.search(said):
        return False
    elif _ROLE_IS_FULL.search(said):
        return True
    found = login.translated(error)
    if state is None and found.reason == "AccessDenied" and "permission denied" not in said:
        # libpq tells no SQLSTATE of a login, and what is only guessed is no proof.
        raise Retryable(
            f"{login.endpoint} refused a login in words that are not known here, which proves nothing: set "
            "lc_messages to C in its configuration",
            reason="UnexpectedAnswer",
        ) from None
    raise found from None
