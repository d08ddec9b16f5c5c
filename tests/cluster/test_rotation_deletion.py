"""What becomes of keys and Secrets that are not to stay, by the operator itself on a real API server: Weaviate's, and
those of a double of Qdrant Cloud.

- The resource deleted at each step: keys and Secret stay or go as the policy says, and nothing of its own is left; a
  key that nobody got is ended.
- Without the store a deletion waits, and can be released; where nothing was made there is nothing to wait for.
- A new key that is never accepted is not published, and is ended with the resource.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.rotation.cases import IssuerCase
from tests.rotation.issuers import over
from tests.support.rotation_stores import CREATE, Scene, chosen, team
from tests.support.rotations import Rotation
from tests.support.vectorwright import Body

pytestmark = [pytest.mark.cluster, pytest.mark.server]


@pytest.fixture
def scene(served_cluster: Cluster, trial_operator: TrialOperator, case: IssuerCase) -> Iterator[Scene]:
    with team(served_cluster, lambda _: trial_operator) as resources:
        yield Scene(resources, case)


def _pod_that_uses(scene: Scene, secret: str) -> None:
    """A pod that nothing starts, and that would use a Secret."""
    spec = {
        "automountServiceAccountToken": False,
        "schedulerName": "nobody",
        "containers": [{"name": "a", "image": "a:1", "envFrom": [{"secretRef": {"name": secret}}]}],
    }
    core: Any = scene.team.core
    core.create_namespaced_pod(scene.team.namespace, {"metadata": {"name": f"uses-{secret}"}, "spec": spec})


LATER: dict[str, Body] = {
    "Wait": {},
    "Grace": {"overlap": "1h"},
    "Revoke": {"revokePolicy": "ConfirmEach"},
    "VerifyRefused": {"refusalTimeout": "1h"},
}
"""Steps at which a second rotation is held, and what holds it there."""


@pytest.mark.parametrize("policy", ["Retain", "Revoke"])
@chosen("weaviate", "qdrantCloud")
def test_deleted_at_each_step_keys_and_secret_stay_or_go_as_the_policy_says(scene: Scene, policy: str) -> None:
    cloud = scene.case.identity == "qdrantCloud"
    before = scene.inventory()
    steps = [step for step in LATER if cloud or step != "VerifyRefused"]
    made = {step: scene.make(step.lower(), deletionPolicy=policy, **LATER[step]) for step in steps}
    made["Idle"] = scene.make("idle", deletionPolicy=policy)
    for rotation in made.values():
        rotation.idle(1)
    _pod_that_uses(scene, made["Wait"].secret)
    time.sleep(1)
    if cloud:
        scene.server.usable_until = 3600.0
    for step in steps:
        made[step].request()
    for step in steps:
        made[step].at(step, 2)
    # Those of which nothing was published yet, last: what holds them would hold the others, too.
    unpublished: dict[str, Rotation] = {}
    if cloud:
        scene.server.usable_after = 3600.0
        unpublished["Verify"] = scene.make("verify", deletionPolicy=policy)
        unpublished["Verify"].step("Verify")
    scene.server.operations.fail(CREATE[scene.case.identity], None, status=503, done=True)
    unpublished["Create"] = scene.make("create", deletionPolicy=policy)
    unpublished["Create"].wait(lambda status: status.get("step") == "Create" and status.get("failedAttempts"))
    values = {step: rotation.values for step, rotation in made.items()}
    ids = {step: rotation.status["current"]["id"] for step, rotation in made.items()}
    for rotation in (*made.values(), *unpublished.values()):
        rotation.resources.delete("APIKeyRotation", rotation.name)
    for rotation in (*made.values(), *unpublished.values()):
        rotation.resources.wait_gone("APIKeyRotation", rotation.name)
        assert not rotation.remembered
    assert not [rotation.name for rotation in unpublished.values() if rotation.there()]
    if policy == "Revoke":
        assert scene.inventory() == before
        assert not [step for step, rotation in made.items() if rotation.there()]
        return
    assert {step: rotation.values for step, rotation in made.items()} == values
    assert [step for step in made if not scene.accepted(values[step])] == []
    # The one in use, and the one before where it had not been revoked yet.
    assert len(scene.inventory() - before) == len(made) + len({"Wait", "Grace", "Revoke"})
    if not cloud:
        assert set(ids.values()) <= scene.inventory()


@chosen("weaviate")
def test_a_store_outlives_the_rotations_that_end_their_keys_there(scene: Scene) -> None:
    ending, staying = scene.make(deletionPolicy="Revoke"), scene.make("staying", deletionPolicy="Retain")
    ending.idle(1)
    kept = staying.idle(1)["current"]["id"]
    scene.team.delete("VectorStore", "store")
    told = scene.team.wait_condition("VectorStore", "store", "Reconciling", "True", "InUse")
    assert told.startswith("kept until APIKeyRotation rotation is deleted, which needs this store")
    # Keys go on turning, as long as the store is there.
    ending.request()
    last = ending.idle(2)["current"]["id"]
    assert last in scene.inventory()
    ending.delete()
    assert last not in scene.inventory()
    scene.team.wait_gone("VectorStore", "store")
    staying.delete()
    assert kept in scene.inventory()


@chosen("weaviate")
def test_without_the_store_a_deletion_waits_until_it_is_released(scene: Scene) -> None:
    rotation, never = (
        scene.make(deletionPolicy="Revoke"),
        scene.make("never", scene.case.wrong_admin(), deletionPolicy="Revoke"),
    )
    rotation.idle(1)
    never.stalled("AccessDenied")
    scene.case.exchanges.be("down")
    for name in ("rotation", "never"):
        scene.team.delete("APIKeyRotation", name)
    scene.team.wait_gone("APIKeyRotation", "never")  # nothing was made that could be left behind
    told = scene.team.wait("APIKeyRotation", "rotation", lambda body: "release" in str(body.get("status")))
    assert "vectorwright.dev/release=true" in str(told["status"]["conditions"])
    assert scene.inventory() != set()
    rotation.annotate(release="true")
    scene.team.wait_gone("APIKeyRotation", "rotation")
    assert not rotation.remembered


@over(lambda case: case.id in {"weaviate-InPlace", "postgres-InPlace"})
def test_in_place_the_last_key_ends_only_if_one_was_made(scene: Scene) -> None:
    wrong = scene.make("wrong", scene.case.wrong_admin(), deletionPolicy="Revoke")
    wrong.stalled("AccessDenied")
    wrong.delete()
    rotation = scene.make(deletionPolicy="Revoke")
    rotation.idle(1)
    values = rotation.values
    assert scene.accepted(values)
    rotation.delete()
    assert not rotation.there()
    assert not scene.accepted(values)


SHORTER = """
import importlib.machinery, sys
from datetime import timedelta

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "vectorwright.reconcile.rotation_issue":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def shorter(module):
            execute(module)
            module.VERIFY_PATIENCE, module.REMAKE_AFTER = timedelta(seconds=2), timedelta(seconds=1)
        spec.loader.exec_module = shorter
        return spec

sys.meta_path.insert(0, Finder())
"""
"""For the operator's own processes: patience that a test can wait for."""


@chosen("qdrantCloud")
def test_a_new_key_that_is_never_accepted_is_not_published_and_goes_with_the_resource(
    devcluster: Cluster, crds: list[str], case: IssuerCase, tmp_path: Path
) -> None:
    assert crds
    (tmp_path / "sitecustomize.py").write_text(SHORTER)
    (tmp_path / "operator").mkdir()
    made: list[TrialOperator] = []

    def start(namespace: str) -> TrialOperator:
        flags = ("--namespace", namespace, "--no-leader-election")
        directory, environment = tmp_path / "operator", {"PYTHONPATH": str(tmp_path)}
        made.append(TrialOperator(devcluster.kubeconfig, *flags, directory=directory, environment=environment))
        return made[0].start()

    try:
        with team(devcluster, start) as resources:
            scene = Scene(resources, case)
            scene.server.usable_after = 3600.0
            rotation = scene.make()
            told = rotation.stalled("NewKeyRefused")
            assert "nothing was published" in told
            assert not rotation.there()
            assert rotation.condition("Ready")["status"] == "False"
            assert len(scene.inventory()) == 1
            assert scene.server.operations.count("keys.create") == 3  # in case that another process made it anew
            rotation.delete()
            assert scene.inventory() == set()
    finally:
        for operator in made:
            operator.remove()
