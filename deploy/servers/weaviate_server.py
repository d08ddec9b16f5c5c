"""Real Weaviate servers on loopback, built once from Go modules."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
from deploy.devcluster.gobuild import ensure_built
from deploy.devcluster.processes import ManagedProcess, free_port
from deploy.servers.go_programs import weaviate_program
from deploy.servers.loopback import LoopbackServer, started

API_KEY_USER = "vectorwright"
"""The user whose key ``api_key`` is: the root of a server that makes users."""


class WeaviateServer(LoopbackServer):
    """A Weaviate server of one node that keeps its data in ``directory``.

    It can be stopped and started again on the same ports. With ``api_key`` it refuses everybody who does not show it.
    With ``makes_users``, too, it makes users with keys of their own, and roles decide what they may do.
    """

    title = "Weaviate"
    start_seconds = 90.0
    poll_seconds = 0.2

    def __init__(
        self,
        program: Path,
        directory: Path,
        port: int,
        *,
        api_key: str | None = None,
        makes_users: bool = False,
        remove: Path | None = None,
    ) -> None:
        super().__init__(directory, port, remove)
        self.grpc_port, *self._inner_ports = (free_port() for _ in range(5))
        self._program = program
        self._api_key = api_key
        self._makes_users = makes_users

    def _launch(self) -> ManagedProcess:
        return ManagedProcess.start(
            [self._program, "--host", self.host, "--port", str(self.port), "--scheme", "http"],
            log=self.directory.with_name(self.directory.name + ".log"),
            env=self._environment(),
            grace=10,
            remove=self._remove,
        )

    def _environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "PERSISTENCE_DATA_PATH": str(self.directory),
            "GRPC_PORT": str(self.grpc_port),
            # One node, whose parts speak to each other over loopback alone.
            "CLUSTER_HOSTNAME": "node1",
            "CLUSTER_ADVERTISE_ADDR": self.host,
            "CLUSTER_BIND_ADDR": self.host,
            "CLUSTER_GOSSIP_BIND_PORT": str(self._inner_ports[0]),
            "CLUSTER_DATA_BIND_PORT": str(self._inner_ports[1]),
            "RAFT_PORT": str(self._inner_ports[2]),
            "RAFT_INTERNAL_RPC_PORT": str(self._inner_ports[3]),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "RAFT_ENABLE_ONE_NODE_RECOVERY": "true",
            "DEFAULT_VECTORIZER_MODULE": "none",
            "DISABLE_TELEMETRY": "true",
            "LOG_LEVEL": "warning",
            "GO_PROFILING_DISABLE": "true",
            "PROMETHEUS_MONITORING_ENABLED": "false",
        }
        if self._api_key is None:
            environment["AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED"] = "true"
        else:
            environment |= {
                "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
                "AUTHENTICATION_APIKEY_ENABLED": "true",
                "AUTHENTICATION_APIKEY_ALLOWED_KEYS": self._api_key,
                "AUTHENTICATION_APIKEY_USERS": API_KEY_USER,
            }
        if self._makes_users:
            environment |= {
                "AUTHENTICATION_DB_USERS_ENABLED": "true",
                "AUTHORIZATION_RBAC_ENABLED": "true",
                "AUTHORIZATION_RBAC_ROOT_USERS": API_KEY_USER,
            }
        return environment

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/v1/.well-known/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def start_weaviate_server(
    directory: Path,
    port: int | None = None,
    *,
    api_key: str | None = None,
    makes_users: bool = False,
    remove: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> WeaviateServer:
    """A running server on ``port``, or on a free one; its program is built first where that was never done.

    ``remove`` is a directory to delete should this process die without stopping the server. Raises GoBuildError where
    there is no Go.
    """
    program = ensure_built(weaviate_program(), progress)

    def make(port: int) -> WeaviateServer:
        return WeaviateServer(program, directory, port, api_key=api_key, makes_users=makes_users, remove=remove)

    return started(make, directory, port)
