"""Two login roles of PostgreSQL that take turns and act as one base role: strategy DualIdentity.

What a session of theirs makes belongs to the base role (``ALTER ROLE … SET role``), so that either can go: a role that
owns something cannot be dropped, and the other could not change what it owns. A role is made, or brought to a new
password, in one transaction.
"""

from __future__ import annotations

import logging
import re

import psycopg
from psycopg import sql

from vectorwright.errors import Conflict, Retryable, Terminal

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .names import SLOTS, owner_digest, slot_of, slotted
from .passwords import random_password
from .postgres_session import GRANTS_HAVE_OPTIONS, Admin, AdminSession, Role, Transaction, is_let_in
from .postgres_settings import copy_settings

_log = logging.getLogger(__name__)
_ADMIN_OPTION = "the ADMIN option on role {role}: GRANT {role} TO {admin} WITH ADMIN OPTION"
_AFTER_SECONDS = 1.0


class PostgresRoles:
    """Roles ``<role>_<digest>_a`` and ``…_b``, marked as this resource's by their comment."""

    def __init__(self, assignment: Assignment) -> None:
        self.traits = IssuerTraits(generates=True)
        self._assignment = assignment
        self._base = str(assignment.identity["role"])
        self._limit = int(assignment.identity.get("connectionLimit") or -1)
        self._ends_sessions = assignment.identity.get("terminateSessions") is not False
        self._mark = f"vectorwright.dev/owner: {assignment.owner}"
        self._of_ours = rf"_{owner_digest(assignment.owner)}_[{''.join(SLOTS)}]$"
        self._session = AdminSession(assignment.connection)
        self._needs = f"CREATEROLE and the ADMIN option on role {self._base} and on those that are made of it"

    def name_of(self, revision: int) -> str:
        """As :meth:`.base.KeyIssuer.name_of`."""
        return slotted(self._assignment.owner, self._base, slot_of(revision), "_")

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """The role's name and a new password."""
        return KeyMaterial(username=request.name, password=random_password())

    async def check(self) -> None:
        """Raises Terminal (``AccessDenied``, ``AdminRightMissing``, ``RoleNotFound``, ``UnsupportedVersion``),
        Retryable."""
        async with self._session.transaction(self._needs, changes=False) as transaction:
            await self._checked(transaction)

    async def _checked(self, transaction: Transaction) -> None:
        base, admin = await transaction.role(self._base), await transaction.admin()
        if base is None:
            raise role_not_found(self._base, self._session.endpoint)
        require_rights(admin, base)
        warn_of_md5(admin, self._session.endpoint)

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Make the role with the password that was drafted, or give it that password. One transaction."""
        material = request.draft or self.draft(request)
        if request.current is not None and request.current.username == request.name:
            raise Conflict(
                f"role {request.name} is the one that is published: it is not given another password",
                reason="KeyInUse",
            )
        async with self._session.transaction(self._needs, changes=True) as transaction:
            await self._checked(transaction)
            existing = await self._ours(transaction, request.name)
            await self._write(transaction, request.name, material.password or "", exists=existing is not None)
        return IssuedKey(request.name, material)

    async def _write(self, transaction: Transaction, name: str, password: str, *, exists: bool) -> None:
        parts: dict[str, sql.Composable] = {
            "role": sql.Identifier(name),
            "base": sql.Identifier(self._base),
            "verifier": transaction.verifier(name, password),
            "limit": sql.Literal(self._limit),
            "mark": sql.Literal(self._mark),
        }
        verb = "ALTER" if exists else "CREATE"
        statement = f"{verb} ROLE {{role}} LOGIN INHERIT CONNECTION LIMIT {{limit}} PASSWORD {{verifier}}"
        try:
            await transaction.run(statement, **parts)
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            raise Retryable(
                f"role {name} came about at {self._session.endpoint} while it was being made, as by an attempt that "
                "was broken off; it is looked at again",
                reason="InProgress",
                after=_AFTER_SECONDS,
            ) from None
        await transaction.run("COMMENT ON ROLE {role} IS {mark}", **parts)
        await transaction.run("GRANT {base} TO {role}", **parts)
        await copy_settings(transaction, self._base, name)
        await transaction.run("ALTER ROLE {role} SET role = {base}", **parts)

    async def _ours(self, transaction: Transaction, name: str) -> Role | None:
        """The role, where there is one. Raises Conflict for one that is not this resource's."""
        role = await transaction.role(name)
        if role is not None and role.comment != self._mark:
            raise Conflict(
                f"role {name} exists at {self._session.endpoint} and its comment does not say that it is of this "
                f"resource ({self._mark}): it is left alone; drop or rename it",
                reason="NotOurs",
            )
        return role

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether the role gets in with the password."""
        return await is_let_in(self._assignment.connection, key)

    async def revoke(self, key: LiveKey) -> None:
        """Take login and password away, end the role's sessions, drop it. Where something depends on it that it owns,
        it stays and cannot log in."""
        if not re.search(self._of_ours, key.name):
            raise Conflict(f"role {key.name} is none of this resource's: it is left alone", reason="NotOurs")
        role = sql.Identifier(key.name)
        async with self._session.transaction(self._needs, changes=True) as transaction:
            if await self._ours(transaction, key.name) is None:
                return
            await transaction.run("ALTER ROLE {role} NOLOGIN PASSWORD NULL", role=role)
        if self._ends_sessions:
            await end_sessions(self._session, key.name)
        async with self._session.transaction(self._needs, changes=True) as transaction:
            if await self._ours(transaction, key.name) is None:
                return
            try:
                async with transaction.connection.transaction():
                    await transaction.run("DROP ROLE {role}", role=role)
            except psycopg.errors.DependentObjectsStillExist:
                _log.warning(
                    "role %s of %s owns or was granted something: it stays and cannot log in; hand that over by "
                    "REASSIGN OWNED and DROP OWNED",
                    key.name,
                    self._session.endpoint,
                )

    async def live(self) -> list[LiveKey]:
        """This resource's roles that may log in, also those of a base role that the spec named before."""
        async with self._session.transaction(self._needs, changes=False) as transaction:
            found = await transaction.rows(
                "SELECT rolname FROM pg_catalog.pg_roles WHERE rolcanlogin AND rolname ~ $1"
                " AND pg_catalog.shobj_description(oid, 'pg_authid') = $2 ORDER BY rolname",
                self._of_ours,
                self._mark,
            )
        return [LiveKey(name, name) for (name,) in found]

    async def predecessor(self) -> IssuedKey | None:
        """None: the spec names no login role that was in use before."""
        return None

    async def close(self) -> None:
        """Nothing is open."""
        self._session.close()


def role_not_found(role: str, endpoint: str) -> Terminal:
    """A role of the spec that is not there."""
    return Terminal(
        f"{endpoint} has no role {role}: make it, or correct spec.identity.postgres.role", reason="RoleNotFound"
    )


def require_rights(admin: Admin, role: Role) -> None:
    """Raises Terminal (``AdminRightMissing``) where the admin may not grant or change a role."""
    missing = None
    if not admin.makes_roles:
        missing = f"CREATEROLE: ALTER ROLE {admin.name} CREATEROLE"
    elif role.superuser and not admin.superuser:
        missing = f"to be a superuser, since role {role.name} is one; better take another role"
    elif not role.administered and admin.server_version >= GRANTS_HAVE_OPTIONS:
        missing = _ADMIN_OPTION.format(role=role.name, admin=admin.name)
    if missing is not None:
        raise Terminal(f"role {admin.name} of spec.adminCredentials needs {missing}", reason="AdminRightMissing")


def warn_of_md5(admin: Admin, endpoint: str) -> None:
    """Passwords are stored as SCRAM verifiers whatever the server is set to."""
    if admin.password_encryption == "md5":  # noqa: S105 - a method, not a password
        _log.warning(
            "password_encryption is md5 at %s; keys are stored as scram-sha-256 all the same, which clients older than "
            "libpq 10 cannot use",
            endpoint,
        )


async def end_sessions(session: AdminSession, role: str) -> None:
    """End all sessions of a role. Raises Terminal (``AdminRightMissing``), Retryable (``InProgress``)."""
    needs = (
        f"pg_signal_backend or the ADMIN option on role {role} to end its sessions (or set "
        "spec.identity.postgres.terminateSessions: false, and they go on)"
    )
    async with session.transaction(needs, changes=True) as transaction:
        left = await transaction.end_sessions(role)
    if left:
        raise Retryable(
            f"{left} sessions of role {role} have not ended yet at {session.endpoint}",
            reason="InProgress",
            after=_AFTER_SECONDS,
        )


def open_issuer(assignment: Assignment) -> PostgresRoles:
    """As every strategy's module has it."""
    return PostgresRoles(assignment)
