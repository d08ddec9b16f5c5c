"""The rights that ``deploy/kustomize`` gives the operator, as a kubeconfig to run it with."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.devcluster import Cluster, KubectlError
from deploy.devcluster.processes import wait_for

KUSTOMIZE = Path(__file__).resolve().parents[2] / "deploy" / "kustomize"
BASE = KUSTOMIZE / "base"
NAMESPACED = KUSTOMIZE / "overlays" / "namespaced"
SYSTEM_NAMESPACE = "vectorwright-system"
SERVICE_ACCOUNT = "vectorwright-operator"
TOKEN_SECONDS = 3 * 3600

_RIGHTS = (
    ("list", "vectorindexes.vectorwright.dev", SYSTEM_NAMESPACE),
    ("get", f"leases.coordination.k8s.io/{SERVICE_ACCOUNT}", SYSTEM_NAMESPACE),
)
"""One of each binding of a kustomization."""

Manifest = dict[str, Any]


def render(cluster: Cluster, directory: Path) -> list[Manifest]:
    """What ``kubectl kustomize DIRECTORY`` makes."""
    return list(yaml.safe_load_all(cluster.kubectl_run("kustomize", str(directory))))


def apply(cluster: Cluster, manifests: list[Manifest]) -> None:
    """Apply server-side, with every field checked, and wait until the kinds are served."""
    cluster.kubectl_run(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=strict",
        "-f",
        "-",
        input=yaml.safe_dump_all(manifests),
    )
    definitions = [f"crd/{item['metadata']['name']}" for item in manifests if item["kind"].startswith("CustomResource")]
    if definitions:
        cluster.kubectl_run("wait", "--for=condition=Established", "--timeout=60s", *definitions)


def wait_until_may(
    cluster: Cluster,
    verb: str,
    resource: str,
    namespace: str,
    *,
    may: bool = True,
    account: str = f"{SYSTEM_NAMESPACE}:{SERVICE_ACCOUNT}",
) -> None:
    """Return once the authorizer lets a ServiceAccount do something, or no longer: it hears of roles by a watch."""
    told = f"{account}: {verb} {resource} in {namespace}, {'allowed' if may else 'refused'}"
    wait_for(lambda: _may(cluster, verb, resource, namespace, account) == may, what=told, timeout=20)


def _may(cluster: Cluster, verb: str, resource: str, namespace: str, account: str) -> bool:
    try:
        cluster.kubectl_run("auth", "can-i", verb, resource, "-n", namespace, f"--as=system:serviceaccount:{account}")
    except KubectlError:  # status 1 is "no"
        return False
    return True


@pytest.fixture
def no_installation(devcluster: Cluster) -> Iterator[None]:
    """No roles and no Lease of an installation: neither another test's for this one, nor this one's for the next."""
    _clear(devcluster)
    yield
    _clear(devcluster)


def _clear(cluster: Cluster) -> None:
    selector = "app.kubernetes.io/name=vectorwright,app.kubernetes.io/component=operator"
    for kinds in ("clusterroles,clusterrolebindings", "deployments,roles,rolebindings"):
        cluster.kubectl_run("delete", kinds, "-A", "-l", selector, "--ignore-not-found")
    cluster.kubectl_run("delete", "lease", SERVICE_ACCOUNT, "-n", SYSTEM_NAMESPACE, "--ignore-not-found")
    for right in _RIGHTS:
        wait_until_may(cluster, *right, may=False)


def service_account_kubeconfig(cluster: Cluster, directory: Path, *, kustomization: Path = BASE) -> Path:
    """Apply a kustomization but for its Deployment, and write a kubeconfig of the operator's ServiceAccount.

    The operator that the test runs itself takes the Deployment's place. The kubeconfig's namespace is the operator's
    own, as it is in a pod; its token is good for :data:`TOKEN_SECONDS`. Raises KubectlError when the API server refuses
    something.
    """
    apply(cluster, [item for item in render(cluster, kustomization) if item["kind"] != "Deployment"])
    for right in _RIGHTS:
        wait_until_may(cluster, *right)
    token = cluster.kubectl_run(
        "create", "token", SERVICE_ACCOUNT, "-n", SYSTEM_NAMESPACE, f"--duration={TOKEN_SECONDS}s"
    ).strip()
    server: Manifest = {"server": cluster.server}
    if cluster.ca_file is not None:
        server["certificate-authority-data"] = base64.b64encode(cluster.ca_file.read_bytes()).decode()
    context = {"cluster": "c", "user": SERVICE_ACCOUNT, "namespace": SYSTEM_NAMESPACE}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": SERVICE_ACCOUNT, "user": {"token": token}}],
        "contexts": [{"name": SERVICE_ACCOUNT, "context": context}],
        "current-context": SERVICE_ACCOUNT,
    }
    path = directory / f"{SERVICE_ACCOUNT}.kubeconfig"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    return path
