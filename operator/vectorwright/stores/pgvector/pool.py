"""Connections to one database: made when needed, kept for a while, and each failure told at once.

A pool that connects in the background would answer a wrong password with a time-out.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from ..registry import Connection
from .codec import teach, teach_vectors
from .deadline import deadline
from .errors import statement_error
from .login import Login

DEFAULT_SCHEMA = "public"
IDLE_SECONDS = 300.0
"""A connection that nobody used for so long is closed when the next one is asked for."""
LOCK_SECONDS = 5.0
"""A statement that waits longer for a lock gives up: whoever queues behind it waits, too."""
GRACE_SECONDS = 1.0
"""The server ends a statement by itself (statement_timeout); this much later the connection is given up."""
EF_SEARCH = 100
MAX_SCAN_TUPLES = 200_000
"""How far an iterative scan goes for a filter before it gives up; pgvector's own figure is 20,000."""

_SETUP = sql.SQL("""
SELECT e.extversion, n.nspname, t.oid, t.typarray,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = {schema}),
       set_config('search_path', 'pg_catalog', false),
       set_config('statement_timeout', {statement_ms}, false),
       set_config('lock_timeout', {lock_ms}, false),
       set_config('client_connection_check_interval', '2s', false),
       CASE WHEN string_to_array(e.extversion, '.')::int[] >= ARRAY[0, 8] THEN
         set_config('hnsw.iterative_scan', 'strict_order', false)
         || set_config('hnsw.max_scan_tuples', {tuples}, false)
         || set_config('ivfflat.iterative_scan', 'relaxed_order', false)
       END,
       CASE WHEN e.extversion IS NOT NULL THEN
         set_config('hnsw.ef_search', {ef_search}, false) || set_config('ivfflat.probes', '10', false)
       END
FROM (SELECT) AS one
LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
LEFT JOIN pg_catalog.pg_type t ON t.typname = 'vector' AND t.typnamespace = n.oid
""")
"""One statement for all that a connection needs. What comes afterwards names its schema: the path finds nothing."""


@dataclass(slots=True)
class Link:
    """A connection and what its database has. ``extension_schema`` is None where pgvector is not installed."""

    connection: psycopg.AsyncConnection[Any]
    extension_version: str | None
    extension_schema: str | None
    used: float

    def operator(self, symbol: LiteralString) -> sql.Composed:
        """An operator of pgvector."""
        return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(self.schema), sql.SQL(symbol))

    @property
    def schema(self) -> str:
        """The schema of pgvector. Raises Terminal (``ExtensionMissing``)."""
        if self.extension_schema is None:
            raise Terminal(
                "the database has no pgvector: run CREATE EXTENSION vector in it, as a superuser or its owner",
                reason="ExtensionMissing",
            )
        return self.extension_schema

    async def one(self, statement: LiteralString | sql.Composed) -> tuple[Any, ...]:
        """The one row that a statement gives."""
        row: tuple[Any, ...] | None = await (await self.connection.execute(statement)).fetchone()
        if row is None:
            raise Retryable("PostgreSQL gave no row where there is always one", reason="UnexpectedAnswer")
        return row


class ConnectionPool:
    """At most ``max_concurrency`` connections. ``endpoint`` is host:port/database, without credentials."""

    def __init__(self, connection: Connection) -> None:
        self._login = Login(connection)
        self.schema = str(connection.settings.get("schema") or DEFAULT_SCHEMA)
        self.host, self.port, self.endpoint = self._login.host, self._login.port, self._login.endpoint
        self.timeout = connection.timeout
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        self._idle: list[Link] = []
        self._closed = False

    @asynccontextmanager
    async def link(self, *, writes: bool = False, seconds: float | None = None) -> AsyncIterator[Link]:
        """A connection in autocommit mode for one piece of work, with errors translated.

        ``seconds`` allows longer statements than ``timeout`` does, on a connection of its own.
        """
        async with self._slots:
            link = await self._take(seconds)
            clean = False
            try:
                with deadline(link.connection, (seconds or self.timeout) + GRACE_SECONDS):
                    yield link
                clean = True
            except TimeoutError:
                raise Retryable(
                    f"{self.endpoint} did not answer within {seconds or self.timeout:g} s", reason="Timeout"
                ) from None
            except psycopg.Error as error:
                clean = error.sqlstate is not None
                raise statement_error(error, self.endpoint, writes=writes, secrets=self._login.secrets) from None
            except VectorwrightError:  # found by looking at what the server said: the connection is fine
                clean = True
                raise
            finally:
                await self._give_back(link, clean=clean and seconds is None)

    async def _take(self, seconds: float | None) -> Link:
        if self._closed:
            raise Terminal(f"the connection to {self.endpoint} was closed", reason="Closed")
        if seconds is not None:
            return await self._connect(seconds)
        while self._idle:
            link = self._idle.pop()
            if time.monotonic() - link.used < IDLE_SECONDS and not link.connection.closed:
                return link
            await link.connection.close()
        return await self._connect(self.timeout)

    async def _give_back(self, link: Link, *, clean: bool) -> None:
        idle = link.connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        if clean and idle and not self._closed:
            link.used = time.monotonic()
            self._idle.append(link)
            return
        broken = link.connection.broken
        await link.connection.close()
        if broken:
            await self.reset()  # the others were made to a server that is gone, most likely

    async def reset(self) -> None:
        """Close idle connections: what they know of the database is no longer true."""
        while self._idle:
            await self._idle.pop().connection.close()

    async def close(self) -> None:
        """Close everything. Safe to call twice."""
        self._closed = True
        await self.reset()
        self._login.close()

    async def _connect(self, seconds: float) -> Link:
        started = time.monotonic()
        connection = await self._login.connect()
        try:
            try:
                with deadline(connection, started + self.timeout - time.monotonic()):
                    return await self._set_up(connection, seconds)
            except BaseException:
                await connection.close()
                raise
        except TimeoutError:
            raise Retryable(f"{self.endpoint} did not answer within {self.timeout:g} s", reason="Timeout") from None
        except psycopg.Error as error:
            raise statement_error(error, self.endpoint, secrets=self._login.secrets) from None

    async def _set_up(self, connection: psycopg.AsyncConnection[Any], seconds: float) -> Link:
        statement = _SETUP.format(
            schema=self.schema,
            statement_ms=str(math.ceil(seconds * 1000)),
            lock_ms=str(math.ceil(min(LOCK_SECONDS, seconds) * 1000)),
            tuples=str(MAX_SCAN_TUPLES),
            ef_search=str(EF_SEARCH),
        )
        row = await (await connection.execute(statement)).fetchone()
        if row is None or not row[4]:
            raise Terminal(
                f"{self.endpoint} has no schema {self.schema!r}: make it, or correct spec.pgvector.schema",
                reason="SchemaNotFound",
            )
        version, extension_schema, vector, vector_array = row[:4]
        teach(connection)
        if version is not None:
            teach_vectors(connection, vector, vector_array)
        return Link(connection, version, extension_schema, time.monotonic())


def version_numbers(text: str) -> tuple[int, ...]:
    """``0.8.2`` as (0, 8, 2)."""
    return tuple(int(number) for number in re.findall(r"\d+", text))
