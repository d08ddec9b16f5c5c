"""Real Milvus servers on loopback: milvus-lite, or the Milvus at ``MILVUS_URI``."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from deploy.servers.milvus import MilvusServer, start_milvus_server

__all__ = ["MilvusServer", "RawMilvus", "RunningMilvus", "StartMilvus", "start_milvus_server"]

StartMilvus = Callable[..., MilvusServer]


class RunningMilvus:
    """Where tests find a Milvus: one of our own, or that of the environment, which asks for ``token``."""

    def __init__(self, url: str, token: str | None, own: MilvusServer | None) -> None:
        parts = urlsplit(url)
        self.url, self.token, self._own = url, token, own
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname or "", parts.port or (443 if self.secure else 19530)

    def restart(self) -> None:
        """Stop it in good order and start it again."""
        if self._own is None:
            pytest.skip("the server that MILVUS_URI names is not ours to restart")
        self._own.stop()
        self._own.start()


class RawMilvus:
    """Somebody else's client, in one database: calls of Milvus' API as they are."""

    def __init__(self, server: RunningMilvus, database: str) -> None:
        self._server, self.database = server, database

    def call(self, method: str, request: Any, answer: str = "") -> Any:
        """The answer, a message of the kind ``answer`` (a status where empty). Fails the test where it is a refusal."""
        from vectorwright.stores.milvus.stubs import common_pb2, milvus_pb2

        metadata = [("dbname", self.database)]
        if self._server.token:
            metadata.append(("authorization", base64.b64encode(self._server.token.encode()).decode()))
        address = f"{self._server.host}:{self._server.port}"
        secure = grpc.secure_channel(address, grpc.ssl_channel_credentials()) if self._server.secure else None
        with secure or grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            data = channel.unary_unary(f"/milvus.proto.milvus.MilvusService/{method}")(
                request.SerializeToString(), timeout=30, metadata=metadata
            )
        made = (getattr(milvus_pb2, answer) if answer else common_pb2.Status)()
        made.ParseFromString(data)
        status = made.status if answer else made
        assert status.code == status.error_code == 0, status
        return made

    def create_database(self) -> None:
        from vectorwright.stores.milvus.stubs import milvus_pb2

        self.call("CreateDatabase", milvus_pb2.CreateDatabaseRequest(db_name=self.database))

    def drop_database(self) -> None:
        """With all that is in it."""
        from vectorwright.stores.milvus.stubs import milvus_pb2

        for alias in self.call("ListAliases", milvus_pb2.ListAliasesRequest(), "ListAliasesResponse").aliases:
            self.call("DropAlias", milvus_pb2.DropAliasRequest(alias=alias))
        shown = self.call("ShowCollections", milvus_pb2.ShowCollectionsRequest(), "ShowCollectionsResponse")
        for name in shown.collection_names:
            self.call("DropCollection", milvus_pb2.DropCollectionRequest(collection_name=name))
        self.call("DropDatabase", milvus_pb2.DropDatabaseRequest(db_name=self.database))


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[RunningMilvus]:
    """One server for the whole session: use a database of your own, and do not stop it (see ``start_milvus``)."""
    url = os.environ.get("MILVUS_URI")
    if url:
        yield RunningMilvus(url, os.environ.get("MILVUS_TOKEN"), None)
        return
    base = Path(tempfile.mkdtemp(prefix="vectorwright-milvus-"))
    server = start_milvus_server(base / "data", remove=base)
    yield RunningMilvus(server.url, None, server)
    server.stop()
    shutil.rmtree(base)


@pytest.fixture
def start_milvus(tmp_path: Path) -> Iterator[StartMilvus]:
    """``start_milvus(directory=None, port=None)`` starts a server of this test's own, stopped after it."""
    servers: list[MilvusServer] = []

    def begin(directory: Path | None = None, port: int | None = None) -> MilvusServer:
        server = start_milvus_server(directory or tmp_path / f"milvus-{len(servers)}", port)
        servers.append(server)
        return server

    yield begin
    for server in servers:
        server.stop()
