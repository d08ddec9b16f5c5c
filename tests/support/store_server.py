"""Real ``vectorwright store-server`` processes on loopback and on a socket."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from deploy.devcluster.processes import ManagedProcess, on_free_port, wait_for

from vectorwright.stores.local_server import LocalStoreServers

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
"""Of a program of the package that a test starts by itself."""
_START_SECONDS = 60.0
_FOLDERS_A_START = 200

StartStoreServer = Callable[..., "StoreServer"]


class StoreServer:
    """A store server with everything on: a memory store, Lance tables and FAISS indexes in ``base / "tables"``.

    All are behind ``token``.

    It can be stopped or killed, and started again at the same addresses. With ``folders`` (the default) every folder
    that a client names is a store of its own, which gives each test an empty one.
    """

    token = "s3cret-that-never-shows"

    def __init__(self, base: Path, port: int, *, folders: bool = True, flags: tuple[str, ...] = ()) -> None:
        self.base = base
        self.tables = base / "tables"
        self.host, self.port = "127.0.0.1", port
        self.unix = base / "s"
        self._folders, self._flags = folders, flags
        self._process: ManagedProcess | None = None
        self._opened = 0

    @property
    def url(self) -> str:
        scheme = "https" if "--tls-cert" in self._flags else "http"
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def process(self) -> ManagedProcess:
        """The running program. Raises RuntimeError when the server is stopped."""
        if self._process is None:
            raise RuntimeError("this store server is stopped")
        return self._process

    def start(self) -> None:
        """Start the server (again) and return when it answers. Nothing happens when it runs."""
        if self._process is not None:
            return
        tokens = self.base / "tokens"
        tokens.write_text(f"{self.token}\n")
        command: list[str | Path] = [sys.executable, "-m", "vectorwright", "store-server", "--log-format", "text"]
        command += ["--listen", f"{self.host}:{self.port}", "--unix", self.unix, "--token-file", tokens]
        command += ["--memory", "--lance", self.tables, "--faiss", self.tables]
        command += [*(["--lance-folders", "--faiss-folders"] if self._folders else []), *self._flags]
        path = os.pathsep.join(filter(None, (str(ROOT / "operator"), os.environ.get("PYTHONPATH"))))
        process = ManagedProcess.start(
            command, log=self.base / "log", env={**os.environ, "PYTHONPATH": path}, grace=30, remove=self.base
        )
        try:
            wait_for(self._answers, what=f"store server on {self.url}", timeout=_START_SECONDS, process=process)
        except BaseException:
            process.stop()
            raise
        self._process = process
        self._opened = 0

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # httpx leaves the socket of a failed attempt open
            if probe.connect_ex(str(self.unix)) != 0:
                return False
        try:
            answer = httpx.get(f"{self.url}/healthz", timeout=2, trust_env=False, verify=False)
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def stop(self) -> None:
        """Stop the server in good order; its tables and addresses stay for ``start()``."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End the server as a crash would."""
        self.process.kill()
        self._process = None

    def new_folder(self) -> str:
        """A folder of the caller's own. A server keeps those open that it was asked for, and no more than 256: it is
        started again before that."""
        if self._opened >= _FOLDERS_A_START:
            self.stop()
            self.start()
        self._opened += 1
        return f"test-{secrets.token_hex(6)}"

    def request(self, method: str, path: str, **arguments: object) -> httpx.Response:
        """A request with the token."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.request(method, f"{self.url}{path}", headers=headers, trust_env=False, timeout=30, **arguments)  # type: ignore[arg-type]

    def empty_memory(self) -> None:
        """Drop every index of the memory store, and the aliases with them."""
        for index in self.request("GET", "/v1/memory/indexes").json()["indexes"]:
            self.request("DELETE", f"/v1/memory/indexes/{index['name']}").raise_for_status()


def _begin(**options: object) -> StoreServer:
    # A short path: that of a socket has at most 103 bytes, and pytest's own folders are longer on some systems.
    base = Path(tempfile.mkdtemp(prefix="vw-"))

    def begin(port: int) -> StoreServer:
        server = StoreServer(base, port, **options)  # type: ignore[arg-type]
        server.start()
        return server

    return on_free_port(begin)


def _finish(server: StoreServer) -> None:
    server.stop()
    shutil.rmtree(server.base)


@contextlib.contextmanager
def running_store_server(**options: object) -> Iterator[StoreServer]:
    """A server that ends with the context."""
    server = _begin(**options)
    try:
        yield server
    finally:
        _finish(server)


@pytest.fixture(scope="session")
def store_server() -> Iterator[StoreServer]:
    """One server for the whole session: use a folder of your own, and do not stop it (see ``start_store_server``)."""
    with running_store_server() as server:
        yield server


@pytest.fixture
async def local_store_servers(tmp_path: Path) -> AsyncIterator[LocalStoreServers]:
    """Those that the operator starts for itself, in ``stores`` of the test's directory."""
    servers = LocalStoreServers(tmp_path / "stores")
    yield servers
    await servers.stop()


@pytest.fixture
def start_store_server() -> Iterator[StartStoreServer]:
    """``start_store_server(folders=True, flags=())`` starts a server of this test's own, stopped after it."""
    servers: list[StoreServer] = []

    def begin(**options: object) -> StoreServer:
        servers.append(_begin(**options))
        return servers[-1]

    yield begin
    for server in servers:
        _finish(server)
