"""The operator running beside the test cluster, and our resources through the official client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.support.cluster import apply_crds, new_namespace, open_cluster

GROUP, VERSION = "vectorwright.dev", "v1alpha1"
PLURALS = {
    "VectorStore": "vectorstores",
    "EmbeddingModel": "embeddingmodels",
    "VectorIndex": "vectorindexes",
    "IngestionJob": "ingestionjobs",
    "APIKeyRotation": "apikeyrotations",
}
Body = dict[str, Any]


def condition(body: Mapping[str, Any], kind: str) -> Body:
    """A condition of a resource, or an empty dict."""
    found = (item for item in (body.get("status") or {}).get("conditions") or () if item["type"] == kind)
    return next(found, {})


class Resources:
    """Our resources, Secrets and ConfigMaps in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str, operator: TrialOperator) -> None:
        self.namespace = namespace
        self.cluster = cluster
        self.operator = operator
        self._client = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
        self._custom: Any = kubernetes.client.CustomObjectsApi(self._client)
        self.core = kubernetes.client.CoreV1Api(self._client)
        self.batch = kubernetes.client.BatchV1Api(self._client)

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def create(self, kind: str, name: str, spec: Body, annotations: Mapping[str, str] | None = None) -> Body:
        """Create one of our resources."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": kind,
            "metadata": {"name": name, "annotations": dict(annotations or {})},
            "spec": spec,
        }
        made: Body = self._custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], body)
        return made

    def get(self, kind: str, name: str) -> Body:
        """One of our resources, as it is now."""
        body: Body = self._custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)
        return body

    def exists(self, kind: str, name: str) -> bool:
        """Whether a resource is there."""
        try:
            self.get(kind, name)
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                return False
            raise
        return True

    def patch(self, kind: str, name: str, body: Body) -> Body:
        """Merge-patch one of our resources."""
        changed: Body = self._custom.patch_namespaced_custom_object(
            GROUP, VERSION, self.namespace, PLURALS[kind], name, body
        )
        return changed

    def annotate(self, kind: str, name: str, **annotations: str) -> None:
        """Set annotations of our group: ``run_requested_at="1"`` sets ``vectorwright.dev/run-requested-at``."""
        named = {f"{GROUP}/{name.replace('_', '-')}": value for name, value in annotations.items()}
        self.patch(kind, name, {"metadata": {"annotations": named}})

    def delete(self, kind: str, name: str) -> None:
        """Ask for a resource's deletion."""
        self._custom.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURALS[kind], name)

    def secret(self, name: str, **values: str) -> None:
        """Create or replace a Secret."""
        body = kubernetes.client.V1Secret(
            metadata=kubernetes.client.V1ObjectMeta(name=name), string_data=values, type="Opaque"
        )
        try:
            self.core.create_namespaced_secret(self.namespace, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            self.core.replace_namespaced_secret(name, self.namespace, body)

    def config_map(self, name: str, **values: str) -> None:
        """Create a ConfigMap."""
        body = kubernetes.client.V1ConfigMap(metadata=kubernetes.client.V1ObjectMeta(name=name), data=values)
        self.core.create_namespaced_config_map(self.namespace, body)

    def events(self, name: str) -> list[tuple[str, str]]:
        """(reason, message) of the events about an object."""
        found = self.core.list_namespaced_event(self.namespace, field_selector=f"involvedObject.name={name}")
        return [(str(item.reason), str(item.message)) for item in found.items]

    def wait(self, kind: str, name: str, done: Callable[[Body], object], timeout: float = 60.0) -> Body:
        """The resource once ``done`` holds. Fails with its status and the operator's log."""
        deadline, body = time.monotonic() + timeout, {}
        while time.monotonic() < deadline:
            body = self.get(kind, name)
            if done(body):
                return body
            time.sleep(0.1)
        pytest.fail(f"{kind} {name} after {timeout:g} s: {body.get('status')}\n{self.operator.tail()}")

    def wait_event(self, name: str, reason: str, timeout: float = 20.0) -> str:
        """The message of an event about an object, once it is told: events follow status, they do not precede it."""
        deadline = time.monotonic() + timeout
        while reason not in (told := dict(self.events(name))):
            if time.monotonic() > deadline:
                pytest.fail(f"no event {reason} about {name} after {timeout:g} s: {told}\n{self.operator.tail()}")
            time.sleep(0.1)
        return told[reason]

    def wait_condition(self, kind: str, name: str, type_: str, status: str, reason: str, timeout: float = 60) -> str:
        """The message of a condition once it has this status and reason."""

        def holds(body: Body) -> bool:
            found = condition(body, type_)
            return (found.get("status"), found.get("reason")) == (status, reason)

        return str(condition(self.wait(kind, name, holds, timeout), type_)["message"])

    def wait_ready(self, kind: str, name: str, timeout: float = 60.0) -> Body:
        """The resource once it is Ready."""
        return self.wait(kind, name, lambda body: condition(body, "Ready").get("status") == "True", timeout)

    def wait_gone(self, kind: str, name: str, timeout: float = 60.0) -> None:
        """Return once a resource is gone."""
        deadline = time.monotonic() + timeout
        while self.exists(kind, name):
            if time.monotonic() > deadline:
                pytest.fail(f"{kind} {name} is still there: {self.get(kind, name)}\n{self.operator.tail()}")
            time.sleep(0.1)

    def wait_phase(self, name: str, *phases: str, timeout: float = 120.0) -> Body:
        """The IngestionJob once it has no run going on and one of these phases."""
        return self.wait(
            "IngestionJob",
            name,
            lambda body: (body.get("status") or {}).get("phase") in phases and "run" not in (body.get("status") or {}),
            timeout,
        )


@pytest.fixture(scope="session")
def served_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of its own for the shared operator: it serves all namespaces, other tests' objects are not its own."""
    with open_cluster(request.config) as cluster:
        apply_crds(cluster)
        yield cluster


@pytest.fixture(scope="session")
def trial_operator(served_cluster: Cluster) -> Iterator[TrialOperator]:
    """One operator for all tests of the session that share it: cluster-wide, in-process runs, local stores."""
    with TrialOperator(served_cluster.kubeconfig, "--leader-election-name", "tests") as operator:
        yield operator


@pytest.fixture
def resources(served_cluster: Cluster, trial_operator: TrialOperator) -> Iterator[Resources]:
    """Our resources in this test's own namespace, with the shared operator at work."""
    with new_namespace(served_cluster) as namespace:
        found = Resources(served_cluster, namespace, trial_operator)
        yield found
        found.close()


@pytest.fixture
def own_operator(devcluster: Cluster, crds: list[str], namespace: str, tmp_path: Path) -> Iterator[TrialOperator]:
    """An operator for this test alone, not started yet: it serves the test's namespace, and can be killed."""
    operator = TrialOperator(
        devcluster.kubeconfig,
        "--namespace",
        namespace,
        "--no-leader-election",  # the next one need not wait until the lease of a killed one runs out
        directory=tmp_path / "operator",
    )
    operator.directory.mkdir()
    yield operator
    operator.remove()
