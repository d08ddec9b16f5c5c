"""milvus-lite as a server on loopback: Milvus' protocol over gRPC."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
from deploy.devcluster.processes import ManagedProcess
from deploy.servers.loopback import LoopbackServer, started


class MilvusServer(LoopbackServer):
    """A milvus-lite server that keeps its data in ``directory``; it can be stopped and started again on its port."""

    title = "Milvus"

    def _launch(self) -> ManagedProcess:
        program = Path(sys.executable).with_name("milvus-lite")
        return ManagedProcess.start(
            [program, "server", "--data-dir", self.directory, "--host", self.host, "--port", str(self.port)],
            log=self.directory.with_name(self.directory.name + ".log"),
            grace=3,
            remove=self._remove,
        )

    def _answers(self) -> bool:
        with grpc.insecure_channel(f"{self.host}:{self.port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
            try:
                # An empty request is one without fields.
                channel.unary_unary("/milvus.proto.milvus.MilvusService/GetVersion")(b"", timeout=2)
            except grpc.RpcError:
                return False
        return True


def start_milvus_server(directory: Path, port: int | None = None, *, remove: Path | None = None) -> MilvusServer:
    """A running server on ``port``, or on a free one.

    ``remove`` is a directory to delete should this process die without stopping the server.
    """
    return started(lambda port: MilvusServer(directory, port, remove), directory, port)
