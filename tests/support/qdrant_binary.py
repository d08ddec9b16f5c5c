"""Qdrant servers whose keys tests choose: the binary that ``QDRANT_BIN`` names (1.17 or newer), or else doubles."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import httpx
from deploy.devcluster.processes import ManagedProcess, free_port
from deploy.servers.loopback import LoopbackServer, started
from tests.support.qdrant import QdrantDouble
from tests.support.qdrant.engine import QdrantEngine
from tests.support.qdrant.replicas import RoundRobinFront

BINARY = os.environ.get("QDRANT_BIN", "")
Environment = Callable[[], Mapping[str, str]]
"""Tells the variables that a server starts with: it reads its keys from them, once."""


class HasUrl(Protocol):
    """Where a REST API is."""

    @property
    def url(self) -> str: ...


class QdrantServer(HasUrl, Protocol):
    """What tests do with either."""

    host: str
    port: int
    grpc_port: int

    def start(self) -> None: ...

    def stop(self) -> None: ...


def service(
    api_key: str = "", alt_api_key: str = "", read_only_key: str = "", *, jwt_rbac: bool = True
) -> dict[str, str]:
    """Variables of a server with these keys; those that are empty are left out."""
    keys = {"API_KEY": api_key, "ALT_API_KEY": alt_api_key, "READ_ONLY_API_KEY": read_only_key}
    named = {f"QDRANT__SERVICE__{name}": value for name, value in keys.items() if value}
    return {**named, "QDRANT__SERVICE__JWT_RBAC": str(jwt_rbac).lower()}


class QdrantBinary(LoopbackServer):
    """A real Qdrant that keeps its data in ``directory``. ``environment`` is asked at each start."""

    title = "Qdrant"

    def __init__(self, binary: Path, directory: Path, port: int, environment: Environment) -> None:
        super().__init__(directory, port)
        self._binary = binary
        self._environment = environment
        self.grpc_port = free_port()

    def _launch(self) -> ManagedProcess:
        settings = {
            "QDRANT__SERVICE__HOST": self.host,
            "QDRANT__SERVICE__HTTP_PORT": str(self.port),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc_port),
            "QDRANT__SERVICE__ENABLE_STATIC_CONTENT": "false",
            "QDRANT__STORAGE__STORAGE_PATH": str(self.directory / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self.directory / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("QDRANT__")}
        return ManagedProcess.start(
            [self._binary],
            log=self.directory.with_name(self.directory.name + ".log"),
            env={**inherited, **settings, **self._environment()},
            grace=10,
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def qdrant_server(
    directory: Path, environment: Environment, *, binary: str = BINARY, engine: QdrantEngine | None = None
) -> Iterator[QdrantServer]:
    """A running server. Doubles with the same ``engine`` hold the same data."""
    server: QdrantBinary | QdrantDouble
    if binary:
        server = started(lambda port: QdrantBinary(Path(binary), directory, port, environment), directory, None)
    else:
        server = QdrantDouble(environment=environment, engine=engine)
    try:
        yield server
    finally:
        server.stop()


class ServerReplicas:
    """Servers behind one address, as a Service has it: it sends nobody to one that is about to stop.

    Real ones hold data of their own each, which matters to nobody who asks about keys.
    """

    host = "127.0.0.1"
    drain_seconds = 0.0
    """Between leaving the address and stopping, as a preStop hook has it: for connections that are being opened."""

    def __init__(self, servers: list[QdrantServer]) -> None:
        self.servers = servers
        self.starts = [1] * len(servers)
        """How often each was started."""
        self._away: set[int] = set()
        self._rest = RoundRobinFront(lambda: [one.port for one in self._ready()])
        self._grpc = RoundRobinFront(lambda: [one.grpc_port for one in self._ready()])
        self.port, self.grpc_port = self._rest.port, self._grpc.port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _ready(self) -> list[QdrantServer]:
        return [one for at, one in enumerate(self.servers) if at not in self._away]

    def leave(self, at: int) -> None:
        """Send nobody to a server any more."""
        self._away.add(at)

    def restart(self, at: int) -> None:
        """Stop a server that :meth:`leave` was called for, and start it with what its environment tells now."""
        server = self.servers[at]
        time.sleep(self.drain_seconds)
        if isinstance(server, QdrantDouble):
            server.stop(grace=2.0)
        else:
            server.stop()
        server.start()
        self.starts[at] += 1
        self._away.discard(at)

    def close(self) -> None:
        """Close the address; the servers are whoever's started them."""
        self._rest.close()
        self._grpc.close()


@contextlib.contextmanager
def qdrant_replicas(directory: Path, environment: Environment, number: int = 2) -> Iterator[ServerReplicas]:
    """Running servers behind one address."""
    with contextlib.ExitStack() as stack:
        engine = QdrantEngine()
        servers = [
            stack.enter_context(qdrant_server(directory / str(at), environment, engine=engine)) for at in range(number)
        ]
        replicas = ServerReplicas(servers)
        stack.callback(replicas.close)
        yield replicas
