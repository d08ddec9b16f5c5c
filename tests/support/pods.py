"""The parts of a scheduler and a kubelet that a rolling update needs: pods are bound, become ready, and end in time.

The test cluster has no node. Its controllers make real pods of Deployments, StatefulSets and DaemonSets; this gives
them a node, says that their containers run, and lets deleted ones go when their time is over. Only pods whose template
names ``SCHEDULER`` are touched, so that a cluster with nodes of its own is left alone.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import kubernetes
import pytest
from deploy.devcluster import Cluster

SCHEDULER = "vectorwright-test"
_TICK_S = 0.05
_HEARTBEAT_S = 5.0
_MOST_FAILURES = 5
"""In a row: a kubelet, too, lives through a request that fails."""
Manifest = dict[str, Any]


class PodKeeper:
    """Keeps the pods of one namespace on one node of its own. Knobs may be turned at any time.

    ``ready_after``: seconds until a pod is ready. ``ends_after``: seconds that a deleted pod stays. ``never_ready``:
    which pods crash instead. ``hold``: while set, deleted pods stay.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.namespace = namespace
        self.node = f"node-{secrets.token_hex(4)}"
        self.ready_after = 0.1
        self.ends_after = 0.2
        self.never_ready: Callable[[Any], bool] = lambda _: False
        self.hold = threading.Event()
        self._client = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
        self._core: Any = kubernetes.client.CoreV1Api(self._client)
        self._apps: Any = kubernetes.client.AppsV1Api(self._client)
        self._seen: dict[tuple[str, str], float] = {}
        self._told: dict[str, bool] = {}
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._beat = 0.0
        self._thread = threading.Thread(target=self._run, name=f"pods of {namespace}")

    def start(self) -> None:
        """Make the node, and keep pods from now on."""
        labels = {"kubernetes.io/hostname": self.node}
        self._core.create_node({"metadata": {"name": self.node, "labels": labels}})
        self._thread.start()

    def stop(self) -> None:
        """Remove workloads, pods and node; raises what went wrong meanwhile."""
        self._stop.set()
        self._thread.join()
        for kind in ("deployment", "stateful_set", "daemon_set"):
            getattr(self._apps, f"delete_collection_namespaced_{kind}")(self.namespace)
        self._core.delete_collection_namespaced_pod(self.namespace, grace_period_seconds=0)
        self._core.delete_node(self.node)
        self._client.close()
        if self._failure is not None:
            raise self._failure

    def placed(self, template: Manifest) -> Manifest:
        """A pod template for this node."""
        spec = {
            **template["spec"],
            "schedulerName": SCHEDULER,
            "nodeSelector": {"kubernetes.io/hostname": self.node},
            "automountServiceAccountToken": False,
        }
        return {**template, "spec": spec}

    def _run(self) -> None:
        failures = 0
        while not self._stop.wait(_TICK_S):
            try:
                self._tick()
                failures = 0
            except Exception as error:  # noqa: BLE001 - raised again where the test can see it
                failures += 1
                if failures >= _MOST_FAILURES:
                    self._failure = error
                    return

    def _tick(self) -> None:
        if time.monotonic() > self._beat:
            self._heartbeat()
            self._beat = time.monotonic() + _HEARTBEAT_S
        for pod in self._core.list_namespaced_pod(self.namespace).items:
            if pod.spec.scheduler_name == SCHEDULER:
                with _gone_meanwhile():
                    self._keep(pod)

    def _heartbeat(self) -> None:
        """Without it the node lifecycle controller says that the pods are not ready."""
        now = datetime.now(UTC).isoformat()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": now}
        self._core.patch_node_status(self.node, {"status": {"conditions": [ready]}})

    def _keep(self, pod: Any) -> None:
        if pod.metadata.deletion_timestamp is not None:
            if self._age("ending", pod) >= self.ends_after and not self.hold.is_set():
                only = {"uid": pod.metadata.uid}
                self._core.delete_namespaced_pod(
                    pod.metadata.name, self.namespace, body={"gracePeriodSeconds": 0, "preconditions": only}
                )
        elif pod.spec.node_name is None:
            binding = {"metadata": {"name": pod.metadata.name}, "target": {"kind": "Node", "name": self.node}}
            # The client cannot read the answer, a Status, as the Binding that it expects.
            self._core.create_namespaced_pod_binding(
                pod.metadata.name, self.namespace, binding, _preload_content=False
            ).release_conn()
        elif self._told.get(pod.metadata.uid) is not True and self._age("starting", pod) >= self.ready_after:
            self._tell(pod, ready=not self.never_ready(pod))

    def _age(self, state: str, pod: Any) -> float:
        now = time.monotonic()
        return now - self._seen.setdefault((state, pod.metadata.uid), now)

    def _tell(self, pod: Any, *, ready: bool) -> None:
        if self._told.get(pod.metadata.uid) is ready:
            return
        now = datetime.now(UTC).isoformat()
        state = {"running": {"startedAt": now}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
        status = {
            "phase": "Running",
            "startTime": now,
            "conditions": [
                {"type": kind, "status": str(ready), "lastTransitionTime": now}
                for kind in ("Initialized", "ContainersReady", "Ready")
            ],
            "containerStatuses": [
                {
                    "name": container.name,
                    "image": container.image,
                    "imageID": "",
                    "ready": ready,
                    "restartCount": 0,
                    "state": state,
                }
                for container in pod.spec.containers
            ],
        }
        # Of this very pod: a StatefulSet gives the next one the same name.
        body = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        self._core.patch_namespaced_pod_status(pod.metadata.name, self.namespace, body)
        self._told[pod.metadata.uid] = ready


@contextlib.contextmanager
def _gone_meanwhile() -> Iterator[None]:
    """A pod that was deleted, or made anew under its name, between the list and the call."""
    try:
        yield
    except kubernetes.client.ApiException as error:
        if error.status not in (404, 409):
            raise


@pytest.fixture
def pod_keeper(devcluster: Cluster, namespace: str) -> Iterator[PodKeeper]:
    """Pods of the test's namespace run, on a node of their own."""
    keeper = PodKeeper(devcluster, namespace)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()
