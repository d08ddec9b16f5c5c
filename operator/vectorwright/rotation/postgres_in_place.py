"""A login role of PostgreSQL whose password is changed: strategy InPlace.

Whoever connects with the old password from then on is refused, before the new one was published. Sessions that are open
go on, unless ``terminateSessions`` is true.
"""

from __future__ import annotations

from psycopg import sql

from vectorwright.errors import Conflict, Terminal

from .base import Assignment, IssuedKey, IssuerTraits, KeyMaterial, KeyRequest, LiveKey
from .passwords import random_password
from .postgres_roles import end_sessions, require_rights, role_not_found, warn_of_md5
from .postgres_session import AdminSession, Transaction, is_let_in


class PostgresInPlace:
    """One role, made by people, whose password this resource sets."""

    def __init__(self, assignment: Assignment) -> None:
        self.traits = IssuerTraits(generates=True, overlaps=False)
        self._assignment = assignment
        self._role = str(assignment.identity["role"])
        self._terminate = assignment.identity.get("terminateSessions")
        self._session = AdminSession(assignment.connection)
        self._needs = f"CREATEROLE and the ADMIN option on role {self._role}"

    def name_of(self, revision: int) -> str:
        """The role: the same for every revision."""
        del revision
        return self._role

    def draft(self, request: KeyRequest) -> KeyMaterial:
        """The role and a new password."""
        return KeyMaterial(username=request.name, password=random_password())

    async def check(self) -> None:
        """Raises Terminal (``AccessDenied``, ``AdminRightMissing``, ``RoleNotFound``, ``InvalidSpec``,
        ``UnsupportedVersion``), Retryable."""
        async with self._session.transaction(self._needs, changes=False) as transaction:
            await self._checked(transaction)

    async def _checked(self, transaction: Transaction) -> None:
        role, admin = await transaction.role(self._role), await transaction.admin()
        if role is None:
            raise role_not_found(self._role, self._session.endpoint)
        if role.name == admin.name:
            raise Terminal(
                f"spec.adminCredentials are those of role {role.name} itself: after its password was changed they are "
                "wrong; name another role there",
                reason="InvalidSpec",
            )
        if not role.may_log_in:
            raise Terminal(
                f"role {role.name} may not log in: strategy InPlace changes the password of a login role; take "
                "DualIdentity for a role that others act as",
                reason="InvalidSpec",
            )
        require_rights(admin, role)
        warn_of_md5(admin, self._session.endpoint)

    async def create(self, request: KeyRequest) -> IssuedKey:
        """Give the role the password that was drafted."""
        material = request.draft or self.draft(request)
        async with self._session.transaction(self._needs, changes=True) as transaction:
            await self._checked(transaction)
            verifier = transaction.verifier(self._role, material.password or "")
            await transaction.run(
                "ALTER ROLE {role} PASSWORD {verifier}", role=sql.Identifier(self._role), verifier=verifier
            )
        if self._terminate:
            await end_sessions(self._session, self._role)
        return IssuedKey(self._role, material)

    async def accepts(self, key: KeyMaterial) -> bool:
        """Whether the role gets in with the password."""
        return await is_let_in(self._assignment.connection, key)

    async def revoke(self, key: LiveKey) -> None:
        """Take the role's password away, and end its sessions unless ``terminateSessions`` is false. The role stays."""
        if key.name != self._role:
            raise Conflict(f"role {key.name} is not the one of this resource: it is left alone", reason="NotOurs")
        async with self._session.transaction(self._needs, changes=True) as transaction:
            if await transaction.role(self._role) is None:
                return
            await transaction.run("ALTER ROLE {role} PASSWORD NULL", role=sql.Identifier(self._role))
        if self._terminate is not False:
            await end_sessions(self._session, self._role)

    async def live(self) -> list[LiveKey]:
        """None: the role was made by people, and whose its password is nobody can tell."""
        return []

    async def predecessor(self) -> IssuedKey | None:
        """None: the password in use before is not known."""
        return None

    async def close(self) -> None:
        """Nothing is open."""
        self._session.close()


def open_issuer(assignment: Assignment) -> PostgresInPlace:
    """As every strategy's module has it."""
    return PostgresInPlace(assignment)
