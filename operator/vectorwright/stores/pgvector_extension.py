"""What a database says of itself: versions, identity, and whether it has pgvector or can get it."""

from __future__ import annotations

import contextlib
import hashlib

import psycopg
from psycopg import sql

from vectorwright.errors import Terminal

from .pgvector_pool import ConnectionPool, Link, version_numbers

OLDEST = (0, 7)
"""pgvector with halfvec and its index."""


async def server_version(link: Link, endpoint: str) -> str:
    """Versions of server and extension, as a person reads them.

    Raises Terminal (``ExtensionMissing``, ``UnsupportedVersion``). An extension that our role can make is not missing:
    it is made with the first index.
    """
    server = str((await link.one("SELECT current_setting('server_version')"))[0]).split()[0]
    if link.extension_version is None:
        await _check_extension_possible(link, endpoint)
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


async def _check_extension_possible(link: Link, endpoint: str) -> None:
    cursor = await link.connection.execute(
        "SELECT v.trusted AND has_database_privilege(current_database(), 'CREATE') OR r.rolsuper "
        "FROM pg_available_extension_versions v JOIN pg_roles r ON r.rolname = current_user "
        "WHERE v.name = 'vector' LIMIT 1"
    )
    found = await cursor.fetchone()
    if found is None:
        what = "install the package of pgvector on the server, then run CREATE EXTENSION vector in the database"
    elif not found[0]:
        what = "let a superuser, or the owner of the database, run CREATE EXTENSION vector in it"
    else:
        return
    raise Terminal(f"{endpoint} has no pgvector: {what}", reason="ExtensionMissing")


async def ensure_extension(pool: ConnectionPool) -> None:
    """Make pgvector known to the database where our role may: it is a trusted extension. Raises Terminal."""
    async with pool.link() as link:
        if link.extension_schema is not None:
            return
        await _check_extension_possible(link, pool.endpoint)
        (public,) = await link.one(
            "SELECT coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'), "
            "false)"
        )
        schema = sql.Identifier("public" if public else pool.schema)
        with contextlib.suppress(psycopg.errors.UniqueViolation):  # another connection made it in the same moment
            await link.connection.execute(
                sql.SQL("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {}").format(schema)
            )
    await pool.reset()
