"""What can be wrong with a rotation, by the operator itself on a real API server: real Weaviate and PostgreSQL, doubles
of Pinecone and Qdrant Cloud.

- An admin who is refused, or may not make keys, and a role that does not exist: told, nothing made, and it goes on once
  that is mended.
- A store that fails, or is gone in the middle of any call: few attempts, which are counted; then one rotation, one key.
- An old key that stays accepted: told, until it dies. The published key deleted by hand: replaced. Another role in the
  middle of it: the key is made once more.
- Pausing and `--read-only` do nothing; several missed times come to one rotation.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.rotation.cases import IssuerCase
from tests.rotation.issuers.postgres_roles import PostgresRolesCase
from tests.support.rotation_stores import CREATE, Scene, chosen, team
from tests.support.rotations import Rotation, make_anywhere
from tests.support.vectorwright import Body, Resources

from vectorwright.rotation.base import Assignment

pytestmark = [pytest.mark.cluster, pytest.mark.server]


@pytest.fixture
def scene(served_cluster: Cluster, trial_operator: TrialOperator, case: IssuerCase) -> Iterator[Scene]:
    with team(served_cluster, lambda _: trial_operator) as resources:
        yield Scene(resources, case)


@chosen()
def test_an_admin_or_a_role_that_will_not_do_is_told_and_can_be_mended(scene: Scene) -> None:
    case = scene.case
    right, before = case.assignment(), scene.inventory()
    bad: dict[str, tuple[Assignment, set[str]]] = {
        "wrong": (case.wrong_admin(), {"AccessDenied"}),
        "weak": (case.without_right(), {*case.right_reasons}),
        "missing": (case.missing_role(), {case.missing_reason}),
    }
    made = {name: scene.make(name, assignment) for name, (assignment, _) in bad.items()}
    for name, (_, reasons) in bad.items():
        body = made[name].wait(lambda status: status.get("failedAttempts"))
        (reason,) = {item["reason"] for item in body["conditions"] if item["type"] == "Stalled"}
        assert reason in reasons
        assert datetime.fromisoformat(body["lastFailureTime"])
        assert not made[name].there()
        assert "KeyCreated" not in made[name].reasons()
    assert scene.inventory() == before
    for name in ("wrong", "weak"):
        scene.admin(right, f"{name}-admin")  # the operator watches it
    if case.identity == "weaviate":
        identity: Body = dict(right.identity)
        made["missing"].change(identity={case.identity: identity})
    else:  # where it is, is for good
        made["missing"].delete()
        made["missing"] = scene.make("missing", right)
    for rotation in made.values():
        status = rotation.idle(1)
        assert not {"failedAttempts", "lastFailureTime"} & set(status)
        assert scene.accepted(rotation.values)
        assert not rotation.condition("Stalled")
    assert len(scene.inventory() - before) == 3


@chosen("weaviate", "pinecone")
def test_a_store_that_fails_after_the_deed_is_asked_seldom_and_no_orphan_is_left(scene: Scene) -> None:
    operations, create = scene.server.operations, CREATE[scene.case.identity]
    operations.fail(create, None, status=503, done=True)
    rotation = scene.make()
    rotation.wait(lambda status: status.get("failedAttempts", 0) >= 2)
    started, calls = time.monotonic(), operations.count(create)
    time.sleep(12)
    assert operations.count(create) - calls <= 8, f"in {time.monotonic() - started:.0f} s"
    status = rotation.status
    assert status["step"] == "Create"
    assert status["failedAttempts"] >= 3
    assert not rotation.there()
    operations.heal()
    rotation.nudge()
    rotation.idle(1)
    assert scene.inventory() == {rotation.status["current"]["id"]} or len(scene.inventory()) == 1
    assert scene.accepted(rotation.values)


@chosen()
def test_a_store_that_is_gone_in_the_middle_of_any_call_is_waited_for(scene: Scene) -> None:
    exchanges = scene.case.exchanges
    rotation = scene.make()
    rotation.idle(1)
    exchanges.lose(10**9)  # counts
    rotation.request()
    rotation.idle(2)
    count, most = exchanges.seen, 8
    assert count >= 5
    felt = 0
    for revision, at in enumerate(range(0, count, -(-count // most)), 3):
        old = rotation.values

        def is_through(status: Body, revision: int = revision) -> bool:
            return (status.get("step"), status.get("revision")) == ("Idle", revision)

        exchanges.lose(at)
        rotation.request()
        # Late ones may not come, and the very last ones need no answer.
        status = rotation.wait(lambda status: status.get("failedAttempts") or is_through(status))
        felt += bool(status.get("failedAttempts"))
        assert rotation.condition("Ready")["status"] == "True"
        assert scene.accepted(rotation.values)
        exchanges.heal()
        rotation.nudge()
        rotation.wait(is_through)
        assert len(scene.inventory()) == 1
        assert scene.accepted(rotation.values)
        assert not scene.accepted(old)
    assert felt >= 4


@chosen("postgres")
def test_a_server_that_is_stopped_is_waited_for(scene: Scene) -> None:
    rotation = scene.make()
    rotation.idle(1)
    old = rotation.values
    assert isinstance(scene.case, PostgresRolesCase)
    try:
        scene.server.stop()
        asked = rotation.request()
        rotation.wait(lambda status: status.get("failedAttempts", 0) >= 2)
        assert rotation.condition("Ready")["status"] == "True"
        assert not rotation.condition("Stalled")
        assert rotation.values == old
    finally:
        scene.server.start()
    status = rotation.idle(2)
    assert status["handledRequest"] == asked
    assert scene.accepted(rotation.values)
    assert not scene.accepted(old)


@chosen("qdrantCloud")
def test_an_old_key_that_stays_accepted_is_told_until_it_dies(scene: Scene) -> None:
    rotation = scene.make(refusalTimeout="2s")
    first = rotation.idle(1)["current"]["id"]
    scene.server.usable_until = 3600.0
    rotation.request()
    assert first in rotation.stalled("OldKeyStillAccepted")
    status = rotation.status
    assert (status["step"], status["previous"]["id"]) == ("VerifyRefused", first)
    assert (status["lastVerification"]["keyId"], status["lastVerification"]["result"]) == (first, "StillAccepted")
    assert rotation.condition("Ready")["status"] == "True"
    rotation.request()  # waits for this one
    scene.server.usable_until = 0.0
    scene.server.clock.advance(3600)
    status = rotation.idle(3)
    assert [record["revokedKeyId"] == first and bool(record["refusedAt"]) for record in status["history"][1:2]] == [
        True
    ]
    assert len(scene.inventory()) == 1


@chosen("weaviate", "postgres")
def test_a_published_key_that_somebody_deleted_is_replaced(scene: Scene) -> None:
    rotation = scene.make()
    key = rotation.idle(1)["current"]["id"]
    old = rotation.values
    if scene.case.identity == "weaviate":
        with scene.server.api() as api:
            api.delete(f"/users/db/{key}").raise_for_status()
    else:
        with scene.server.server.connect() as connection:
            connection.execute(f'DROP ROLE "{key}"')
    # Nobody is there to be moved: that holds back what replaces a key that lives, not this.
    nobody = {"kind": "Deployment", "selector": {"matchLabels": {"app": "nobody"}}}
    rotation.change(rolloutRestartTargets=[nobody], overlap=None)
    rotation.nudge()
    rotation.wait(lambda status: status.get("step") == "Idle" and status["revision"] > 1, 150)
    assert rotation.status["history"][0]["reason"] == "KeyRefused"
    assert rotation.values != old
    assert scene.accepted(rotation.values)
    assert scene.inventory() == {rotation.status["current"]["id"]}


@chosen("weaviate", "pinecone")
def test_other_roles_in_the_middle_of_it_are_what_the_key_gets(scene: Scene) -> None:
    """While the store has none to give, and while it does not accept the one that it gave."""
    identity, server = dict(scene.case.assignment().identity), scene.server
    if scene.case.identity == "weaviate":
        server.operations.fail("users.create", None, status=503)
        roles, step = [server.make_role("docs-reader", actions=("read_data",))], "Create"
    else:
        server.admin.usable_after = 3600.0
        roles, step = ["ControlPlaneViewer"], "Verify"
    rotation = scene.make()
    rotation.step(step)
    before = rotation.status["pending"]
    time.sleep(1)
    rotation.change(identity={scene.case.identity: {**identity, "roles": roles}})
    rotation.wait(lambda status: status.get("observedGeneration") == 2)
    server.operations.heal()
    if scene.case.identity == "pinecone":
        server.admin.usable_after = 0.0
    status = rotation.idle(1)
    assert status["current"]["issuedAt"] != before["issuedAt"]
    assert len(scene.inventory()) == 1
    assert scene.accepted(rotation.values)
    if scene.case.identity == "weaviate":
        assert server.users()[status["current"]["id"]] == roles


@pytest.fixture
def start_operator(devcluster: Cluster, crds: list[str], tmp_path: Path) -> Iterator[Callable[..., TrialOperator]]:
    """Operators for one namespace, with more flags or another environment."""
    assert crds
    made: list[TrialOperator] = []

    def start(namespace: str, *flags: str, **environment: str) -> TrialOperator:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        flags = ("--namespace", namespace, "--no-leader-election", *flags)
        made.append(TrialOperator(devcluster.kubeconfig, *flags, directory=directory, environment=environment))
        return made[-1].start()

    yield start
    for operator in made:
        operator.remove()


def test_read_only_and_pause_do_nothing_and_missed_times_come_to_one_rotation(
    devcluster: Cluster, namespace: str, start_operator: Callable[..., TrialOperator]
) -> None:
    with contextlib.closing(Resources(devcluster, namespace, start_operator(namespace))) as resources:
        make_anywhere(resources)
        due, paused, late = (Rotation(resources, name, f"{name}-key") for name in ("due", "paused", "late"))
        due.make(secret={"name": "due-key"}, rotationInterval="1h")
        paused.make(secret={"name": "paused-key"}, rotationInterval="1h")
        first = due.idle(1)["current"]
        before = paused.idle(1)["current"]
        paused.annotate(paused="true")
        resources.operator.stop()
        for rotation in (due, paused):
            rotation.change(rotationInterval="4s")
        resources.operator = start_operator(namespace, "--read-only")
        late.make(secret={"name": "late-key"})
        late.blocked("--read-only")
        issued = datetime.fromisoformat(first["issuedAt"]).timestamp()
        time.sleep(max(0.0, issued + 13 - time.time()))  # three of its times have passed
        assert due.status["current"] == first
        assert not late.remembered
        assert not late.there()
        assert not late.get()["metadata"].get("finalizers")
        assert late.condition("Ready")["status"] == "False"
        resources.operator.stop()
        resources.operator = start_operator(namespace)
        late.idle(1)
        history = due.wait(lambda status: any(record["revision"] == 3 for record in status["history"]))["history"]
        began = {record["revision"]: datetime.fromisoformat(record["startedAt"]).timestamp() for record in history}
        assert began[3] - began[2] >= 4
        assert paused.status["current"] == before
        assert paused.condition("Synced")["reason"] == "ReconcilePaused"
        paused.annotate(paused="false")
        history = paused.wait(lambda status: len(status["history"]) > 1)["history"]
        assert [record["reason"] for record in history[-2:]] == ["Interval", "Initial"]
