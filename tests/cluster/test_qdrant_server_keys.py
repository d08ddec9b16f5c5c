"""Both keys of a Qdrant server on a real API server, whose controller replaces the pods that two servers stand for.

What is checked: two rotations from the first key on, with the rights of the component alone, while a client with the
published key is refused by no replica; the restart owns one annotation, apart from that of consumers; fields of others
in the Secret stay; a pod that does not come up keeps the key from being issued, and is named; a rollout that somebody
undid is done again.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from deploy.devcluster import Cluster
from tests.rotation.cases import key_request
from tests.rotation.issuers.qdrant_tokens import lets_in
from tests.rotation.steps import make, revoke
from tests.support.pods import PodKeeper
from tests.support.qdrant_binary import ServerReplicas, qdrant_replicas
from tests.support.qdrant_workload import FIRST, environment_of, identity, keys_in, pod_spec, secret_manifest
from tests.support.workloads import create, manifest, read, until, until_available, until_progress

from vectorwright.errors import Retryable
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import StaticToken, load_connection
from vectorwright.kube.resources import SECRETS, STATEFUL_SETS
from vectorwright.kube.workloads import FIELD_MANAGER, RESTART_ANNOTATION, WorkloadName, restart
from vectorwright.rotation import qdrant_server_workload
from vectorwright.rotation.base import Assignment, IssuedKey, KeyMaterial
from vectorwright.rotation.qdrant_server_keys import QdrantServerKeys
from vectorwright.rotation.qdrant_server_secret import HANDED_OVER
from vectorwright.rotation.qdrant_server_workload import ANNOTATION
from vectorwright.stores.base import OwnershipMark
from vectorwright.stores.registry import Connection

pytestmark = [pytest.mark.cluster, pytest.mark.server]

COMPONENT = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "components" / "key-rotation"
ROLE = "vectorwright-key-rotation"
NAME = "qdrant"


class PodsAsServers:
    """Restarts a server when a new pod of its number would become ready, with what the Secret holds then."""

    def __init__(self, keeper: PodKeeper, replicas: Callable[[], ServerReplicas]) -> None:
        self._replicas = replicas
        self._seen: dict[str, int] = {}
        self._first: set[int] = set()
        self.broken = threading.Event()
        keeper.never_ready = self._is_broken

    def _is_broken(self, pod: Any) -> bool:
        if self.broken.is_set():
            return True
        at = int(pod.metadata.name.rpartition("-")[2])
        if pod.metadata.uid not in self._seen:
            self._seen[pod.metadata.uid] = at
            if at in self._first:
                replicas = self._replicas()
                replicas.leave(at)
                replicas.restart(at)
            self._first.add(at)  # the servers were started with the first pods
        return False


@pytest.fixture
def secret(devcluster: Cluster, namespace: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """The server's Secret, which it is asked for as a kubelet does."""
    core: Any = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(devcluster.kubeconfig)))
    body = secret_manifest(NAME, other="of-somebody-else")
    core.create_namespaced_secret(namespace, {"metadata": {"name": f"{NAME}-keys"}, "data": body["data"]})

    def now() -> dict[str, Any]:
        return {"data": core.read_namespaced_secret(f"{NAME}-keys", namespace).data}

    yield now
    core.api_client.close()


@pytest.fixture
def replicas(tmp_path: Path, secret: Callable[[], dict[str, Any]]) -> Iterator[ServerReplicas]:
    with qdrant_replicas(tmp_path, lambda: environment_of(secret())) as running:
        running.drain_seconds = 0.5
        yield running


@pytest.fixture
def pods(pod_keeper: PodKeeper, replicas: ServerReplicas) -> PodsAsServers:
    return PodsAsServers(pod_keeper, lambda: replicas)


@pytest.fixture
async def client(devcluster: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient(load_connection(devcluster.kubeconfig)) as opened:
        yield opened


@pytest.fixture
async def operator(devcluster: Cluster, namespace: str) -> AsyncIterator[KubeClient]:
    """A client with the rights of the component in this namespace, and no others."""
    run, account = devcluster.kubectl_run, f"{namespace}:rotator"
    run("apply", "-n", namespace, "-k", str(COMPONENT))
    run("create", "serviceaccount", "rotator", "-n", namespace)
    run("create", "rolebinding", "rotator", "-n", namespace, f"--role={ROLE}", f"--serviceaccount={account}")
    token = StaticToken(run("create", "token", "rotator", "-n", namespace).strip())
    connection = dataclasses.replace(
        load_connection(devcluster.kubeconfig), token=token, client_certificate=None, client_key=None
    )
    async with KubeClient(connection) as opened:
        yield opened


@pytest.fixture
async def server(client: KubeClient, namespace: str, pod_keeper: PodKeeper, pods: PodsAsServers) -> WorkloadName:
    """A StatefulSet of two pods that take their keys from the Secret."""
    assert pods is not None
    name = await create(client, namespace, manifest("StatefulSet", NAME, keeper=pod_keeper, pod=pod_spec(NAME)))
    await until_available(client, name)
    return name


@pytest.fixture
def opened(
    operator: KubeClient, namespace: str, replicas: ServerReplicas, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], QdrantServerKeys]:
    monkeypatch.setattr(qdrant_server_workload, "LOOK_AGAIN", 0.1)
    place = Connection("qdrant", {"url": replicas.url, "grpcPort": replicas.grpc_port}, timeout=10)
    owner = OwnershipMark("tests", namespace, "search")
    return lambda: QdrantServerKeys(Assignment(place, identity(NAME), owner, operator))


async def taken(replicas: ServerReplicas, *keys: KeyMaterial | str) -> list[bool]:
    tokens = [key if isinstance(key, str) else key.token for key in keys]
    found = [{await lets_in(one, token) for one in replicas.servers} for token in tokens]
    assert all(len(one) == 1 for one in found), "replicas differ"
    return [one == {True} for one in found]


async def test_two_rotations_without_a_refused_request(
    client: KubeClient,
    server: WorkloadName,
    replicas: ServerReplicas,
    secret: Callable[[], dict[str, Any]],
    opened: Callable[[], QdrantServerKeys],
) -> None:
    issuer = opened()
    await issuer.check()
    # The server may itself use a key that rotates: both restarts are known apart.
    await restart(client, await read(client, server), "of-a-consumer")
    await until_progress(client, server, "of-a-consumer", lambda state: state.done)
    published, asked, refused, stopped = [FIRST], [0], [0], asyncio.Event()

    async def use() -> None:
        while not stopped.is_set():
            refused[0] += not await lets_in(replicas, published[0])
            asked[0] += 1

    async def so_far() -> int:
        return asked[0]

    using = asyncio.create_task(use())
    old, ended = IssuedKey(HANDED_OVER, KeyMaterial(token=FIRST)), list[KeyMaterial]()
    for revision in (1, 2):
        request = key_request(issuer, revision, None if revision == 1 else old.material)
        made = await make(opened(), request)
        assert await taken(replicas, old.material, made.material) == [True, True]
        published[0] = str(made.material.token)
        await until(so_far, partial(le, asked[0] + 3))  # whoever had read the key before is through
        await revoke(opened(), old, revision - 1)
        ended.append(old.material)
        assert await taken(replicas, *ended, made.material) == [*[False for _ in ended], True]
        old = made
    stopped.set()
    await using
    assert (refused[0], asked[0] > 20) == (0, True)
    assert replicas.starts == [6, 6], "once for the consumer's key, twice a rotation"
    held = keys_in(secret())
    assert held == {"api-key": old.material.token, "alt-api-key": old.material.token, "other": "of-somebody-else"}
    assert [key.id for key in await opened().live()] == [old.id]
    found = await client.get(STATEFUL_SETS, server.name, server.namespace)
    annotations = found["spec"]["template"]["metadata"]["annotations"]
    assert annotations[RESTART_ANNOTATION] == "of-a-consumer"
    assert ANNOTATION in annotations
    managers = {entry["manager"] for entry in found["metadata"]["managedFields"]}
    assert {FIELD_MANAGER, qdrant_server_workload.FIELD_MANAGER} <= managers


async def test_a_pod_that_does_not_come_up_is_waited_for(
    server: WorkloadName,
    replicas: ServerReplicas,
    pods: PodsAsServers,
    opened: Callable[[], QdrantServerKeys],
) -> None:
    issuer = opened()
    request = key_request(issuer, 1)
    pods.broken.set()

    async def told() -> str:
        with pytest.raises(Retryable) as waiting:
            await issuer.create(request)
        assert waiting.value.reason == "InProgress"
        return waiting.value.message

    message = await until(told, lambda text: "CrashLoopBackOff" in text)
    assert f"pod {server.name}-1" in message
    assert await taken(replicas, FIRST) == [True]
    pods.broken.clear()
    made = await make(opened(), request)
    assert await taken(replicas, FIRST, made.material) == [True, True]


async def test_a_restart_that_somebody_undid_is_done_again(
    client: KubeClient, server: WorkloadName, replicas: ServerReplicas, opened: Callable[[], QdrantServerKeys]
) -> None:
    issuer = opened()
    request = key_request(issuer, 1)
    made = await make(issuer, request)
    undone = {"spec": {"template": {"metadata": {"annotations": {ANNOTATION: "by-hand"}}}}}
    await client.patch(STATEFUL_SETS, server.name, server.namespace, undone)
    assert (await make(opened(), request)) == made
    found = await client.get(STATEFUL_SETS, server.name, server.namespace)
    assert found["spec"]["template"]["metadata"]["annotations"][ANNOTATION] != "by-hand"
    assert await taken(replicas, FIRST, made.material) == [True, True]


async def test_the_secret_is_written_by_its_version(
    client: KubeClient, server: WorkloadName, namespace: str, opened: Callable[[], QdrantServerKeys]
) -> None:
    assert server.namespace == namespace
    issuer = opened()
    keys = await issuer._secret.read()
    added = {"data": {"another": base64.b64encode(b"new").decode()}}
    await client.patch(SECRETS, f"{NAME}-keys", namespace, added)
    with pytest.raises(Retryable) as failed:
        await issuer._secret.write(dataclasses.replace(keys, alternative="late", change="late"))
    assert failed.value.reason == "ChangedMeanwhile"
    held = keys_in(await client.get(SECRETS, f"{NAME}-keys", namespace))
    assert held == {"api-key": FIRST, "other": "of-somebody-else", "another": "new"}
