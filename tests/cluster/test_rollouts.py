"""Rollouts of real workloads: real controllers, and a stand-in for scheduler and kubelet.

What is checked: a restart is through only when no pod of the old template is left, terminating ones included, for each
kind; what is waited for is named; a rollout that cannot end says so, and ends once it is mended; what people and the
autoscaler do meanwhile; restarts for several Secrets at once; pods of others are not waited for; pods that still hold a
Secret are found.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from deploy.devcluster import Cluster
from tests.support.pods import PodKeeper
from tests.support.workloads import (
    Manifest,
    changed,
    create,
    kubectl_apply,
    manifest,
    read,
    until,
    until_available,
    until_progress,
)

from vectorwright.errors import Retryable
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import load_connection
from vectorwright.kube.resources import PODS, SECRETS
from vectorwright.kube.rollout import progress
from vectorwright.kube.secret_users import Holder, holders
from vectorwright.kube.workloads import WORKLOADS, WorkloadKind, WorkloadName, restart, scoped, template_revision

pytestmark = pytest.mark.cluster

KINDS: tuple[WorkloadKind, ...] = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.fixture
async def client(devcluster: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient(load_connection(devcluster.kubeconfig)) as opened:
        yield opened


async def running(client: KubeClient, keeper: PodKeeper, kind: WorkloadKind, name: str, **more: Any) -> WorkloadName:
    """A workload whose pods are all there."""
    made = await create(client, keeper.namespace, manifest(kind, name, keeper=keeper, **more))
    await until_available(client, made)
    return made


async def pods(client: KubeClient, namespace: str) -> list[Manifest]:
    return await client.list(PODS, namespace)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_restart_is_through_when_the_last_old_pod_is_gone(
    client: KubeClient, pod_keeper: PodKeeper, kind: WorkloadKind
) -> None:
    name = await running(client, pod_keeper, kind, "search")
    before = {pod["metadata"]["uid"] for pod in await pods(client, name.namespace)}
    pod_keeper.hold.set()
    await restart(client, await read(client, name), "1")
    waiting = await until_progress(client, name, "1", lambda told: "still terminating" in told.message)
    assert (waiting.done, waiting.failed, waiting.reverted) == (False, None, False)
    assert waiting.message.startswith(f"{name}: ")
    pod_keeper.hold.clear()
    through = await until_progress(client, name, "1", lambda told: told.done)
    assert through.failed is None
    after = await pods(client, name.namespace)
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in after)
    assert len(after) == len(before)
    # Every answer of a restart that is through stays so.
    assert (await progress(client, name, "1")).done


async def test_the_counts_of_a_deployment_alone_would_call_it_through_too_early(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    name = await running(client, pod_keeper, "Deployment", "search", strategy=rolling, replicas=3)
    pod_keeper.hold.set()
    await restart(client, await read(client, name), "1")

    def counted(body: Manifest) -> bool:
        status = body["status"]
        counts = {status.get(key) for key in ("replicas", "updatedReplicas", "availableReplicas")}
        return counts == {3} and status["observedGeneration"] == body["metadata"]["generation"]

    await until(lambda: read(client, name), counted)
    told = await progress(client, name, "1")
    assert not told.done
    old = sorted(
        p["metadata"]["name"] for p in await pods(client, name.namespace) if "deletionTimestamp" in p["metadata"]
    )
    assert told.message == (
        f"{name}: 3 of 3 pods are of the new template, 3 available; pods {', '.join(old)} of the old one are still "
        "terminating"
    )
    pod_keeper.hold.clear()
    await until_progress(client, name, "1", lambda told: told.done)


async def test_a_rollout_without_progress_says_so_and_ends_once_it_is_mended(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    name = await running(client, pod_keeper, "Deployment", "search", progressDeadlineSeconds=3)
    pod_keeper.never_ready = lambda pod: True
    await restart(client, await read(client, name), "1")
    stuck = await until_progress(client, name, "1", lambda told: told.failed is not None)
    assert not stuck.done
    assert "ProgressDeadlineExceeded: no progress for 3 s" in (stuck.failed or "")
    assert "is not ready (CrashLoopBackOff)" in stuck.message
    assert "of the old one are still there" in stuck.message
    pod_keeper.never_ready = lambda pod: False
    mended = await until_progress(client, name, "1", lambda told: told.done)
    assert mended.failed is None


async def test_a_statefulset_whose_pod_never_gets_ready_is_waited_for_and_named(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    name = await running(client, pod_keeper, "StatefulSet", "search")
    pod_keeper.never_ready = lambda pod: pod.metadata.name == "search-1"
    await restart(client, await read(client, name), "1")
    told = await until_progress(client, name, "1", lambda told: "CrashLoopBackOff" in told.message)
    assert not told.done
    assert "pod search-1 is not ready (CrashLoopBackOff)" in told.message
    assert "pod search-0 of the old one is still there" in told.message


async def test_a_new_pod_is_waited_for_until_it_has_been_ready_long_enough(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    name = await running(client, pod_keeper, "Deployment", "search", replicas=1)
    await client.patch(WORKLOADS[name.kind], name.name, name.namespace, {"spec": {"minReadySeconds": 500}})
    await restart(client, await read(client, name), "1")

    def only_new(found: list[Manifest]) -> bool:
        ready = [pod for pod in found if any(c["type"] == "Ready" for c in pod["status"].get("conditions") or ())]
        return len(ready) == 2

    await until(lambda: pods(client, name.namespace), only_new)
    assert not (await progress(client, name, "1")).done
    await client.patch(WORKLOADS[name.kind], name.name, name.namespace, {"spec": {"minReadySeconds": 0}})
    await until_progress(client, name, "1", lambda told: told.done)


async def test_a_workload_that_is_paused_partitioned_or_changed_to_on_delete_meanwhile_says_so(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    pod_keeper.never_ready = lambda pod: "example.org/later" not in (pod.metadata.annotations or {})
    hindered = (
        ("Deployment", {"paused": True}, "is paused"),
        ("StatefulSet", {"updateStrategy": {"rollingUpdate": {"partition": 1}}}, "partition"),
        ("StatefulSet", {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}, "OnDelete"),
        ("DaemonSet", {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}, "OnDelete"),
    )
    for number, (kind, spec, words) in enumerate(hindered):
        body = manifest(kind, f"w{number}", keeper=pod_keeper)  # type: ignore[arg-type]
        name = await create(client, pod_keeper.namespace, body)
        await restart(client, await read(client, name), "1")
        await client.patch(WORKLOADS[name.kind], name.name, name.namespace, {"spec": spec})
        told = await progress(client, name, "1")
        assert (told.done, words in told.message, words in (told.failed or "")) == (False, True, True)


async def test_a_paused_deployment_goes_on_when_it_is_resumed(client: KubeClient, pod_keeper: PodKeeper) -> None:
    name = await running(client, pod_keeper, "Deployment", "search")
    await client.patch(WORKLOADS[name.kind], name.name, name.namespace, {"spec": {"paused": True}})
    await restart(client, await read(client, name), "1")
    for _ in range(10):
        told = await progress(client, name, "1")
        assert (told.done, "resume it" in (told.failed or "")) == (False, True)
        await asyncio.sleep(0.05)
    await client.patch(WORKLOADS[name.kind], name.name, name.namespace, {"spec": {"paused": False}})
    await until_progress(client, name, "1", lambda told: told.done)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_no_replicas_are_done_at_once(client: KubeClient, pod_keeper: PodKeeper, kind: WorkloadKind) -> None:
    name = await running(client, pod_keeper, kind, "search", replicas=0)
    await restart(client, await read(client, name), "1")
    told = await until_progress(client, name, "1", lambda told: told.done)
    assert "all 0 pods" in told.message


async def test_replicas_that_the_autoscaler_changes_meanwhile_are_waited_for(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    name = await running(client, pod_keeper, "Deployment", "search")
    pod_keeper.ready_after = 0.5
    await restart(client, await read(client, name), "1")
    for replicas in (4, 1):
        scale = {"spec": {"replicas": replicas}}
        await client.patch(WORKLOADS[name.kind], name.name, name.namespace, scale, subresource="scale")
        await asyncio.sleep(0.3)
    told = await until_progress(client, name, "1", lambda told: told.done)
    assert "all 1 pods" in told.message


async def test_a_manifest_that_is_applied_during_the_rollout_does_not_undo_it(
    devcluster: Cluster, client: KubeClient, pod_keeper: PodKeeper
) -> None:
    body = manifest("Deployment", "search", keeper=pod_keeper)
    kubectl_apply(devcluster, pod_keeper.namespace, body)
    name = WorkloadName("Deployment", pod_keeper.namespace, "search")
    await until_available(client, name)
    await restart(client, await read(client, name), "1")
    kubectl_apply(devcluster, pod_keeper.namespace, changed(body))
    await until_progress(client, name, "1", lambda told: told.done)


async def test_restarts_for_two_secrets_at_once_do_not_fight(client: KubeClient, pod_keeper: PodKeeper) -> None:
    name = await running(client, pod_keeper, "Deployment", "search")
    revisions = [scoped(secret, "1-1786752000") for secret in ("search-keys", "pg-keys", "more-keys")]
    stale = await read(client, name)

    async def done(revision: str) -> bool:
        """As the operator does it: again, where others changed it all the while."""
        while True:
            try:
                return await restart(client, stale, revision)
            except Retryable as error:
                assert error.reason == "Conflict"  # noqa: PT017 - any other is a failure of the test

    assert await asyncio.gather(*map(done, revisions)) == [True] * 3
    after = await read(client, name)
    assert template_revision(after) == ",".join(sorted(revisions))
    for revision in revisions:
        await until_progress(client, name, revision, lambda told: told.done)
        assert await restart(client, stale, revision) is False
    # A later restart for one of them leaves the others through.
    await restart(client, await read(client, name), scoped("pg-keys", "2"))
    assert not (await progress(client, name, revisions[0])).reverted
    for revision in (revisions[0], revisions[2], scoped("pg-keys", "2")):
        await until_progress(client, name, revision, lambda told: told.done)
    assert (await progress(client, name, revisions[1])).reverted


async def test_a_deleted_workload_is_done_when_its_pods_are_gone_or_it_is(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    name = await running(client, pod_keeper, "Deployment", "search")
    await restart(client, await read(client, name), "1")
    await until_progress(client, name, "1", lambda told: told.done)
    pod_keeper.hold.set()
    await client.delete(WORKLOADS[name.kind], name.name, name.namespace, propagation="Foreground")
    told = await progress(client, name, "1")
    assert not told.done
    assert "is being deleted; pods search-" in told.message
    pod_keeper.hold.clear()
    told = await until_progress(client, name, "1", lambda told: told.done)
    assert told.failed is None


async def test_pods_of_another_workload_under_the_same_labels_are_not_waited_for(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    name = await running(client, pod_keeper, "Deployment", "search")
    canary = manifest("Deployment", "search-canary", keeper=pod_keeper)
    labels = {"app": "search", "track": "canary"}
    canary["spec"]["template"]["metadata"]["labels"] = canary["spec"]["selector"]["matchLabels"] = labels
    other = await create(client, name.namespace, canary)
    await until_available(client, other)
    bare = manifest("Deployment", "search", keeper=pod_keeper)["spec"]["template"]
    bare["metadata"]["name"] = "by-hand"
    bare["metadata"]["ownerReferences"] = []
    bare["metadata"]["labels"] = {"track": "hand"}
    await client.create(PODS, bare, name.namespace)
    await restart(client, await read(client, name), "1")
    await until_progress(client, name, "1", lambda told: told.done)


async def test_pods_are_found_by_selectors_with_expressions(client: KubeClient, pod_keeper: PodKeeper) -> None:
    expressions = [
        {"key": "app", "operator": "In", "values": ["search", "find"]},
        {"key": "tier", "operator": "DoesNotExist"},
        {"key": "app", "operator": "Exists"},
        {"key": "app", "operator": "NotIn", "values": ["other"]},
    ]
    name = await running(client, pod_keeper, "Deployment", "search", selector={"matchExpressions": expressions})
    pod_keeper.hold.set()
    await restart(client, await read(client, name), "1")
    await until_progress(client, name, "1", lambda told: "still terminating" in told.message)
    pod_keeper.hold.clear()
    await until_progress(client, name, "1", lambda told: told.done)


async def test_pods_that_are_older_than_the_secret_are_named_until_they_are_gone(
    client: KubeClient, pod_keeper: PodKeeper
) -> None:
    namespace = pod_keeper.namespace
    environment = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}}
    uses = {"containers": [{"name": "app", "image": "app:1", "env": [environment]}]}
    name = await running(client, pod_keeper, "Deployment", "search", pod=uses)
    volume = {"name": "keys", "projected": {"sources": [{"secret": {"name": "keys"}}]}}
    for pod, spec in (("mounted", {"volumes": [volume]}), ("stranger", {}), ("ended", {"volumes": [volume]})):
        template = manifest("Deployment", pod, keeper=pod_keeper, pod=spec)["spec"]["template"]
        await client.create(PODS, {**template, "metadata": {"name": pod}}, namespace)
    await until(lambda: pods(client, namespace), lambda all_: all(p["status"]["phase"] == "Running" for p in all_))
    await client.patch(PODS, "ended", namespace, {"status": {"phase": "Succeeded"}}, subresource="status")
    # A Secret's own time, on the API server's clock, in the second of the pods or after it.
    secret = await client.create(SECRETS, {"metadata": {"name": "keys"}, "stringData": {"key": "k"}}, namespace)
    published = datetime.fromisoformat(secret["metadata"]["creationTimestamp"])
    found = await holders(client, namespace, "keys", published, "1")
    assert sorted(holder.pod for holder in found if holder.controller) == sorted(
        pod["metadata"]["name"] for pod in await pods(client, namespace) if pod["metadata"]["name"].startswith("search")
    )
    assert {(holder.controller or "").partition("-")[0] for holder in found} == {"ReplicaSet search", ""}
    assert "mounted" in [holder.pod for holder in found]
    assert {"stranger", "ended"}.isdisjoint(holder.pod for holder in found)
    assert found[0].created.tzinfo is not None

    pod_keeper.hold.set()
    await restart(client, await read(client, name), "1")

    async def ask() -> list[Holder]:
        return await holders(client, namespace, "keys", published, "1")

    going = await until(ask, lambda found: sum(holder.terminating for holder in found) == 2)
    assert len(going) == 3
    pod_keeper.hold.clear()
    assert [holder.pod for holder in await until(ask, lambda found: len(found) == 1)] == ["mounted"]
    # After the next publication the pods of this one are the old ones.
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    again = {holder.pod for holder in await holders(client, namespace, "keys", tomorrow, "2")}
    assert again == {pod["metadata"]["name"] for pod in await pods(client, namespace)} - {"stranger", "ended"}
    assert len(again) == 3
