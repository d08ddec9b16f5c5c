"""Workloads of a test, and calls on them as people and GitOps tools make them."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from deploy.devcluster import Cluster
from tests.support.pods import PodKeeper

from vectorwright.kube.client import KubeClient
from vectorwright.kube.rollout import RolloutProgress, progress
from vectorwright.kube.workloads import WORKLOADS, WorkloadKind, WorkloadName

Manifest = dict[str, Any]
T = TypeVar("T")


def manifest(
    kind: WorkloadKind, name: str, *, keeper: PodKeeper | None = None, pod: Manifest | None = None, **spec: Any
) -> Manifest:
    """A workload of pods with the label ``app: NAME``; ``pod`` and ``spec`` add to the pod's spec and to its own."""
    containers = [{"name": "app", "image": "app:1"}, {"name": "side", "image": "side:1"}]
    template: Manifest = {
        "metadata": {"labels": {"app": name}, "annotations": {"example.org/mine": "yes"}},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 30, **(pod or {})},
    }
    if keeper is not None:
        template = keeper.placed(template)
    made: Manifest = {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"team": "search"}},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }
    if kind != "DaemonSet":
        made["spec"]["replicas"] = 2
    if kind == "StatefulSet":
        made["spec"]["serviceName"] = name
    made["spec"].update(spec)
    return made


def changed(body: Manifest, **spec: Any) -> Manifest:
    """A manifest with another image and other fields of its spec."""
    other = copy.deepcopy(body)
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
    other["spec"].update(spec)
    return other


def kubectl_apply(cluster: Cluster, namespace: str, body: Manifest, *flags: str) -> None:
    """``kubectl apply`` with flags, of one manifest."""
    cluster.kubectl_run("apply", "-n", namespace, *flags, "-f", "-", input=json.dumps(body))


async def create(client: KubeClient, namespace: str, body: Manifest) -> WorkloadName:
    """Create a workload; its name."""
    await client.create(WORKLOADS[body["kind"]], body, namespace)
    return WorkloadName(body["kind"], namespace, body["metadata"]["name"])


async def read(client: KubeClient, name: WorkloadName) -> Manifest:
    """A workload as it is now."""
    return await client.get(WORKLOADS[name.kind], name.name, name.namespace)


async def until(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool], timeout: float = 30.0) -> T:  # noqa: ASYNC109
    """Ask until the answer is good; the answer. Fails with the last one."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not good(answer := await ask()):
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"after {timeout:g} s still {answer}")
        await asyncio.sleep(0.05)
    return answer


async def until_progress(
    client: KubeClient, name: WorkloadName, revision: str, good: Callable[[RolloutProgress], bool]
) -> RolloutProgress:
    """Ask for the progress until it is good."""
    return await until(lambda: progress(client, name, revision), good)


async def until_available(client: KubeClient, name: WorkloadName) -> None:
    """Wait until a workload of two replicas, or one of a DaemonSet, is as it should be."""

    def is_available(body: Manifest) -> bool:
        status = body.get("status") or {}
        seen = status.get("observedGeneration") == body["metadata"]["generation"]
        if name.kind == "DaemonSet":
            return bool(seen and status.get("numberAvailable"))
        return bool(seen and (status.get("availableReplicas") or 0) == body["spec"]["replicas"])

    await until(lambda: read(client, name), is_available)
