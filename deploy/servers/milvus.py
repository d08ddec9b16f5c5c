"""milvus-lite as a server on loopback: Milvus' protocol over gRPC."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
from deploy.devcluster.processes import ManagedProcess, on_free_port, wait_for

_START_SECONDS = 60.0
"""It answers after 1 to 3 s; later on a machine whose cores are all busy."""


class MilvusServer:
    """A milvus-lite server that keeps its data in ``directory``; it can be stopped and started again on its port."""

    def __init__(self, directory: Path, port: int, remove: Path | None = None) -> None:
        self.directory = directory
        self._remove = remove
        self.host = "127.0.0.1"
        self.port = port
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def process(self) -> ManagedProcess:
        """The running program. Raises RuntimeError when the server is stopped."""
        if self._process is None:
            raise RuntimeError("this Milvus server is stopped")
        return self._process

    def start(self) -> None:
        """Start the server (again) and return when it answers. Nothing happens when it runs."""
        if self._process is not None:
            return
        program = Path(sys.executable).with_name("milvus-lite")
        process = ManagedProcess.start(
            [program, "server", "--data-dir", self.directory, "--host", self.host, "--port", str(self.port)],
            log=self.directory.with_name(self.directory.name + ".log"),
            grace=3,
            remove=self._remove,
        )
        try:
            wait_for(self._answers, what=f"Milvus on {self.url}", timeout=_START_SECONDS, process=process)
        except BaseException:
            process.stop()
            raise
        self._process = process

    def _answers(self) -> bool:
        with grpc.insecure_channel(f"{self.host}:{self.port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                # An empty request is one without fields.
                channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")(b"", timeout=2)
            except grpc.RpcError:
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


def start_milvus_server(directory: Path, port: int | None = None, *, remove: Path | None = None) -> MilvusServer:
    """A running server on ``port``, or on a free one.

    ``remove`` is a directory to delete should this process die without stopping the server.
    """

    def begin(port: int) -> MilvusServer:
        server = MilvusServer(directory, port, remove)
        server.start()
        return server

    directory.mkdir(parents=True, exist_ok=True)
    return on_free_port(begin) if port is None else begin(port)
