"""Keys of a real store that are changed again and again while somebody uses them."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from psycopg import sql
from tests.support.postgres_roles import PostgresWithRoles
from tests.support.weaviate import WeaviateWithUsers

from vectorwright.stores.registry import Connection, StoreCredentials


class RotatedKeys(ABC):
    """Two identities of one store that take turns."""

    def __init__(self) -> None:
        self.values: list[str] = []
        """Every key that there was, the current one last."""
        self._turns = itertools.count()

    def issue(self) -> str:
        """The next identity gets a new key, which works from now on. Returns the identity before it."""
        turn = next(self._turns)
        names = self._names()
        self._current = names[turn % 2]
        self.values.append(self._make(self._current))
        return names[(turn + 1) % 2]

    @property
    @abstractmethod
    def credentials(self) -> StoreCredentials:
        """Those of the current identity."""

    @abstractmethod
    def revoke(self, name: str, *, kill: bool = False) -> None:
        """Shut an identity out; with ``kill`` end its sessions, too, where the store has any."""

    @abstractmethod
    def connection(self) -> Connection:
        """How the store is reached now."""

    @abstractmethod
    def _names(self) -> tuple[str, str]: ...

    @abstractmethod
    def _make(self, name: str) -> str: ...


class RotatedRoles(RotatedKeys):
    """Two login roles of PostgreSQL that act as the base role."""

    def __init__(self, server: PostgresWithRoles) -> None:
        super().__init__()
        self.server = server
        place: dict[str, Any] = {"host": server.host, "port": server.server.port, "database": server.database}
        self.settings = place | {"schema": server.schema, "sslMode": "disable"}
        base = sql.Identifier(server.base_role)
        with server.server.connect(server.database) as connection:
            for name in map(sql.Identifier, self._names()):
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN IN ROLE {}").format(name, base))
                connection.execute(sql.SQL("ALTER ROLE {} SET role TO {}").format(name, base))
        self.issue()

    @property
    def credentials(self) -> StoreCredentials:
        return StoreCredentials(username=self._current, password=self.values[-1])

    def connection(self) -> Connection:
        return Connection("pgvector", self.settings, credentials=self.credentials)

    def revoke(self, name: str, *, kill: bool = False) -> None:
        with self.server.server.connect(self.server.database) as connection:
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(name)))
            if kill:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (name,))

    def _names(self) -> tuple[str, str]:
        return f"{self.server.base_role}_a", f"{self.server.base_role}_b"

    def _make(self, name: str) -> str:
        password = secrets.token_hex(16)
        statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
        with self.server.server.connect(self.server.database) as connection:
            connection.execute(statement)
        return password


class RotatedUsers(RotatedKeys):
    """Two users of Weaviate with one role: each is deleted when the other one has taken over, and made again."""

    def __init__(self, server: WeaviateWithUsers) -> None:
        super().__init__()
        self.server = server
        server.make_role("writer")
        self.settings = {"url": server.server.url, "grpcPort": server.grpc_port}
        self.issue()

    @property
    def credentials(self) -> StoreCredentials:
        return StoreCredentials(token=self.values[-1])

    def connection(self) -> Connection:
        return Connection("weaviate", self.settings, credentials=self.credentials)

    def revoke(self, name: str, *, kill: bool = False) -> None:
        del kill  # every request tells its key
        with self.server.api() as api:
            api.delete(f"/users/db/{name}").raise_for_status()

    def _names(self) -> tuple[str, str]:
        return "docs-a", "docs-b"

    def _make(self, name: str) -> str:
        return self.server.make_user(name, "writer")


def files_of(credentials: StoreCredentials, *uses: str) -> dict[str, str]:
    """What a worker finds in its directory. Secrets made from files end with a line end."""
    parts = {"token": credentials.token, "username": credentials.username, "password": credentials.password}
    return {
        f"credentials/{use}/{name}": f"{value}\n" for use in uses for name, value in parts.items() if value is not None
    }


@contextmanager
def rotating(
    keys: RotatedKeys,
    publish: Callable[[], object],
    *,
    every: float,
    overlap: float,
    kill_each: int = 0,
) -> Iterator[list[float]]:
    """Rotate all the while: a new key, ``publish()``, ``overlap`` seconds, the old key dies; again ``every`` seconds.

    Gives the moments at which keys died. Every ``kill_each``-th identity loses its sessions at once, too.
    """
    died: list[float] = []
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            before = keys.issue()
            publish()
            time.sleep(overlap)
            keys.revoke(before, kill=bool(kill_each) and len(died) % kill_each == kill_each - 1)
            died.append(time.monotonic())
            stop.wait(max(0.0, every - overlap))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(rotate)
        try:
            yield died
        finally:
            stop.set()
            running.result()
