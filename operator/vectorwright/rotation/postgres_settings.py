"""What ``ALTER ROLE … SET`` says of a base role, said of a login role, too: such settings are not inherited."""

from __future__ import annotations

import logging
import re

import psycopg
from psycopg import sql

from .postgres_session import Transaction

_log = logging.getLogger(__name__)

_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
"""Settings whose value is a list of quoted names (GUC_LIST_QUOTE in PostgreSQL's guc_tables.c): each is said apart."""
_OWN = {"role", "session_authorization"}
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"][^,"]*)')


async def copy_settings(transaction: Transaction, base: str, role: str) -> None:
    """Give ``role`` the settings of ``base``, those for everywhere and those for this database, and no others.

    Settings that the admin may not make are left out, and said in the log.
    """
    target = sql.Identifier(role)
    found = await transaction.rows(
        "SELECT s.setdatabase <> 0, setting FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) AS setting"
        " WHERE s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) AND s.setdatabase IN"
        " (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))",
        base,
    )
    database = sql.Identifier(transaction.connection.info.dbname)
    places = {False: sql.SQL(""), True: sql.SQL(" IN DATABASE {}").format(database)}
    for place in places.values():
        await transaction.run("ALTER ROLE {role}{place} RESET ALL", role=target, place=place)
    for here, setting in found:
        name, _, value = str(setting).partition("=")
        if name in _OWN:
            continue
        try:
            async with transaction.connection.transaction():
                await transaction.run(
                    "ALTER ROLE {role}{place} SET {name} = {value}",
                    role=target,
                    place=places[bool(here)],
                    # A name with a dot is an extension's: quoted part by part.
                    name=sql.Identifier(*name.split(".")),
                    value=_value(name, value),
                )
        except psycopg.errors.InsufficientPrivilege:
            _log.warning("role %s does not get the setting %s of role %s: the admin may not make it", role, name, base)


def _value(name: str, value: str) -> sql.Composable:
    if name not in _LISTS:
        return sql.Literal(value)
    names = [quoted.replace('""', '"') or plain.strip() for quoted, plain in _NAME.findall(value)]
    return sql.SQL(", ").join(sql.Literal(one) for one in names) if names else sql.Literal("")
