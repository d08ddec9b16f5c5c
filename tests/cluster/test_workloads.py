"""Restarts of real workloads on a real API server.

What is checked: a restart changes one annotation and nothing else, and owns nothing else; the same revision is not sent
again; manifests that are applied client-side, or server-side by another manager, leave it alone; a workload that is
gone is not made anew; targets are found by name and labels; what cannot be waited for is refused; the rights of the
component are enough, whose they are, and what is said without them.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from deploy.devcluster import Cluster
from tests.support.rbac import SERVICE_ACCOUNT, SYSTEM_NAMESPACE, wait_until_may
from tests.support.workloads import Manifest, changed, create, kubectl_apply, manifest, read, until

from vectorwright.errors import NotFound, Retryable, Terminal
from vectorwright.kube.client import KubeClient, WriteCall
from vectorwright.kube.connection import KubeConnection, StaticToken, load_connection
from vectorwright.kube.rollout import progress
from vectorwright.kube.secret_users import holders
from vectorwright.kube.workloads import (
    FIELD_MANAGER,
    RESTART_ANNOTATION,
    WORKLOADS,
    Target,
    WorkloadKind,
    WorkloadName,
    find_workloads,
    refusal,
    restart,
    template_revision,
)

pytestmark = pytest.mark.cluster

COMPONENT = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "components" / "key-rotation"
KINDS: tuple[WorkloadKind, ...] = ("Deployment", "StatefulSet", "DaemonSet")
ONE_ANNOTATION: Manifest = {
    "f:spec": {"f:template": {"f:metadata": {"f:annotations": {f"f:{RESTART_ANNOTATION}": {}}}}}
}


@pytest.fixture
def connection(devcluster: Cluster) -> KubeConnection:
    return load_connection(devcluster.kubeconfig)


@pytest.fixture
async def client(connection: KubeConnection) -> AsyncIterator[KubeClient]:
    async with KubeClient(connection) as opened:
        yield opened


def ours(workload: Manifest) -> list[Manifest]:
    """What our field manager owns."""
    entries = [entry for entry in workload["metadata"]["managedFields"] if entry["manager"] == FIELD_MANAGER]
    assert all((entry["operation"], entry.get("subresource")) == ("Apply", None) for entry in entries)
    return [entry["fieldsV1"] for entry in entries]


def without_what_the_server_counts(workload: Manifest) -> Manifest:
    """A workload without its status and the fields that tell of each write."""
    rest = copy.deepcopy(workload)
    rest.pop("status", None)
    for key in ("generation", "resourceVersion", "managedFields"):
        rest["metadata"].pop(key)
    # The controllers' own: the number of the rollout.
    for key in ("deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation"):
        (rest["metadata"].get("annotations") or {}).pop(key, None)
    if not rest["metadata"].get("annotations"):
        rest["metadata"].pop("annotations", None)
    return rest


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_changes_and_owns_one_annotation(
    client: KubeClient, namespace: str, kind: WorkloadKind
) -> None:
    name = await create(client, namespace, manifest(kind, "search"))
    before = await read(client, name)
    assert await restart(client, before, "1") is True
    after = await read(client, name)
    expected = without_what_the_server_counts(before)
    expected["spec"]["template"]["metadata"]["annotations"][RESTART_ANNOTATION] = "1"
    assert without_what_the_server_counts(after) == expected
    assert ours(after) == [ONE_ANNOTATION]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


async def test_a_template_without_annotations_gets_its_first(client: KubeClient, namespace: str) -> None:
    body = manifest("Deployment", "search")
    del body["spec"]["template"]["metadata"]["annotations"]
    name = await create(client, namespace, body)
    await restart(client, await read(client, name), "1")
    found = await read(client, name)
    assert found["spec"]["template"]["metadata"]["annotations"] == {RESTART_ANNOTATION: "1"}
    assert ours(found) == [ONE_ANNOTATION]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_revision_sends_nothing(connection: KubeConnection, namespace: str, kind: WorkloadKind) -> None:
    sent: list[WriteCall] = []

    def note(call: WriteCall) -> None:
        sent.append(call)

    async with KubeClient(connection, guard=note) as client:
        name = await create(client, namespace, manifest(kind, "search"))
        assert await restart(client, await read(client, name), "1") is True
        # More than one, where the controller wrote between the read and the patch.
        assert {call.verb for call in sent} == {"create", "patch"}
        sent.clear()
        assert await restart(client, await read(client, name), "1") is False
    assert sent == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_manifest_that_is_applied_again_leaves_the_annotation(
    devcluster: Cluster, client: KubeClient, namespace: str, kind: WorkloadKind
) -> None:
    body = manifest(kind, "search")
    kubectl_apply(devcluster, namespace, body)
    name = WorkloadName(kind, namespace, "search")
    await restart(client, await read(client, name), "1")
    kubectl_apply(devcluster, namespace, changed(body))
    found = await read(client, name)
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "app:2"
    assert (template_revision(found), ours(found)) == ("1", [ONE_ANNOTATION])
    assert await restart(client, found, "2") is True
    kubectl_apply(devcluster, namespace, body)
    assert template_revision(await read(client, name)) == "2"


@pytest.mark.parametrize("manager", ["argocd-controller", "kustomize-controller"])
@pytest.mark.parametrize("forced", [True, False])
async def test_server_side_apply_by_another_manager_leaves_it(
    devcluster: Cluster, client: KubeClient, namespace: str, manager: str, *, forced: bool
) -> None:
    flags = ["--server-side", f"--field-manager={manager}", *(["--force-conflicts"] if forced else [])]
    body = manifest("Deployment", "search")
    kubectl_apply(devcluster, namespace, body, *flags)
    name = WorkloadName("Deployment", namespace, "search")
    for revision, image in (("1", changed(body)), ("2", body)):
        assert await restart(client, await read(client, name), revision) is True
        kubectl_apply(devcluster, namespace, image, *flags)
        found = await read(client, name)
        assert template_revision(found) == revision
        assert ours(found) == [ONE_ANNOTATION]
        assert found["spec"]["template"]["spec"]["containers"] == [
            container | dict_of_defaults(container, found)
            for container in image["spec"]["template"]["spec"]["containers"]
        ]


def dict_of_defaults(container: Manifest, workload: Manifest) -> Manifest:
    """What the API server filled in for a container; its name and image are what the manifest must say."""
    stored = next(
        item for item in workload["spec"]["template"]["spec"]["containers"] if item["name"] == container["name"]
    )
    return {key: value for key, value in stored.items() if key not in container}


async def test_a_manifest_with_the_annotation_in_it_does_not_stop_a_restart(
    devcluster: Cluster, client: KubeClient, namespace: str
) -> None:
    body = manifest("Deployment", "search")
    body["spec"]["template"]["metadata"]["annotations"][RESTART_ANNOTATION] = "from-git"
    kubectl_apply(devcluster, namespace, body, "--server-side", "--field-manager=argocd-controller")
    name = WorkloadName("Deployment", namespace, "search")
    assert await restart(client, await read(client, name), "7") is True
    assert template_revision(await read(client, name)) == "7"


async def test_another_writer_that_takes_the_annotation_away_is_named(client: KubeClient, namespace: str) -> None:
    body = manifest("Deployment", "search")
    name = await create(client, namespace, body)
    assert await restart(client, await read(client, name), "1") is True
    await client.replace(WORKLOADS["Deployment"], "search", namespace, body)
    told = await progress(client, name, "1")
    assert (told.done, told.reverted) == (False, True)
    assert told.message == (
        f"Deployment {namespace}/search: its pod template carries no revision of the key instead of 1; field manager "
        "vectorwright wrote the workload last"
    )
    # Whoever counts these sees a fight.
    assert await restart(client, await read(client, name), "1") is True


async def test_a_workload_that_is_gone_is_not_made_anew(client: KubeClient, namespace: str) -> None:
    name = await create(client, namespace, manifest("Deployment", "search"))
    stale = await read(client, name)
    await client.delete(WORKLOADS["Deployment"], "search", namespace)
    await until(lambda: exists(client, name), lambda there: not there)
    assert await restart(client, stale, "1") is False
    assert not await exists(client, name)
    assert (await progress(client, name, "1")).done is True

    await create(client, namespace, manifest("Deployment", "search"))
    with pytest.raises(Retryable, match="replaced") as replaced:
        await restart(client, stale, "1")
    assert replaced.value.reason == "RestartTargetReplaced"
    assert template_revision(await read(client, name)) is None


async def test_a_workload_that_is_being_deleted_is_not_restarted(client: KubeClient, namespace: str) -> None:
    body = manifest("Deployment", "search")
    body["metadata"]["finalizers"] = ["vectorwright.dev/test"]
    name = await create(client, namespace, body)
    await client.delete(WORKLOADS["Deployment"], "search", namespace)
    assert await restart(client, await read(client, name), "1") is False
    await client.patch(WORKLOADS["Deployment"], "search", namespace, {"metadata": {"finalizers": None}})


async def exists(client: KubeClient, name: WorkloadName) -> bool:
    try:
        await read(client, name)
    except NotFound:
        return False
    return True


async def test_targets_are_found_by_name_and_by_labels_each_once(client: KubeClient, namespace: str) -> None:
    for kind in KINDS:
        for name in ("b", "a"):
            await create(client, namespace, manifest(kind, name))
    other = manifest("Deployment", "other")
    other["metadata"]["labels"] = {"team": "other"}
    await create(client, namespace, other)
    found = await find_workloads(
        client,
        [
            Target("StatefulSet", namespace, name="a"),
            Target("Deployment", namespace, match_labels={"team": "search"}),
            Target("Deployment", namespace, name="a"),
            Target("DaemonSet", namespace, match_labels={"team": "nobody"}),
        ],
    )
    assert [(item["kind"], item["metadata"]["name"]) for item in found] == [
        ("Deployment", "a"),
        ("Deployment", "b"),
        ("StatefulSet", "a"),
    ]
    with pytest.raises(Terminal, match=f"DaemonSet {namespace}/nobody does not exist") as missing:
        await find_workloads(client, [Target("DaemonSet", namespace, name="nobody")])
    assert missing.value.reason == "RestartTargetNotFound"


async def test_what_cannot_be_waited_for_is_refused(client: KubeClient, namespace: str) -> None:
    on_delete: Manifest = {"updateStrategy": {"type": "OnDelete"}}
    partitioned: Manifest = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
    refused = (
        (manifest("Deployment", "paused", paused=True), "resume it"),
        (manifest("StatefulSet", "by-hand", **on_delete), "RollingUpdate"),
        (manifest("StatefulSet", "part", **partitioned), "partition to 0"),
        (manifest("DaemonSet", "by-hand", **on_delete), "RollingUpdate"),
    )
    for body, words in refused:
        name = await create(client, namespace, body)
        assert words in (refusal(await read(client, name)) or "")
    for body in (
        *(manifest(kind, "plain") for kind in KINDS),
        manifest("Deployment", "at-once", strategy={"type": "Recreate"}),
        manifest("Deployment", "none", replicas=0),
    ):
        assert refusal(await read(client, await create(client, namespace, body))) is None


async def test_what_validation_refuses_is_told_with_its_words(client: KubeClient, namespace: str) -> None:
    name = await create(client, namespace, manifest("Deployment", "search"))
    with pytest.raises(Terminal, match=r"Deployment .*/search cannot be restarted: .*[Tt]oo long") as refused:
        await restart(client, await read(client, name), "x" * 300_000)
    assert refused.value.reason == "RestartRefused"


def account(cluster: Cluster, connection: KubeConnection, namespace: str, component: Manifest | None) -> KubeConnection:
    """A ServiceAccount with the rights of the component, or with none."""
    cluster.kubectl_run("create", "serviceaccount", "restarter", "-n", namespace)
    if component is not None:
        cluster.kubectl_run("apply", "-n", namespace, "-f", "-", input=json.dumps(component))
        wait_until_may(cluster, "get", "secrets", namespace, account=f"{namespace}:restarter")
    token = cluster.kubectl_run("create", "token", "restarter", "-n", namespace).strip()
    return dataclasses.replace(connection, token=StaticToken(token), client_certificate=None, client_key=None)


def component(cluster: Cluster, namespace: str, *, without: str = "") -> Manifest:
    """The rendered component, bound to a ServiceAccount of the namespace; ``without``: a resource left out."""
    items = list(yaml.safe_load_all(cluster.kubectl_run("kustomize", str(COMPONENT))))
    for item in items:
        if item["kind"] == "RoleBinding":
            item["subjects"] = [{"kind": "ServiceAccount", "name": "restarter", "namespace": namespace}]
        else:
            item["rules"] = [rule for rule in item["rules"] if without not in rule["resources"]]
    assert sorted(item["kind"] for item in items) == ["Role", "RoleBinding"]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def test_the_component_is_for_the_operator_in_the_namespace_that_it_is_applied_to(
    devcluster: Cluster, namespace: str
) -> None:
    devcluster.kubectl_run("apply", "-n", namespace, "--validate=strict", "-k", str(COMPONENT))
    bound = json.loads(devcluster.kubectl_run("get", "rolebinding", "-n", namespace, "-o", "json"))["items"]
    operator = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": SYSTEM_NAMESPACE}
    assert [item["subjects"] for item in bound] == [[operator]]
    for verb, kind in (("patch", "deployments.apps"), ("create", "secrets"), ("list", "pods")):
        wait_until_may(devcluster, verb, kind, namespace)


async def test_the_rights_of_the_component_are_enough(
    devcluster: Cluster, connection: KubeConnection, namespace: str
) -> None:
    async with KubeClient(connection) as admin:
        for kind in KINDS:
            await create(admin, namespace, manifest(kind, "search"))
    rights = component(devcluster, namespace)
    async with KubeClient(account(devcluster, connection, namespace, rights)) as client:
        targets = [Target(kind, namespace, name="search") for kind in KINDS]
        targets += [Target(kind, namespace, match_labels={"team": "search"}) for kind in KINDS]
        found = await find_workloads(client, targets)
        assert len(found) == 3
        for workload in found:
            assert await restart(client, workload, "1") is True
            assert (
                "search" in (await progress(client, WorkloadName(workload["kind"], namespace, "search"), "1")).message
            )
        assert await holders(client, namespace, "keys", datetime.now(UTC), "1") == []
        # A workload that is gone asks for no right to create one.
        async with KubeClient(connection) as admin:
            await admin.delete(WORKLOADS["DaemonSet"], "search", namespace)
            await until(lambda: exists(admin, WorkloadName("DaemonSet", namespace, "search")), lambda there: not there)
        gone = next(item for item in found if item["kind"] == "DaemonSet")
        assert await restart(client, gone, "2") is False


async def test_without_rights_the_role_to_apply_is_named(
    devcluster: Cluster, connection: KubeConnection, namespace: str
) -> None:
    async with KubeClient(connection) as admin:
        workload = await read(admin, await create(admin, namespace, manifest("Deployment", "search")))
    name = WorkloadName("Deployment", namespace, "search")
    async with KubeClient(account(devcluster, connection, namespace, None)) as client:
        for call in (
            find_workloads(client, [Target("Deployment", namespace, name="search")]),
            find_workloads(client, [Target("Deployment", namespace, match_labels={"team": "search"})]),
            restart(client, workload, "1"),
            progress(client, name, "1"),
        ):
            with pytest.raises(Terminal, match=f"in namespace {namespace}: apply .*components/key-rotation") as refused:
                await call
            assert refused.value.reason == "RestartTargetForbidden"


async def test_without_the_right_to_list_pods_the_role_to_apply_is_named(
    devcluster: Cluster, connection: KubeConnection, namespace: str
) -> None:
    async with KubeClient(connection) as admin:
        name = await create(admin, namespace, manifest("Deployment", "search"))
    rights = component(devcluster, namespace, without="pods")
    async with KubeClient(account(devcluster, connection, namespace, rights)) as client:
        for call in (progress(client, name, "1"), holders(client, namespace, "keys", datetime.now(UTC), "1")):
            with pytest.raises(Terminal, match=f"pods in namespace {namespace}.*components/key-rotation") as refused:
                await call
            assert refused.value.reason == "PodsForbidden"
