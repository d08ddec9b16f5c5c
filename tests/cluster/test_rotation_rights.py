"""Key rotation under exactly the rights that ``deploy/kustomize`` gives: the base, and the component in one namespace.

- There a whole rotation is done, with a restart, and a deletion.
- Without the component, or a part of it, the right that is wanting and the component are named, and nothing is made.
- Rights that are taken away later hold a deletion back, which says so, and can be released.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.support import rbac
from tests.support.cluster import new_namespace
from tests.support.pods import PodKeeper
from tests.support.rotations import Rotation, make_anywhere
from tests.support.vectorwright import Resources
from tests.support.workloads import Manifest, manifest

pytestmark = pytest.mark.cluster

COMPONENT = rbac.KUSTOMIZE / "components" / "key-rotation"
NAMED = "deploy/kustomize/components/key-rotation"
ROLE = "vectorwright-key-rotation"


@pytest.fixture
def operator(devcluster: Cluster, crds: list[str], no_installation: None, tmp_path: Path) -> Iterator[TrialOperator]:
    """Logs in as the ServiceAccount of the kustomization."""
    assert crds
    del no_installation
    (tmp_path / "operator").mkdir()
    made = TrialOperator(rbac.service_account_kubeconfig(devcluster, tmp_path), directory=tmp_path / "operator")
    try:
        yield made.start()
    finally:
        made.remove()


def deployment(resources: Resources, **body: Any) -> Any:
    """A Deployment of the namespace: made where it is given."""
    apps: Any = kubernetes.client.AppsV1Api(resources.core.api_client)
    if body:
        return apps.create_namespaced_deployment(resources.namespace, body)
    return apps.read_namespaced_deployment("api", resources.namespace)


TARGETS: list[Manifest] = [{"kind": "Deployment", "name": "api"}]


def rights(cluster: Cluster, namespace: str) -> None:
    """Apply the component."""
    cluster.kubectl_run("apply", "-n", namespace, "-k", str(COMPONENT))
    for verb, resource in (("get", "secrets"), ("patch", "deployments.apps"), ("list", "pods")):
        rbac.wait_until_may(cluster, verb, resource, namespace)


def narrow(cluster: Cluster, namespace: str, *without: str) -> None:
    """Apply the component without its rules for some resources."""
    rights(cluster, namespace)
    role = next(item for item in rbac.render(cluster, COMPONENT) if item["kind"] == "Role")
    rules = [rule for rule in role["rules"] if not set(rule["resources"]) & set(without)]
    assert len(rules) == len(role["rules"]) - len(without)
    rbac.apply(cluster, [{**role, "rules": rules, "metadata": {**role["metadata"], "namespace": namespace}}])
    for resource in without:
        rbac.wait_until_may(cluster, "patch", f"{resource}.apps", namespace, may=False)


def test_a_whole_rotation_is_done_where_the_component_was_applied_and_nowhere_else(
    devcluster: Cluster, namespace: str, operator: TrialOperator, pod_keeper: PodKeeper
) -> None:
    resources = Resources(devcluster, namespace, operator)
    pod = {"volumes": [{"name": "key", "secret": {"secretName": "published"}}]}
    deployment(resources, **manifest("Deployment", "api", keeper=pod_keeper, pod=pod))
    make_anywhere(resources)
    rotation = Rotation(resources)
    rotation.make(rolloutRestartTargets=TARGETS, deletionPolicy="Revoke")
    told = rotation.stalled("SecretForbidden")
    assert NAMED in told
    assert namespace in told
    assert not rotation.there()
    rights(devcluster, namespace)
    rotation.nudge()
    rotation.idle(1)
    with new_namespace(devcluster) as other:
        # The rights are those of one namespace.
        elsewhere = Resources(devcluster, other, operator)
        make_anywhere(elsewhere)
        apart = Rotation(elsewhere)
        apart.make()
        told = apart.stalled("SecretForbidden")
        assert f"{NAMED} in namespace {other}" in told
        apart.delete()  # nothing was begun
        narrow(devcluster, other, "deployments")
        deployment(elsewhere, **manifest("Deployment", "api", replicas=0))
        apart.make(rolloutRestartTargets=TARGETS)
        told = apart.stalled("RestartTargetForbidden")
        assert NAMED in told
        assert not apart.there()
        rights(devcluster, other)
        apart.nudge()
        apart.idle(1)
        # Rights that are taken away: neither what is remembered nor the finalizer goes without a word.
        devcluster.kubectl_run("delete", "rolebinding", ROLE, "-n", other)
        rbac.wait_until_may(devcluster, "get", "secrets", other, may=False)
        elsewhere.delete("APIKeyRotation", apart.name)
        told = apart.stalled("SecretForbidden")
        assert "vectorwright.dev/release=true" in told
        apart.annotate(release="true")
        elsewhere.wait_gone("APIKeyRotation", apart.name)
        elsewhere.close()
    rotation.request()
    rotation.idle(2)
    found = deployment(resources)
    assert found.spec.template.metadata.annotations["vectorwright.dev/key-revision"].startswith("published=2-")
    assert found.metadata.generation == 3
    rotation.delete()
    assert not rotation.there()
    assert not rotation.remembered
    assert [line for line in operator.text().splitlines() if "orbidden" in line and f"/{namespace}/" in line][1:] == []
    resources.close()
