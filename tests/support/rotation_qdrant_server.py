"""Both keys of a Qdrant server of two replicas that a StatefulSet of a real API server runs."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, ClassVar

import kubernetes
import pytest
from deploy.devcluster import Cluster
from tests.rotation.cases import METHODS, IssuerCase, owner
from tests.rotation.issuers.qdrant_server_keys import QdrantServerCase
from tests.rotation.issuers.qdrant_tokens import lets_in
from tests.support.pods import PodKeeper
from tests.support.qdrant_binary import ServerReplicas, qdrant_replicas
from tests.support.qdrant_workload import (
    FIRST,
    READ_ONLY,
    environment_of,
    identity,
    secret_manifest,
    workload_manifest,
)

from vectorwright.rotation.base import Assignment, KeyMaterial
from vectorwright.rotation.qdrant_server_secret import ANNOTATION, HANDED_OVER, SEALED
from vectorwright.stores.registry import Connection

NAME = "qdrant"


class QdrantServerInCluster(QdrantServerCase):
    """As the case of the issuers' own suite, and a replica is started again when its pod was replaced."""

    calls: ClassVar[frozenset[str]] = METHODS

    def __init__(self, request: pytest.FixtureRequest) -> None:
        IssuerCase.__init__(self, request)
        self._folder: Path = request.getfixturevalue("tmp_path")
        self._stack = contextlib.ExitStack()
        self._uids: dict[str, str] = {}
        self.replicas: ServerReplicas

    def settle(self, cluster: Cluster, namespace: str) -> None:
        """Make Secret, StatefulSet and servers in a namespace."""
        api = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
        self._stack.callback(api.close)
        core: Any
        apps: Any
        core, apps = kubernetes.client.CoreV1Api(api), kubernetes.client.AppsV1Api(api)
        self._core, self._namespace = core, namespace
        core.create_namespaced_secret(namespace, _without_namespace(secret_manifest(NAME)))
        self.replicas = self._stack.enter_context(
            qdrant_replicas(self._folder / "replicas", lambda: environment_of(self._secret()))
        )
        self.replicas.drain_seconds = 0.5  # a connection that was taken just before the end is served
        keeper = PodKeeper(cluster, namespace)
        keeper.never_ready = self._start
        workload = _without_namespace(workload_manifest(NAME, serviceName=NAME))
        workload["spec"]["template"] = keeper.placed(workload["spec"]["template"])
        apps.create_namespaced_stateful_set(namespace, workload)
        keeper.start()
        self._stack.callback(keeper.stop)
        # A pod that was not seen before it was replaced would be taken for the first one.
        deadline = time.monotonic() + 60
        while len(self._uids) < workload["spec"]["replicas"]:
            assert time.monotonic() < deadline, "the pods of the server did not start"
            time.sleep(0.05)

    def _secret(self) -> dict[str, Any]:
        found = self._core.read_namespaced_secret(f"{NAME}-keys", self._namespace)
        return {"data": found.data, "metadata": {"annotations": found.metadata.annotations or {}}}

    def _start(self, pod: Any) -> bool:
        """A pod's containers start: so does the server, unless it is the first one. It never fails."""
        name, uid = pod.metadata.name, pod.metadata.uid
        if self._uids.setdefault(name, uid) != uid:
            self._uids[name] = uid
            at = int(name.rpartition("-")[2])
            self.replicas.leave(at)
            self.replicas.restart(at)
        return False

    def assignment(self, name: str = "search", **changes: Any) -> Assignment:
        replicas = self.replicas
        settings = {"url": f"http://{replicas.host}:{replicas.port}", "grpcPort": replicas.grpc_port}
        return Assignment(Connection("qdrant", settings, timeout=10), identity(NAME, **changes), owner(name))

    async def use(self, key: KeyMaterial) -> bool:
        return await lets_in(self.replicas, key.token)

    async def inventory(self) -> set[str]:
        told = json.loads(self._secret()["metadata"]["annotations"].get(ANNOTATION, "{}"))
        return {str(told.get(slot)) for slot in ("primary", "alternative")} - {HANDED_OVER, SEALED, "None", ""}

    async def published(self, *keys: KeyMaterial) -> None:
        """The servers know by themselves."""

    def secrets(self) -> list[str]:
        return [FIRST, READ_ONLY]


def _without_namespace(body: dict[str, Any]) -> dict[str, Any]:
    del body["metadata"]["namespace"]
    return body
