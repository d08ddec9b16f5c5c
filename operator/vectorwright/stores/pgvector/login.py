"""How one role gets into one database: TLS, the time it may take, and what a refusal means."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from vectorwright.errors import Retryable, Terminal, VectorwrightError

from ..registry import Connection
from ..tls import ssl_context
from .errors import connection_error, statement_error

DEFAULT_PORT = 5432
OLDEST_SERVER = 14
"""PostgreSQL with client_connection_check_interval, by which it ends what nobody waits for any more."""


class Login:
    """A role, its password and a database. ``endpoint`` is host:port/database, without credentials."""

    def __init__(self, connection: Connection) -> None:
        settings, credentials = connection.settings, connection.credentials
        self.host, self.port = str(settings["host"]), int(settings.get("port") or DEFAULT_PORT)
        self.database = str(settings["database"])
        self.endpoint = f"{self.host}:{self.port}/{self.database}"
        self.timeout = connection.timeout
        self._tls = connection.tls
        self._ssl_mode = str(settings.get("sslMode") or "verify-full")
        if self._ssl_mode != "disable" and self._tls.insecure_skip_verify:
            self._ssl_mode = "require"
        if self._tls.ca is not None:
            ssl_context(self._tls)  # says early and clearly that a bundle is none
        if not credentials.username:
            raise Terminal(
                f"{self.endpoint} needs a user name: put it into the Secret of the store's credentials under the key "
                "username (and its password under password)",
                reason="MissingCredentials",
            )
        self.user, self._password = credentials.username, credentials.password
        self._ca_file: Path | None = None

    @property
    def secrets(self) -> tuple[str | None, ...]:
        """What no message may show."""
        return (self._password,)

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        """A connection in autocommit mode, of a server that is new enough.

        Raises Terminal (``AccessDenied``, ``DatabaseNotFound``, ``TLSVerificationFailed``, ``TLSNotSupported``,
        ``UnsupportedVersion``), Retryable.
        """
        try:
            connection = await self.open()
        except psycopg.Error as error:
            raise self.translated(error) from None
        if connection.info.server_version < OLDEST_SERVER * 10_000:
            version = connection.info.server_version // 10_000
            await connection.close()
            raise Terminal(
                f"{self.endpoint} is PostgreSQL {version}; {OLDEST_SERVER} or newer is needed",
                reason="UnsupportedVersion",
            )
        return connection

    async def open(self) -> psycopg.AsyncConnection[Any]:
        """As :meth:`connect`, of any server, with the driver's errors. Raises ``psycopg.Error``, Retryable."""
        try:
            async with asyncio.timeout(self.timeout):
                return await psycopg.AsyncConnection.connect(
                    autocommit=True,
                    # Placeholders of the server's own ($1): a percent sign in a name or value is only that.
                    cursor_factory=psycopg.AsyncRawCursor,
                    prepare_threshold=None,  # prepared statements do not survive a pooler in between
                    **await self._parameters(),
                )
        except TimeoutError:
            raise Retryable(f"{self.endpoint} did not answer within {self.timeout:g} s", reason="Timeout") from None

    def translated(self, error: psycopg.Error) -> VectorwrightError:
        """What a failed connection or statement means."""
        if error.sqlstate is None and not isinstance(error, psycopg.DataError):
            return connection_error(error, self.endpoint, self.secrets)
        return statement_error(error, self.endpoint, secrets=self.secrets)

    def close(self) -> None:
        """Delete what was written for connections. Safe to call twice."""
        if self._ca_file is not None:
            self._ca_file.unlink(missing_ok=True)
            self._ca_file = None

    async def _parameters(self) -> dict[str, Any]:
        """What libpq is told. Nothing is left to files and variables of the environment that could hold credentials."""
        parameters: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self._password,
            "passfile": os.devnull,
            "sslmode": self._ssl_mode,
            "gssencmode": "disable",
            "application_name": "vectorwright",
            "connect_timeout": max(2, math.ceil(self.timeout)),
            "options": "",
        }
        if self._ssl_mode.startswith("verify-"):
            parameters["sslrootcert"] = self._root_certificates()
        if self._tls.server_name and self._ssl_mode == "verify-full":
            # libpq checks the certificate against ``host``, and connects to ``hostaddr``.
            try:
                found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            except OSError:
                raise Retryable(
                    f"{self.endpoint} cannot be reached: its host name does not resolve", reason="Unreachable"
                ) from None
            parameters |= {"host": self._tls.server_name, "hostaddr": found[0][4][0]}
        return parameters

    def _root_certificates(self) -> str:
        """A file of authorities: libpq takes no bundle from memory, and finds the system's only where it was built."""
        if self._tls.ca is None:
            places = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES)
            return next((place for place in places if place and Path(place).is_file()), "system")
        if self._ca_file is None:
            handle, name = tempfile.mkstemp(prefix="vectorwright-ca-", suffix=".pem")
            with os.fdopen(handle, "w") as file:
                file.write(self._tls.ca)
            self._ca_file = Path(name)
        return str(self._ca_file)


_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
"""Where Debian, Red Hat and Alpine keep theirs."""
