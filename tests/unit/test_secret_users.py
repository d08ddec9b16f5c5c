"""Pods that may hold an earlier value of a Secret.

What is checked: every way in which a container gets a Secret, and what does not count; what is older than a value, to
the second; pods that have ended and pods that are ending; who is named; long lists, dropped page by page.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tests.support.api_double import ApiDouble
from tests.support.scripted_http import answer, scripted

from vectorwright.errors import Terminal
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.secret_users import Holder, holders, is_older, refers_to
from vectorwright.kube.workloads import RESTART_ANNOTATION

Body = dict[str, Any]
NOON = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
FROM_ENV: Body = {"env": [{"name": "A", "value": "b"}, {"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys"}}}]}
USES: Body = {"containers": [{"name": "app", **FROM_ENV}]}


def pod(name: str = "a", *, created: datetime = NOON, revision: str | None = None, **more: Any) -> Body:
    annotations = {} if revision is None else {RESTART_ANNOTATION: revision}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "creationTimestamp": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "annotations": annotations,
            **more.get("metadata", {}),
        },
        "spec": more.get("spec", USES),
        "status": {"phase": more.get("phase", "Running")},
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "v"}, {"name": "k", "secret": {"secretName": "keys"}}]},
        {"volumes": [{"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "keys"}}]}}]},
        {"containers": [{}, FROM_ENV]},
        {"containers": [{"envFrom": [{"configMapRef": {"name": "x"}}, {"secretRef": {"name": "keys"}}]}]},
        {"containers": [{}], "initContainers": [FROM_ENV]},
        {"containers": [{}], "ephemeralContainers": [FROM_ENV]},
    ],
    ids=["volume", "projected", "env", "envFrom", "init", "ephemeral"],
)
def test_every_way_to_a_container_counts(spec: Body) -> None:
    assert refers_to(pod(spec=spec), "keys")
    assert not refers_to(pod(spec=spec), "key")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"imagePullSecrets": [{"name": "keys"}]},
        {"volumes": [{"csi": {"driver": "d", "nodePublishSecretRef": {"name": "keys"}}}]},
        {"volumes": [{"configMap": {"name": "keys"}}]},
        {"volumes": None, "containers": [{"env": None, "envFrom": None}]},
        {"containers": [{"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "keys"}}}]}]},
        {"containers": [{"env": [{"name": "A", "value": "keys"}]}]},
    ],
    ids=["nothing", "pull", "csi", "config-map", "nulls", "config-map-key", "value"],
)
def test_what_no_container_gets_does_not_count(spec: Body) -> None:
    assert not refers_to(pod(spec=spec), "keys")


def test_age_is_told_to_the_second() -> None:
    second = timedelta(seconds=1)
    later = NOON + timedelta(milliseconds=900)
    for published in (NOON, later, NOON.astimezone(timezone(timedelta(hours=9)))):
        assert is_older(pod(created=NOON - second), published, "1")
        assert not is_older(pod(created=NOON + 3 * second), published, "1")
        # So soon afterwards that its node may not have heard: an earlier one, unless it carries the revision.
        assert is_older(pod(created=NOON + second), published, "1")
        assert not is_older(pod(created=NOON + second, revision="1"), published, "1")
        assert is_older(pod(revision="0"), published, "1")
        assert is_older(pod(), published, "1")
        assert not is_older(pod(revision="1"), published, "1")
    # A revision that a person wrote on a pod does not make it younger.
    assert is_older(pod(created=NOON - second, revision="1"), NOON, "1")


def test_pods_that_have_ended_hold_nothing() -> None:
    for phase in ("Pending", "Running", "Unknown"):
        assert is_older(pod(phase=phase), NOON, "1")
    for phase in ("Succeeded", "Failed"):
        assert not is_older(pod(phase=phase), NOON, "1")


async def test_holders_are_named_the_oldest_first() -> None:
    api = ApiDouble()
    owner = {"kind": "ReplicaSet", "name": "search-1", "controller": True}
    guard = {"kind": "Thing", "name": "x"}
    minute = timedelta(minutes=1)
    for body in (
        pod("young", metadata={"ownerReferences": [guard, owner], "deletionTimestamp": "2026-05-01T12:05:00Z"}),
        pod("old", created=NOON - minute, metadata={"ownerReferences": [guard]}),
        pod("younger", created=NOON + minute),
        pod("stranger", spec={"containers": [{}]}),
        pod("elsewhere", metadata={"namespace": "team-b"}),
    ):
        api.apply(body)
    found = await holders(api.client(), "team-a", "keys", NOON, "1")
    assert found == [
        Holder("old", None, NOON - minute),
        Holder("young", "ReplicaSet search-1", NOON, terminating=True),
    ]
    assert [str(holder) for holder in found] == ["pod old", "pod young of ReplicaSet search-1 (terminating)"]


async def test_pages_are_asked_for_and_those_that_have_ended_are_not() -> None:
    def script(number: int, _: str) -> bytes:
        more = "t1" if number == 1 else ""
        items = [pod(f"p{number}"), pod(f"s{number}", spec={"containers": []})]
        return answer(200, {"metadata": {"resourceVersion": "5", "continue": more}, "items": items})

    async with scripted(script) as (url, seen), KubeClient(KubeConnection(server=url)) as client:
        found = await holders(client, "team-a", "keys", NOON, "1")
    assert [holder.pod for holder in found] == ["p1", "p2"]
    assert all("fieldSelector=status.phase!%3DSucceeded,status.phase!%3DFailed" in line for line in seen)
    assert "continue=t1" in seen[1]


async def test_a_right_that_is_wanting_is_named() -> None:
    message = 'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "team-a"'
    raw = answer(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": message})
    async with scripted(lambda _n, _l: raw) as (url, _), KubeClient(KubeConnection(server=url)) as client:
        with pytest.raises(Terminal, match="may not list pods in namespace team-a") as refused:
            await holders(client, "team-a", "keys", NOON, "1")
    assert refused.value.reason == "PodsForbidden"
