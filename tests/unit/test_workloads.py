"""Restarts of workloads: what is decided from objects alone, and what faults of the API server are told as.

What is checked: selectors; targets; what cannot be waited for; whose a pod is; when a rollout is through and what is
said while it is not; who refused a restart, and what may pass.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.support.api_double import ApiDouble
from tests.support.scripted_http import answer, scripted

from vectorwright.errors import Conflict, Retryable, Terminal
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.rollout import RolloutProgress, belongs, judge, progress
from vectorwright.kube.workloads import (
    RESTART_ANNOTATION,
    Target,
    WorkloadKind,
    WorkloadName,
    find_workloads,
    label_selector,
    refusal,
    restart,
    scoped,
    template_revision,
)

Body = dict[str, Any]
KINDS: tuple[WorkloadKind, ...] = ("Deployment", "StatefulSet", "DaemonSet")


def workload(kind: WorkloadKind = "Deployment", *, revision: str | None = "1", pods: int = 2, **more: Any) -> Body:
    """A workload whose controller has seen everything, and all of whose pods are new and available."""
    annotations = {} if revision is None else {RESTART_ANNOTATION: revision}
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), pods)
    if kind == "DaemonSet":
        keys = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable")
        counts = dict.fromkeys(keys, pods)
    spec: Body = {
        "selector": {"matchLabels": {"app": "search"}},
        "template": {"metadata": {"annotations": annotations}, "spec": {}},
    }
    if kind != "DaemonSet":
        spec["replicas"] = pods
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "search", "namespace": "team-a", "uid": "u", "generation": 3, "resourceVersion": "9"}
        | more.get("metadata", {}),
        "spec": spec | more.get("spec", {}),
        "status": {"observedGeneration": 3} | counts | more.get("status", {}),
    }


def pod(name: str, *, of: str = "ReplicaSet search-1a2b", revision: str | None = "1", **more: Any) -> Body:
    """A pod that is ready."""
    kind, owner = of.split()
    metadata: Body = {
        "name": name,
        "namespace": "team-a",
        "labels": {"app": "search", "pod-template-hash": "1a2b"},
        "annotations": {} if revision is None else {RESTART_ANNOTATION: revision},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": True}],
        "creationTimestamp": "2026-05-01T12:00:00Z",
    }
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | more.get("metadata", {}),
        "spec": more.get("spec", {"containers": [{"name": "app"}]}),
        "status": status | more.get("status", {}),
    }


def ending(name: str, **more: Any) -> Body:
    return pod(name, metadata={"deletionTimestamp": "2026-05-01T12:01:00Z"}, **more)


# -- selectors and targets --


def test_a_selector_is_written_as_lists_take_it() -> None:
    assert label_selector(None) == label_selector({}) == ""
    assert label_selector({"matchLabels": {"b": "2", "a.example/x": ""}}) == "a.example/x=,b=2"
    expressions = [
        {"key": "tier", "operator": "In", "values": ["web", "api"]},
        {"key": "env", "operator": "NotIn", "values": ["dev"]},
        {"key": "app", "operator": "Exists"},
        {"key": "canary", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"a": "1"}, "matchExpressions": expressions}
    assert label_selector(selector) == "a=1,tier in (web,api),env notin (dev),app,!canary"


@pytest.mark.parametrize(
    "labels",
    [{"a": "x,b=y"}, {"a": "x)"}, {"a,b": "x"}, {"": "x"}, {"a": "-"}, {"a": "x" * 64}, {"a\n": "x"}],
    ids=["comma", "bracket", "comma-in-key", "no-key", "dash", "long", "line"],
)
def test_what_cannot_be_a_label_selects_nothing_else(labels: dict[str, str]) -> None:
    with pytest.raises(Terminal, match="cannot be the") as refused:
        label_selector({"matchLabels": labels})
    assert refused.value.reason == "InvalidSpec"


def test_a_target_has_either_a_name_or_labels() -> None:
    refused: tuple[Body, ...] = ({}, {"name": "a", "match_labels": {"b": "c"}}, {"match_labels": {}}, {"name": ""})
    for given in refused:
        with pytest.raises(ValueError, match="either a name or labels"):
            Target("Deployment", "team-a", **given)


async def test_targets_that_overlap_are_one_workload_in_a_stable_order() -> None:
    api = ApiDouble()
    for kind, name in (("StatefulSet", "a"), ("Deployment", "b"), ("Deployment", "a"), ("Deployment", "c")):
        labels = {} if name == "c" else {"team": "search"}
        api.apply({"kind": kind, "metadata": {"name": name, "namespace": "team-a", "labels": labels}, "spec": {}})
    targets = [
        Target("StatefulSet", "team-a", name="a"),
        Target("Deployment", "team-a", match_labels={"team": "search"}),
        Target("Deployment", "team-a", name="b"),
    ]
    for order in (targets, targets[::-1]):
        found = await find_workloads(api.client(), order)
        assert [(item["kind"], item["metadata"]["name"]) for item in found] == [
            ("Deployment", "a"),
            ("Deployment", "b"),
            ("StatefulSet", "a"),
        ]


# -- one annotation, several Secrets --


async def test_revisions_of_several_secrets_stand_side_by_side() -> None:
    api = ApiDouble()
    api.apply(workload(revision=None))
    for secret, number, expected in (
        ("search", "7", "search=7"),
        ("pg", "1-100", "pg=1-100,search=7"),
        ("search", "8", "pg=1-100,search=8"),
    ):
        (found,) = await find_workloads(api.client(), [Target("Deployment", "team-a", name="search")])
        assert await restart(api.client(), found, scoped(secret, number)) is True
        made = api.get_now("Deployment", "team-a", "search")
        assert template_revision(made) == expected
        assert await restart(api.client(), made, scoped(secret, number)) is False
    made["status"]["observedGeneration"] = made["metadata"]["generation"]
    assert judge(made, [pod("a", revision="pg=1-100,search=8")], "pg=1-100").done
    # Made by the restart for the other Secret, and newer than this one's all the same.
    assert judge(made, [pod("a", revision="pg=1-100,search=7")], "pg=1-100").done
    for other in ("search=7", "search=88", "8", "earch=8"):
        assert judge(made, [], other).reverted
    assert not judge(made, [ending("a", revision="pg=1-100,search=7")], "search=8").done


async def test_a_revision_that_another_wrote_meanwhile_is_not_lost() -> None:
    api = ApiDouble()
    stale = api.apply(workload(revision=None))
    await restart(api.client(), stale, "pg=1")
    assert await restart(api.client(), stale, "search=7") is True
    assert template_revision(api.get_now("Deployment", "team-a", "search")) == "pg=1,search=7"
    assert await restart(api.client(), stale, "search=7") is False


# -- what cannot be waited for --


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_workload_is_not_refused(kind: WorkloadKind) -> None:
    assert refusal(workload(kind)) is None
    assert refusal(workload(kind, pods=0)) is None


def test_a_recreating_deployment_and_an_empty_partition_are_not_refused() -> None:
    assert refusal(workload(spec={"strategy": {"type": "Recreate"}})) is None
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert refusal(workload("StatefulSet", spec={"updateStrategy": strategy})) is None


def test_a_workload_whose_rollout_would_not_end_is_refused_with_what_to_change() -> None:
    paused = workload(spec={"paused": True})
    partitioned = workload("StatefulSet", spec={"updateStrategy": {"rollingUpdate": {"partition": 2}}})
    assert "Deployment team-a/search is paused" in (refusal(paused) or "")
    assert "its pods below 2 keep the old template" in (refusal(partitioned) or "")
    for kind in KINDS[1:]:
        by_hand = workload(kind, spec={"updateStrategy": {"type": "OnDelete"}})
        assert f"{kind} team-a/search replaces a pod only when somebody deletes it" in (refusal(by_hand) or "")


# -- whose a pod is --


def test_a_deployments_pods_are_those_of_its_replicasets() -> None:
    deployment = workload()
    assert belongs(pod("a"), deployment)
    assert not belongs(pod("a", of="ReplicaSet search-canary-1a2b"), deployment)
    assert not belongs(pod("a", of="StatefulSet search"), deployment)
    assert not belongs(pod("a", metadata={"labels": {}}), deployment)
    assert not belongs(pod("a", metadata={"ownerReferences": []}), deployment)
    assert not belongs(pod("a", metadata={"ownerReferences": None}), deployment)
    foreign = {"apiVersion": "apps.example.org/v1", "kind": "ReplicaSet", "name": "search-1a2b", "controller": True}
    assert not belongs(pod("a", metadata={"ownerReferences": [foreign]}), deployment)


def test_a_replicaset_of_a_long_name_is_cut_to_the_longest_that_there_is() -> None:
    deployment = workload(metadata={"name": "d" * 253})
    assert belongs(pod("a", of=f"ReplicaSet {'d' * 248}-1a2b"), deployment)


def test_pods_of_sets_are_told_by_their_owner() -> None:
    for kind in KINDS[1:]:
        made = workload(kind)
        assert belongs(pod("a", of=f"{kind} search"), made)
        assert not belongs(pod("a", of=f"{kind} other"), made)
        assert not belongs(pod("a"), made)


# -- how far a rollout is --

OWNERS = {"Deployment": "ReplicaSet search-1a2b", "StatefulSet": "StatefulSet search", "DaemonSet": "DaemonSet search"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_is_through_when_counts_and_pods_say_so(kind: WorkloadKind) -> None:
    made, of = workload(kind), OWNERS[kind]
    assert judge(made, [pod("a", of=of), pod("b", of=of)], "1") == RolloutProgress(
        True, f"{kind} team-a/search: all 2 pods are of the new template and available"
    )
    assert judge(made, [pod("x", of=of, revision="0", status={"phase": "Failed"})], "1").done
    assert judge(made, [pod("x", of="ReplicaSet other-1a2b", revision="0")], "1").done
    for old in (None, "0"):
        still = judge(made, [ending("x", of=of, revision=old)], "1")
        assert (still.done, still.failed) == (False, None)
        assert "pod x of the old one is still terminating" in still.message


@pytest.mark.parametrize("kind", KINDS)
def test_each_count_that_lags_is_waited_for(kind: WorkloadKind) -> None:
    made = workload(kind)
    for key in made["status"]:
        if key in ("readyReplicas", "numberReady"):
            continue
        for less in (0, made["status"][key] - 1):
            lagging = copy.deepcopy(made)
            lagging["status"][key] = less
            assert not judge(lagging, [], "1").done, key
    absent = workload(kind)
    absent.pop("status")
    assert judge(absent, [], "1").message.endswith("its controller has not seen the restart yet")


def test_a_statefulset_of_an_older_api_server_counts_ready_pods() -> None:
    older = workload("StatefulSet")
    del older["status"]["availableReplicas"]
    assert judge(older, [], "1").done
    older["spec"]["minReadySeconds"] = 5
    assert not judge(older, [], "1").done


def test_surplus_pods_are_waited_for() -> None:
    assert not judge(workload(status={"replicas": 3}), [], "1").done
    assert not judge(workload(status={"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}), [], "1").done


def test_what_is_waited_for_is_named() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "secret-looking text"}}}
    found = [
        ending("old-1", revision="0"),
        *(pod(f"old-{number}", revision=None) for number in range(2, 7)),
        pod("new-1", status={"conditions": [unschedulable]}),
        pod("new-2", status={"conditions": [], "containerStatuses": [waiting]}),
        pod("new-3", status={"conditions": [{"type": "Ready", "status": "False", "reason": "x y\nz"}]}),
        ending("new-4", status={"conditions": []}),
    ]
    told = judge(workload(status={"updatedReplicas": 1, "availableReplicas": 0}), found, "1")
    assert told.message == (
        "Deployment team-a/search: 1 of 2 pods are of the new template, 0 available; "
        "pod old-1 of the old one is still terminating; "
        "pods old-2, old-3, old-4 and 2 more of the old one are still there; "
        "pod new-1 is not ready (Unschedulable); "
        "pod new-2 is not ready (ImagePullBackOff); "
        "pod new-3 is not ready"
    )


def test_a_rollout_that_will_not_end_by_itself_says_why() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    quota = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
    for condition, words in ((late, "no progress for 600 s"), (quota, "FailedCreate: look at the events")):
        told = judge(workload(status={"updatedReplicas": 1, "conditions": [condition]}), [], "1")
        assert not told.done
        assert words in (told.failed or "")
    assert judge(workload(status={"conditions": [late]}), [], "1") == RolloutProgress(
        True, "Deployment team-a/search: all 2 pods are of the new template and available"
    )


def test_a_template_that_somebody_else_wrote_is_told_with_who_did() -> None:
    template: Body = {"f:spec": {"f:template": {}}}
    fields = [
        {"manager": "kubectl", "time": "2026-05-01T12:00:00Z", "fieldsV1": template},
        {"manager": "git-sync", "time": "2026-05-01T12:05:00Z", "fieldsV1": template},
        {"manager": "autoscaler", "time": "2026-05-01T12:06:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {"manager": "controller", "time": "2026-05-01T12:07:00Z", "fieldsV1": template, "subresource": "status"},
    ]
    told = judge(workload(revision="0", metadata={"managedFields": fields}), [], "1")
    assert (told.done, told.reverted) == (False, True)
    assert told.message == (
        "Deployment team-a/search: its pod template carries revision 0 of the key instead of 1; field manager git-sync "
        "wrote the workload last"
    )
    several = judge(workload(revision="pg=1,search=7"), [], "search=8")
    assert several.message.endswith("carries revision search=7 of the key instead of search=8")
    assert judge(workload(revision="pg=1"), [], "search=8").message.endswith(
        "no revision of the key instead of search=8"
    )
    assert judge(workload(revision=None), [], "1").message.endswith("carries no revision of the key instead of 1")


async def test_a_workload_that_is_gone_is_done_and_one_that_goes_is_waited_for() -> None:
    api, name = ApiDouble(), WorkloadName("Deployment", "team-a", "search")
    assert await progress(api.client(), name, "1") == RolloutProgress(True, f"{name} no longer exists")
    going = workload(metadata={"deletionTimestamp": "2026-05-01T12:00:00Z"})
    assert judge(going, [pod("a")], "1").message == f"{name} is being deleted; pod a is still there"
    assert judge(going, [], "1").done


# -- faults of the API server --


def denied(message: str, status: int = 403, reason: str = "Forbidden") -> bytes:
    return answer(status, {"kind": "Status", "code": status, "reason": reason, "message": message})


WITHOUT_RIGHT = (
    'deployments.apps "search" is forbidden: User "x" cannot patch resource "deployments" in API group "apps"'
)
BY_WEBHOOK = 'admission webhook "policy.example.org" denied the request: templates may not change on Fridays'


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        (denied(WITHOUT_RIGHT), "RestartTargetForbidden", "in namespace team-a: apply the Role of deploy/kustomize"),
        (denied(BY_WEBHOOK), "RestartRefused", "search cannot be restarted: .*on Fridays"),
        (denied("ValidatingAdmissionPolicy denied", 422, "Invalid"), "RestartRefused", "denied"),
        (denied(BY_WEBHOOK, 400, "BadRequest"), "RestartRefused", "on Fridays"),
    ],
    ids=["right", "webhook", "policy", "bad-request"],
)
async def test_a_restart_that_is_refused_says_by_whom(raw: bytes, reason: str, words: str) -> None:
    made = workload(revision=None)

    def script(_: int, line: str) -> bytes:
        return raw if line.startswith("PATCH") else answer(200, made)

    async with scripted(script) as (url, _), KubeClient(KubeConnection(server=url)) as client:
        with pytest.raises(Terminal, match=words) as refused:
            await restart(client, made, "1")
    assert refused.value.reason == reason


async def test_a_busy_api_server_is_retryable_in_every_call() -> None:
    made, name = workload(revision=None), WorkloadName("Deployment", "team-a", "search")
    async with (
        scripted(lambda _n, _l: denied("starting", 503, "ServiceUnavailable")) as (url, _),
        KubeClient(KubeConnection(server=url)) as client,
    ):
        for call in (
            find_workloads(client, [Target("Deployment", "team-a", name="search")]),
            restart(client, made, "1"),
            progress(client, name, "1"),
        ):
            with pytest.raises(Retryable):
                await call


async def test_a_conflict_about_a_workload_that_is_there_is_retryable() -> None:
    api, made = ApiDouble(), workload(revision=None)
    made = api.apply(made)
    api.before_write = lambda _: Conflict("patch deployments/search: changed")
    with pytest.raises(Retryable):
        await restart(api.client(), made, "1")
    stored = api.objects["Deployment", "team-a", "search"]
    stored["metadata"]["uid"] = "another"
    with pytest.raises(Retryable) as replaced:
        await restart(api.client(), made, "1")
    assert replaced.value.reason == "RestartTargetReplaced"
    api.remove("Deployment", "team-a", "search")
    assert await restart(api.client(), made, "1") is False
