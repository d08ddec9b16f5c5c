"""``deploy/kustomize`` on a real API server.

What is checked: base and overlay are accepted with every field known; the operator's pod is admitted where only
restricted pods are; the image of the workers follows that of the operator; the ServiceAccount may do what the operator
does, and none of what it does not do; the right to one Secret is enough for one Secret; key rotation's component adds
its rights in one namespace alone.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.devcluster import Cluster, KubectlError
from tests.support.rbac import (
    BASE,
    NAMESPACED,
    SERVICE_ACCOUNT,
    SYSTEM_NAMESPACE,
    apply,
    render,
    service_account_kubeconfig,
    wait_until_may,
)

from vectorwright.api.v1alpha1.common import FINALIZER
from vectorwright.errors import Terminal
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import load_connection
from vectorwright.kube.events import EventRecorder
from vectorwright.kube.resources import (
    EVENTS,
    INGESTION_JOBS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    SECRETS,
    VECTOR_INDEXES,
)
from vectorwright.kube.watched import WatchedObjects

pytestmark = pytest.mark.cluster

KEY_ROTATION = BASE.parent / "components" / "key-rotation"

Manifest = dict[str, Any]
Right = tuple[str, str]
"""Verb, and ``group/resource``, ``group/resource/subresource`` or ``group/resource:name``."""

OURS = ("vectorstores", "embeddingmodels", "vectorindexes", "ingestionjobs", "apikeyrotations")

EVERYWHERE: tuple[Right, ...] = (
    *((verb, f"vectorwright.dev/{kind}") for kind in OURS for verb in ("get", "list", "watch")),
    *(("patch", f"vectorwright.dev/{kind}/status") for kind in OURS),
    *(("patch", f"vectorwright.dev/{kind}") for kind in OURS if kind != "embeddingmodels"),
    ("update", "vectorwright.dev/ingestionjobs/finalizers"),
    *((verb, kind) for kind in ("/secrets", "/configmaps") for verb in ("list", "watch")),
    *((verb, "batch/jobs") for verb in ("get", "list", "watch", "create", "delete")),
    ("list", "/pods"),
    ("create", "/events"),
    ("patch", "/events"),
)
"""What the operator does in every namespace that it serves."""

NOWHERE: tuple[Right, ...] = (
    *((verb, f"vectorwright.dev/{kind}") for kind in OURS for verb in ("create", "update", "delete")),
    *(("update", f"vectorwright.dev/{kind}/status") for kind in OURS),
    ("patch", "vectorwright.dev/embeddingmodels"),
    *((verb, kind) for kind in ("/secrets", "/configmaps") for verb in ("create", "update", "patch", "delete")),
    *((verb, "/pods") for verb in ("create", "delete", "patch", "watch")),
    ("create", "/pods/exec"),
    ("get", "/pods/log"),
    ("create", "/pods/portforward"),
    ("create", "/serviceaccounts/token"),
    *((verb, "batch/jobs") for verb in ("update", "patch", "deletecollection")),
    ("create", "apps/deployments"),
    *((verb, "/namespaces") for verb in ("list", "create", "delete", "patch")),
    ("get", "/nodes"),
    *((verb, "apiextensions.k8s.io/customresourcedefinitions") for verb in ("get", "list", "create", "patch")),
    *((verb, "rbac.authorization.k8s.io/clusterroles") for verb in ("create", "escalate", "bind", "list")),
    ("create", "rbac.authorization.k8s.io/rolebindings"),
    ("impersonate", "/users"),
    ("get", "coordination.k8s.io/leases:kube-scheduler"),
    ("delete", f"coordination.k8s.io/leases:{SERVICE_ACCOUNT}"),
)
ROTATION: tuple[Right, ...] = (
    *((verb, "/secrets") for verb in ("get", "create", "update", "patch", "delete")),
    *(
        (verb, f"apps/{kind}")
        for kind in ("deployments", "statefulsets", "daemonsets")
        for verb in ("get", "list", "patch")
    ),
    ("list", "/pods"),
)
"""What key rotation does, in a namespace where its component was applied."""
LEASE: tuple[Right, ...] = (
    ("create", "coordination.k8s.io/leases"),
    ("get", f"coordination.k8s.io/leases:{SERVICE_ACCOUNT}"),
    ("update", f"coordination.k8s.io/leases:{SERVICE_ACCOUNT}"),
)


def allowed(cluster: Cluster, namespace: str, rights: tuple[Right, ...]) -> dict[Right, bool]:
    """What the API server's authorizer says of each right of the operator's ServiceAccount, in one request each."""
    reviews = []
    for verb, what in rights:
        group, _, rest = what.partition("/")
        kind, _, name = rest.partition(":")
        resource, _, subresource = kind.partition("/")
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "name": name,
        }
        user = {
            "user": f"system:serviceaccount:{SYSTEM_NAMESPACE}:{SERVICE_ACCOUNT}",
            "groups": [
                "system:authenticated",
                "system:serviceaccounts",
                f"system:serviceaccounts:{SYSTEM_NAMESPACE}",
            ],
        }
        reviews.append(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {**user, "resourceAttributes": attributes},
            }
        )
    answer = cluster.kubectl_run("create", "-f", "-", "-o", "json", input=yaml.safe_dump_all(reviews))
    decoder, at = json.JSONDecoder(), 0
    found: list[Manifest] = []
    while at < len(answer.rstrip()):
        document, at = decoder.raw_decode(answer, at)
        at += len(answer[at:]) - len(answer[at:].lstrip())
        found += document["items"] if document["kind"] == "List" else [document]
    assert len(found) == len(rights)
    return {right: bool(review["status"]["allowed"]) for right, review in zip(rights, found, strict=True)}


def refused(answers: dict[Right, bool]) -> list[Right]:
    return [right for right, yes in answers.items() if not yes]


def granted(answers: dict[Right, bool]) -> list[Right]:
    return [right for right, yes in answers.items() if yes]


def deployment_of(manifests: list[Manifest]) -> Manifest:
    (found,) = [item for item in manifests if item["kind"] == "Deployment"]
    return found


def environment(deployment: Manifest) -> dict[str, Any]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {item["name"]: item.get("value") or item["valueFrom"] for item in container["env"]}


@pytest.mark.parametrize("directory", [BASE, NAMESPACED], ids=["base", "namespaced"])
@pytest.mark.usefixtures("no_installation")
def test_it_is_accepted_and_its_pod_is_admitted(devcluster: Cluster, directory: Path) -> None:
    devcluster.kubectl_run(
        "apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", str(directory), timeout=120
    )
    template = deployment_of(render(devcluster, directory))["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "probe", "namespace": SYSTEM_NAMESPACE},
        "spec": template["spec"],
    }

    def admit(manifest: Manifest) -> Manifest:
        made = devcluster.kubectl_run(
            "create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", input=json.dumps(manifest)
        )
        answer: Manifest = json.loads(made)
        return answer

    admitted = admit(pod)
    mounts = [mount["mountPath"] for mount in admitted["spec"]["containers"][0]["volumeMounts"]]
    assert mounts == ["/tmp", "/var/run/secrets/kubernetes.io/serviceaccount"]
    laxer = {**pod, "spec": {**pod["spec"], "securityContext": {}}}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        admit(laxer)


def test_the_workers_image_follows_the_operators(devcluster: Cluster, tmp_path: Path) -> None:
    """In an overlay too, by tag and by digest; nothing else that looks like text is touched."""
    (tmp_path / "base").symlink_to(BASE.parents[2])
    for image, wanted in (
        ({"newName": "my.example/vw", "newTag": "9.9"}, "my.example/vw:9.9"),
        ({"digest": f"sha256:{'0' * 64}"}, f"vectorwright@sha256:{'0' * 64}"),
    ):
        overlay = {
            "resources": ["base/deploy/kustomize/overlays/namespaced"],
            "images": [{"name": "vectorwright"} | image],
        }
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        deployment = deployment_of(render(devcluster, tmp_path))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == wanted
        assert environment(deployment) == {
            "VECTORWRIGHT_WORKER_IMAGE": wanted,
            "VECTORWRIGHT_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        }


def test_a_namespaced_install_has_the_rules_of_a_wide_one_and_no_cluster_role(devcluster: Cluster) -> None:
    wide, narrow = render(devcluster, BASE), render(devcluster, NAMESPACED)
    (cluster_role,) = [
        item for item in wide if item["kind"] == "ClusterRole" and item["metadata"]["name"] == SERVICE_ACCOUNT
    ]
    (role,) = [item for item in narrow if item["kind"] == "Role" and item["metadata"]["name"] == SERVICE_ACCOUNT]
    assert role["rules"] == cluster_role["rules"]
    assert not [item["kind"] for item in narrow if item["kind"].startswith("ClusterRole")]
    assert {item["kind"] for item in wide} - {item["kind"] for item in narrow} == {"ClusterRole", "ClusterRoleBinding"}


@pytest.mark.usefixtures("no_installation")
def test_the_wide_install_may_what_the_operator_does_and_no_more(
    devcluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    service_account_kubeconfig(devcluster, tmp_path)
    own = (("get", "/namespaces:kube-system"), ("get", f"/namespaces:{namespace}"))
    assert refused(allowed(devcluster, namespace, (*EVERYWHERE, *own))) == []
    assert refused(allowed(devcluster, SYSTEM_NAMESPACE, LEASE)) == []
    assert granted(allowed(devcluster, namespace, (*NOWHERE, *LEASE))) == []
    assert granted(allowed(devcluster, SYSTEM_NAMESPACE, NOWHERE)) == []


@pytest.mark.usefixtures("no_installation")
def test_the_namespaced_install_may_it_in_its_own_namespace_only(
    devcluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    service_account_kubeconfig(devcluster, tmp_path, kustomization=NAMESPACED)
    own = (("get", f"/namespaces:{SYSTEM_NAMESPACE}"),)
    assert refused(allowed(devcluster, SYSTEM_NAMESPACE, (*EVERYWHERE, *LEASE, *own))) == []
    assert refused(allowed(devcluster, "kube-system", (("get", "/namespaces:kube-system"),))) == []
    other = (*EVERYWHERE, *NOWHERE, *LEASE, ("get", f"/namespaces:{namespace}"))
    assert granted(allowed(devcluster, namespace, other)) == []
    assert granted(allowed(devcluster, SYSTEM_NAMESPACE, NOWHERE)) == []


@pytest.mark.usefixtures("no_installation")
def test_the_component_of_key_rotation_adds_its_rights_in_one_namespace(
    devcluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    service_account_kubeconfig(devcluster, tmp_path)
    asked_for = tuple(right for right in ROTATION if right not in EVERYWHERE)
    assert granted(allowed(devcluster, namespace, asked_for)) == []
    devcluster.kubectl_run("apply", "-n", namespace, "-k", str(KEY_ROTATION))
    wait_until_may(devcluster, "patch", "deployments.apps", namespace)
    assert refused(allowed(devcluster, namespace, ROTATION)) == []
    more = (
        *(right for right in NOWHERE if right not in ROTATION),
        *((verb, "/secrets") for verb in ("deletecollection",)),
        *((verb, "apps/deployments") for verb in ("update", "delete", "watch")),
        ("patch", "apps/deployments/scale"),
        ("patch", "apps/replicasets"),
    )
    assert granted(allowed(devcluster, namespace, more)) == []
    assert granted(allowed(devcluster, SYSTEM_NAMESPACE, asked_for)) == []


@pytest.fixture
async def client(devcluster: Cluster, tmp_path: Path, no_installation: None) -> AsyncIterator[KubeClient]:
    """The operator's client, as its ServiceAccount."""
    del no_installation
    async with KubeClient(load_connection(service_account_kubeconfig(devcluster, tmp_path))) as opened:
        yield opened


_INDEX = """
apiVersion: vectorwright.dev/v1alpha1
kind: VectorIndex
metadata: {name: docs}
spec: {storeRef: {name: store}, dimension: 3}
"""
_JOB = {
    "metadata": {"name": "run"},
    "spec": {
        "suspend": True,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none.invalid/none"}]}},
    },
}


async def test_the_operators_own_calls_are_let_through(devcluster: Cluster, namespace: str, client: KubeClient) -> None:
    devcluster.kubectl_run("apply", "-n", namespace, "-f", "-", input=_INDEX)
    (index,) = await client.list(VECTOR_INDEXES, namespace)
    finalizers = {"metadata": {"finalizers": [FINALIZER], "resourceVersion": index["metadata"]["resourceVersion"]}}
    patched = await client.patch(VECTOR_INDEXES, "docs", namespace, finalizers)
    assert patched["metadata"]["finalizers"] == [FINALIZER]
    status = await client.patch(VECTOR_INDEXES, "docs", namespace, {"status": {"vectors": 7}}, subresource="status")
    assert status["status"]["vectors"] == 7
    recorder = EventRecorder(client)
    recorder.normal({**status, "kind": "VectorIndex"}, "Tested", "as its ServiceAccount")
    await recorder.close()
    events = devcluster.kubectl_run("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].reason}")
    assert "Tested" in events
    await client.create(JOBS, _JOB, namespace)
    assert (await client.get(JOBS, "run", namespace))["spec"]["suspend"] is True
    assert await client.list(PODS, namespace, label_selector="batch.kubernetes.io/job-name=run") == []
    await client.delete(JOBS, "run", namespace, propagation="Background")
    assert (await client.get(NAMESPACES, "kube-system"))["metadata"]["uid"]
    lease = await client.create(LEASES, {"metadata": {"name": SERVICE_ACCOUNT}}, SYSTEM_NAMESPACE)
    await client.replace(LEASES, SERVICE_ACCOUNT, SYSTEM_NAMESPACE, lease)
    devcluster.kubectl_run("delete", "lease", SERVICE_ACCOUNT, "-n", SYSTEM_NAMESPACE)
    await client.patch(VECTOR_INDEXES, "docs", namespace, {"metadata": {"finalizers": []}})


async def test_other_calls_are_refused(namespace: str, client: KubeClient) -> None:
    with pytest.raises(Terminal, match="cannot create resource") as denied:
        await client.create(SECRETS, {"metadata": {"name": "made"}}, namespace)
    assert denied.value.reason == "Forbidden"
    with pytest.raises(Terminal, match="cannot delete resource"):
        await client.delete(INGESTION_JOBS, "any", namespace)
    with pytest.raises(Terminal, match="cannot list resource"):
        await client.list(EVENTS, namespace)


async def test_the_right_to_one_secret_is_enough_for_it(
    devcluster: Cluster, namespace: str, tmp_path: Path, no_installation: None
) -> None:
    """What docs/security.md says of narrowing: a Role with resourceNames in place of the ClusterRole's rule."""
    del no_installation
    kubeconfig = service_account_kubeconfig(devcluster, tmp_path, kustomization=NAMESPACED)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "one-secret", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["list", "watch"]}],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "one-secret", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one-secret"},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": SYSTEM_NAMESPACE}],
    }
    apply(devcluster, [role, binding])
    wait_until_may(devcluster, "list", "secrets/mine", namespace)
    for name in ("mine", "other"):
        devcluster.kubectl_run("create", "secret", "generic", name, "-n", namespace, "--from-literal=token=first")
    changed: list[tuple[str, str]] = []
    async with KubeClient(load_connection(kubeconfig)) as client:
        watched = WatchedObjects(client, SECRETS, lambda *key: changed.append(key))
        try:
            assert await watched.get(namespace, "mine") == {"token": b"first"}
            with pytest.raises(Terminal, match=f"may not read Secret {namespace}/other") as denied:
                await watched.get(namespace, "other")
            assert denied.value.reason == "SecretForbidden"
        finally:
            await watched.close()
