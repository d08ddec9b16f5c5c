"""Restarts of those who use a key, by the operator itself on a real API server whose controllers replace real pods.

- Each target, by name and by label, is restarted once a rotation and never twice: not after a restart of the operator,
  a lost status or a lost state, and not under tools that apply manifests again. We own the one annotation.
- The key before stays until no pod of the old template is left, terminating ones included, and until no pod that is
  older than the publication uses the Secret, whoever made it and however it does; those are named.
- What could not be waited for is refused before anything is made, and when it becomes so in the middle.
- A rollout that fails or takes too long stalls the rotation; nothing is revoked, and it goes on once that is mended.
- A target that is not there, goes, or is added in the middle; labels that match nothing; two rotations of one workload.
- A tool that takes the annotation away is told, and not fought with each second.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import kubernetes
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.support.apps import MOUNTED, Apps
from tests.support.pods import PodKeeper
from tests.support.rotation_stores import until
from tests.support.rotations import Rotation, make_anywhere
from tests.support.vectorwright import Resources
from tests.support.workloads import Manifest, changed, kubectl_apply

from vectorwright.kube.workloads import FIELD_MANAGER, RESTART_ANNOTATION, WorkloadKind

pytestmark = pytest.mark.cluster

BEFORE = {"name": "published", "data": {"before": "${previousToken}"}}
"""A Secret that shows which token is still valid besides the new one."""


@pytest.fixture
def keeper(resources: Resources) -> Iterator[PodKeeper]:
    """Keeps the pods beside the shared operator."""
    kept = PodKeeper(resources.cluster, resources.namespace)
    kept.start()
    try:
        yield kept
    finally:
        kept.stop()


@pytest.fixture
def apps(resources: Resources, keeper: PodKeeper) -> Apps:
    make_anywhere(resources)
    return Apps(resources, keeper)


@pytest.fixture
def rotation(resources: Resources) -> Rotation:
    return Rotation(resources)


def named(kind: str, name: str) -> Manifest:
    return {"kind": kind, "name": name}


EACH: tuple[tuple[WorkloadKind, str], ...] = (
    ("Deployment", "api"),
    ("StatefulSet", "db"),
    ("DaemonSet", "agent"),
    ("Deployment", "labelled"),
)


def test_each_is_restarted_once_whatever_becomes_of_operator_status_and_state(
    devcluster: Cluster, crds: list[str], namespace: str, own_operator: TrialOperator, pod_keeper: PodKeeper
) -> None:
    assert crds
    resources = Resources(devcluster, namespace, own_operator.start())
    make_anywhere(resources)
    apps, rotation = Apps(resources, pod_keeper), Rotation(resources)
    for kind, name in EACH:
        apps.make(kind, name)
    apps.patch("Deployment", "labelled", {"metadata": {"labels": {"keys": "published"}}})
    selected = {"kind": "Deployment", "selector": {"matchLabels": {"keys": "published"}}}
    rotation.make(rolloutRestartTargets=[*(named(*each) for each in EACH[:3]), selected], secret=BEFORE)
    rotation.idle(1)
    rotation.request()
    status = rotation.idle(2)
    label = apps.carried("Deployment", "api")
    assert label.startswith("published=2-")
    only: Manifest = {"f:spec": {"f:template": {"f:metadata": {"f:annotations": {f"f:{RESTART_ANNOTATION}": {}}}}}}

    def check() -> None:
        for kind, name in EACH:
            body = apps.read(kind, name)
            assert (kind, apps.carried(kind, name)) == (kind, label)
            assert (kind, body["metadata"]["generation"]) == (kind, 3)
            ours = [entry for entry in body["metadata"]["managedFields"] if entry["manager"] == FIELD_MANAGER]
            assert [(entry["operation"], entry["fieldsV1"]) for entry in ours] == [("Apply", only)]

    check()
    assert all(pod.metadata.annotations[RESTART_ANNOTATION] == label for pod in apps.pods())
    own_operator.stop()
    custom: Any = kubernetes.client.CustomObjectsApi(resources.core.api_client)
    nothing = {"status": None}
    custom.patch_namespaced_custom_object_status(
        "vectorwright.dev", "v1alpha1", namespace, "apikeyrotations", "rotation", nothing
    )
    resources.core.delete_namespaced_secret("rotation.key-rotation", namespace)
    own_operator.start()
    again = rotation.idle(2)
    assert (again["current"], again["revision"]) == (status["current"], 2)
    check()
    # And a rotation after that restarts each of them once more.
    rotation.request()
    rotation.idle(3)
    assert {apps.generation(*each) for each in EACH} == {4}
    resources.close()


def test_terminating_pods_are_waited_for(apps: Apps, rotation: Rotation) -> None:
    apps.make("StatefulSet", "db")
    rotation.make(rolloutRestartTargets=[named("StatefulSet", "db")], secret=BEFORE)
    rotation.idle(1)
    token = rotation.values["token"]
    apps.keeper.hold.set()
    rotation.request()
    told = rotation.blocked("still terminating")
    assert "StatefulSet" in told
    assert "pod db-1 of the old one is still terminating" in told
    assert rotation.status["step"] == "Wait"
    assert rotation.values["before"] == token
    # What applies its manifests again meanwhile restarts nothing.
    before = apps.generation("StatefulSet", "db")
    body = apps.body("StatefulSet", "db")
    kubectl_apply(apps.cluster, apps.namespace, body, "--server-side", "--field-manager=argocd", "--force-conflicts")
    kubectl_apply(apps.cluster, apps.namespace, body)
    kubectl_apply(apps.cluster, apps.namespace, changed(body, replicas=1))
    apps.keeper.hold.clear()
    rotation.idle(2)
    assert apps.carried("StatefulSet", "db").startswith("published=2-")
    assert apps.generation("StatefulSet", "db") == before + 1  # the change of the manifest
    assert rotation.values["before"] == ""
    assert "RestartReverted" not in rotation.reasons()


USES: dict[str, Manifest] = {
    "volume": {"spec": MOUNTED},
    "projected": {
        "spec": {"volumes": [{"name": "a", "projected": {"sources": [{"secret": {"name": "published"}}]}}]},
    },
    "env": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "published", "key": "token"}}}]},
    "env-from": {"envFrom": [{"secretRef": {"name": "published"}}]},
    "init": {
        "spec": {"initContainers": [{"name": "i", "image": "i:1", "envFrom": [{"secretRef": {"name": "published"}}]}]}
    },
}


def test_older_pods_that_use_the_secret_hold_the_revocation_back(
    resources: Resources, apps: Apps, rotation: Rotation
) -> None:
    rotation.make(secret=BEFORE)
    rotation.idle(1)
    token = rotation.values["token"]
    apps.pod("another", {"volumes": [{"name": "key", "secret": {"secretName": "another"}}]})
    apps.pod("pulls", {"imagePullSecrets": [{"name": "published"}]})
    for name, use in USES.items():
        apps.pod(name, use.get("spec", {}), **{part: value for part, value in use.items() if part != "spec"})
    template = apps.keeper.placed({"spec": {**MOUNTED, "containers": [{"name": "a", "image": "a:1"}]}})
    template["spec"]["restartPolicy"] = "Never"
    batch: Any = resources.batch
    batch.create_namespaced_job(apps.namespace, {"metadata": {"name": "import"}, "spec": {"template": template}})
    holding = {*USES, "import"}
    until(lambda: sum(pod.status.phase == "Running" for pod in apps.pods()) == len(holding) + 2)
    time.sleep(1)  # creation times are whole seconds
    rotation.request()
    seen: set[str] = set()
    while len(seen) < len(holding):
        told = rotation.wait(lambda status: "older than the new key" in status.get("blockedBy", ""))["blockedBy"]
        assert "another" not in told
        assert "pulls" not in told
        left = len(holding) - len(seen)
        assert (f"and {left - 3} more" in told) == (left > 3)
        told_names = {
            part.split()[1] for part in told.split(": ", 1)[1].replace(" and ", ", ").split(", ") if "pod " in part
        }
        assert len(told_names) == min(3, left)
        assert rotation.values["before"] == token
        for pod in told_names:
            seen.add("import" if pod.startswith("import-") else pod)
            if pod.startswith("import-"):
                assert f"pod {pod} of Job import" in told
                batch.delete_namespaced_job("import", apps.namespace, propagation_policy="Background")
            else:
                apps.core.delete_namespaced_pod(pod, apps.namespace)
        if len(seen) < len(holding):
            until(lambda: len(apps.pods()) == len(holding) - len(seen) + 2)
            rotation.wait(lambda status: "more" not in status.get("blockedBy", "more"))
    assert seen == holding
    rotation.idle(2)
    assert rotation.values["before"] == ""
    assert {pod.metadata.name for pod in apps.pods()} == {"another", "pulls"}
    assert "ConsumersRestarted" not in rotation.reasons()


REFUSED: dict[str, tuple[str, WorkloadKind, Manifest, Manifest]] = {
    "paused": ("is paused", "Deployment", {"paused": True}, {"paused": False}),
    "on-delete": (
        "OnDelete",
        "DaemonSet",
        {"updateStrategy": {"type": "OnDelete"}},
        {"updateStrategy": {"type": "RollingUpdate"}},
    ),
    "partition": (
        "is partitioned",
        "StatefulSet",
        {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}},
        {"updateStrategy": {"rollingUpdate": {"partition": 0}}},
    ),
}


def test_what_cannot_be_waited_for_is_refused_before_anything_is_made_and_in_the_middle(
    resources: Resources, apps: Apps
) -> None:
    rotations = {name: Rotation(resources, name, f"keys-{name}") for name in REFUSED}
    for name, (_, kind, spec, _) in REFUSED.items():
        apps.make(kind, name, **spec)
        rotations[name].make(
            rolloutRestartTargets=[named(kind, name)],
            secret={"name": f"keys-{name}", "data": {"before": "${previousToken}"}},
        )
    for name, (words, kind, _, mended) in REFUSED.items():
        assert words in rotations[name].stalled("RestartTargetRefused")
        assert not rotations[name].there()
        apps.patch(kind, name, {"spec": mended})
    for rotation in rotations.values():
        rotation.idle(1)  # by itself
    apps.keeper.hold.set()  # so that they are in the middle of it for a while
    for rotation in rotations.values():
        rotation.request()
    for name, (_, kind, spec, _) in REFUSED.items():
        rotations[name].wait(lambda status: status.get("step") == "Wait" and status.get("blockedBy"))
        apps.patch(kind, name, {"spec": spec})
    for name, (words, kind, _, mended) in REFUSED.items():
        assert words in rotations[name].stalled("RestartTargetRefused")
        assert rotations[name].status["previous"]["revision"] == 1
        assert rotations[name].values["before"]
        apps.patch(kind, name, {"spec": mended})
    apps.keeper.hold.clear()
    for rotation in rotations.values():
        rotation.idle(2)


def test_a_rollout_that_fails_or_never_ends_stalls_and_goes_on_once_mended(resources: Resources, apps: Apps) -> None:
    apps.make("Deployment", "api", progressDeadlineSeconds=2)
    apps.make("StatefulSet", "db")
    one, two = Rotation(resources, "one", "keys-one"), Rotation(resources, "two", "keys-two")
    data = {"before": "${previousToken}"}
    one.make(rolloutRestartTargets=[named("Deployment", "api")], secret={"name": "keys-one", "data": data})
    two.make(
        rolloutRestartTargets=[named("StatefulSet", "db")],
        secret={"name": "keys-two", "data": data},
        rolloutTimeout="3s",
    )
    tokens = [rotation.values["token"] for rotation in (one, two) if rotation.idle(1)]
    apps.keeper.never_ready = lambda pod: "=2-" in (pod.metadata.annotations or {}).get(RESTART_ANNOTATION, "")
    for rotation in (one, two):
        rotation.request()
    assert "ProgressDeadlineExceeded" in one.stalled("RolloutFailed")
    until(lambda: "not ready (CrashLoopBackOff)" in two.stalled("RolloutTimeout"))  # at first the old one is ending
    for rotation, token in zip((one, two), tokens, strict=True):
        assert rotation.values["before"] == token
        body = rotation.get()["status"]
        assert (body["step"], body["previous"]["revision"], body["revision"]) == ("Wait", 1, 2)
        assert body["failedAttempts"] >= 1
        assert rotation.condition("Ready")["status"] == "True"
        assert "KeyRevoked" not in rotation.reasons()
    apps.keeper.never_ready = lambda _: False
    for rotation in (one, two):
        rotation.idle(2)
        assert rotation.values["before"] == ""
        assert not rotation.condition("Stalled")
    assert (apps.generation("Deployment", "api"), apps.generation("StatefulSet", "db")) == (3, 3)


def test_a_target_that_is_missing_goes_or_is_added_in_the_middle(apps: Apps, rotation: Rotation) -> None:
    rotation.make(rolloutRestartTargets=[named("Deployment", "api")], secret=BEFORE)
    assert "Deployment" in rotation.stalled("RestartTargetNotFound")
    assert not rotation.there()
    apps.make("Deployment", "api")
    rotation.idle(1)
    token = rotation.values["token"]
    apps.keeper.hold.set()
    rotation.request()
    rotation.blocked("still terminating")
    apps.make("Deployment", "added")
    until(lambda: sum(pod.status.phase == "Running" for pod in apps.pods("app=added")) == 2)
    rotation.change(rolloutRestartTargets=[named("Deployment", "api"), named("Deployment", "added")])
    until(lambda: apps.carried("Deployment", "added").startswith("published=2-"))
    apps.delete("Deployment", "api")
    assert "api does not exist" in rotation.stalled("RestartTargetNotFound")
    assert rotation.values["before"] == token
    rotation.change(rolloutRestartTargets=[named("Deployment", "added")])
    rotation.blocked("still terminating")
    apps.keeper.hold.clear()
    rotation.idle(2)
    assert rotation.values["before"] == ""
    assert apps.generation("Deployment", "added") == 2
    assert "RestartReverted" not in rotation.reasons()


def test_labels_that_match_nothing_do_not_stand_for_an_overlap(apps: Apps, rotation: Rotation) -> None:
    labels = {"keys": "published"}
    selected = {"kind": "Deployment", "selector": {"matchLabels": labels}}
    rotation.make(rolloutRestartTargets=[selected], overlap=None, secret=BEFORE)
    rotation.idle(1)  # whoever is to use the first key may not be there yet
    token = rotation.values["token"]
    rotation.request()
    assert "match no workload" in rotation.stalled("RestartTargetNotFound")
    assert rotation.values["token"] == token
    apps.make("Deployment", "api")
    apps.patch("Deployment", "api", {"metadata": {"labels": labels}})
    rotation.nudge()
    rotation.idle(2)
    assert apps.generation("Deployment", "api") == 2
    # They lose their label in the middle: the key before stays.
    token = rotation.values["token"]
    apps.keeper.hold.set()
    rotation.request()
    rotation.blocked("still terminating")
    apps.patch("Deployment", "api", {"metadata": {"labels": {"keys": None}}})
    assert "match no workload" in rotation.stalled("RestartTargetNotFound")
    apps.keeper.hold.clear()
    until(lambda: len(apps.pods()) == 2)
    rotation.looked_at()
    assert rotation.values["before"] == token
    rotation.change(overlap="0s")
    rotation.idle(3)
    assert rotation.values["before"] == ""


def test_two_rotations_restart_one_workload_once_each(resources: Resources, apps: Apps) -> None:
    apps.make("Deployment", "api")
    pair = [Rotation(resources, name, f"keys-{name}") for name in ("one", "two")]
    for rotation in pair:
        rotation.make(rolloutRestartTargets=[named("Deployment", "api")])
    for rotation in pair:
        rotation.idle(1)
    for rotation in pair:
        rotation.request()
    for rotation in pair:
        rotation.idle(2)
        assert "RestartReverted" not in rotation.reasons()
    first, second = apps.carried("Deployment", "api").split(",")
    assert first.startswith("keys-one=2-")
    assert second.startswith("keys-two=2-")
    assert apps.generation("Deployment", "api") == 5


def test_who_takes_the_annotation_away_is_told_and_not_fought_with_each_second(apps: Apps, rotation: Rotation) -> None:
    apps.make("Deployment", "api")
    rotation.make(rolloutRestartTargets=[named("Deployment", "api")], secret=BEFORE)
    rotation.idle(1)
    token = rotation.values["token"]
    nothing = {"spec": {"template": {"metadata": {"annotations": {RESTART_ANNOTATION: None}}}}}
    reverted: list[float] = []
    stop = threading.Event()

    def fight() -> None:
        while not stop.wait(0.02):
            if "=2-" in apps.carried("Deployment", "api"):
                apps.patch("Deployment", "api", nothing)
                reverted.append(time.monotonic())

    fighting = threading.Thread(target=fight)
    fighting.start()
    try:
        rotation.request()
        until(lambda: len(reverted) >= 3, 60)  # at first it does not know that somebody does this
        status = rotation.status
    finally:
        stop.set()
        fighting.join()
    assert all(later - earlier > 5 for earlier, later in itertools.pairwise(reverted[1:]))
    assert (status["step"], rotation.values["before"]) == ("Wait", token)
    assert "Deployment" in rotation.resources.wait_event(rotation.name, "RestartReverted")
    rotation.idle(2)
    assert apps.carried("Deployment", "api").startswith("published=2-")
    assert json.dumps(rotation.values).count("vw_") == 1
