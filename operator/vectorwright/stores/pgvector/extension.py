"""What a database says of itself: versions, identity, and whether it has pgvector or can get it."""

from __future__ import annotations

import hashlib

import psycopg
from psycopg import sql

from vectorwright.errors import Terminal

from .pool import ConnectionPool, Link, version_numbers

OLDEST = (0, 7)
"""pgvector with halfvec and its index."""


async def server_version(link: Link, endpoint: str, schema: str) -> str:
    """Versions of server and extension, as a person reads them.

    Raises Terminal (``ExtensionMissing``, ``UnsupportedVersion``). An extension that our role can make is not missing:
    it is made with the first index.
    """
    server = str((await link.one("SELECT current_setting('server_version')"))[0]).split()[0]
    if link.extension_version is None:
        await _create_extension(link, endpoint, schema, only_try=True)
        return f"PostgreSQL {server}, pgvector not yet installed"
    if version_numbers(link.extension_version)[:2] < OLDEST:
        raise Terminal(
            f"{endpoint} has pgvector {link.extension_version}; 0.7 or newer is needed: install it on the server and "
            "run ALTER EXTENSION vector UPDATE",
            reason="UnsupportedVersion",
        )
    return f"PostgreSQL {server}, pgvector {link.extension_version}"


async def backend_id(link: Link, place: str) -> str:
    """Identity of cluster and database. Where the cluster's own is not for us to see, it is told apart by its place."""
    allowed, database = await link.one(
        "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'), "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    if not allowed:
        return f"{hashlib.sha256(place.encode()).hexdigest()[:20]}/{database}"
    (system,) = await link.one("SELECT system_identifier FROM pg_control_system()")
    return f"{system}/{database}"


async def _create_extension(link: Link, endpoint: str, schema: str, *, only_try: bool) -> None:
    """Make pgvector, or find out whether our role may.

    Whether it may is told by doing it: managed services let roles through that no catalog names.
    """
    (installable, in_public) = await link.one(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector'), "
        "coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'), false)"
    )
    if not installable:
        raise Terminal(
            f"{endpoint} has no pgvector: install its package on the server, then run CREATE EXTENSION vector in the "
            "database",
            reason="ExtensionMissing",
        )
    place = sql.Identifier("public" if in_public else schema)
    try:
        async with link.connection.transaction(force_rollback=only_try):
            await link.connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {}").format(place))
    except psycopg.errors.UniqueViolation:
        return  # another connection made it in the same moment
    except psycopg.errors.InsufficientPrivilege:
        raise Terminal(
            f"{endpoint} has no pgvector, and our role may not make it: let a superuser run CREATE EXTENSION vector in "
            "the database",
            reason="ExtensionMissing",
        ) from None


async def ensure_extension(pool: ConnectionPool) -> None:
    """Make pgvector known to the database where our role may. Raises Terminal (``ExtensionMissing``)."""
    async with pool.link() as link:
        if link.extension_schema is not None:
            return
        await _create_extension(link, pool.endpoint, pool.schema, only_try=False)
    await pool.reset()
