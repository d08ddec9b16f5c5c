"""Workloads beside the operator of a test, which use the Secret ``published``."""

from __future__ import annotations

from typing import Any

import kubernetes
from tests.support.pods import PodKeeper
from tests.support.vectorwright import Resources
from tests.support.workloads import Manifest, manifest

from vectorwright.kube.workloads import RESTART_ANNOTATION, WorkloadKind

MOUNTED: Manifest = {"volumes": [{"name": "key", "secret": {"secretName": "published"}}]}
NAMES = {"Deployment": "deployment", "StatefulSet": "stateful_set", "DaemonSet": "daemon_set"}


class Apps:
    """Workloads of the test's namespace, and what was done to them."""

    def __init__(self, resources: Resources, keeper: PodKeeper) -> None:
        self.keeper, self.namespace, self.cluster = keeper, resources.namespace, resources.cluster
        self._client = resources.core.api_client
        self.core: Any = resources.core
        self._apps: Any = kubernetes.client.AppsV1Api(self._client)

    def _call(self, verb: str, kind: str, *arguments: Any) -> Any:
        found = getattr(self._apps, f"{verb}_namespaced_{NAMES[kind]}")(*arguments)
        return self._client.sanitize_for_serialization(found)

    def body(self, kind: WorkloadKind, name: str, **spec: Any) -> Manifest:
        """A manifest whose pods mount the Secret and are kept."""
        return manifest(kind, name, keeper=self.keeper, pod=MOUNTED, **spec)

    def make(self, kind: WorkloadKind, name: str, **spec: Any) -> None:
        """A workload."""
        self._call("create", kind, self.namespace, self.body(kind, name, **spec))

    def read(self, kind: str, name: str) -> Manifest:
        """A workload now."""
        found: Manifest = self._call("read", kind, name, self.namespace)
        return found

    def patch(self, kind: str, name: str, body: Manifest) -> None:
        """Change one."""
        self._call("patch", kind, name, self.namespace, body)

    def delete(self, kind: str, name: str) -> None:
        """Delete one."""
        self._call("delete", kind, name, self.namespace)

    def carried(self, kind: str, name: str) -> str:
        """What its template carries of keys."""
        annotations = self.read(kind, name)["spec"]["template"]["metadata"].get("annotations") or {}
        return str(annotations.get(RESTART_ANNOTATION, ""))

    def generation(self, kind: str, name: str) -> int:
        """How often its spec was written: 1 at first."""
        return int(self.read(kind, name)["metadata"]["generation"])

    def pods(self, selector: str = "") -> list[Any]:
        """Pods that are there, terminating ones included."""
        found: list[Any] = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return found

    def pod(self, name: str, spec: Manifest, **rest: Any) -> None:
        """A pod that nothing manages. Its parts for containers are given to the first one."""
        container = {"name": "app", "image": "app:1", **rest}
        template = self.keeper.placed({"spec": {"containers": [container], **spec}})
        self.core.create_namespaced_pod(self.namespace, {"metadata": {"name": name}, **template})
