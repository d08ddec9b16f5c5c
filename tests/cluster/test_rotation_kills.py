"""SIGKILL of the operator after each change that a rotation makes, for every strategy.

Aspects covered: consumers have a valid key all the while; one key of the resource is left and the one before is
refused; one rotation, and one restart, however often it was interrupted; the same with the status wiped, with
everything forgotten, with an old backup restored, and with two operators at once; nothing made by hand is touched; no
value shows.

``VECTORWRIGHT_KILLS=10`` does each ten times, at moments that are shifted a little, and each kill in a rotation of its
own as well.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy.devcluster import Cluster
from tests.rotation.cases import IssuerCase
from tests.rotation.issuers import CASES
from tests.support.qdrant import access
from tests.support.qdrant_binary import BINARY
from tests.support.rotation_consumer import Consumer
from tests.support.rotation_kills import Operators, Scene, kill_at_each_change, kill_in_exchange, kill_once
from tests.support.rotation_proofs import Before
from tests.support.rotation_qdrant_server import QdrantServerInCluster

from vectorwright.rotation import qdrant_tokens

pytestmark = [pytest.mark.cluster, pytest.mark.server]

REPEATS = int(os.environ.get("VECTORWRIGHT_KILLS", "1"))
DELAY = 0.03 if REPEATS > 1 else 0.0
"""Seconds by which a kill comes later at most."""
MOST_CHANGES = 80
MOST_EXCHANGES = 40
LIFETIME = "25s"
"""Of tokens that cannot be revoked: longer than operators are killed in one rotation."""
LEAST_KILLS = 9 if DELAY == 0 else 4
"""In place, where nothing is revoked. A kill that comes later lets the next changes through."""
POINTS = (
    "key-rotation -> Create",
    "issuer.create",
    "key-rotation -> Verify",
    "key-rotation -> Publish",
    "secrets/search-key",
    "key-rotation -> Restart",
    "deployments/search-api",
    "key-rotation -> Wait",
    "key-rotation -> Grace",
    "key-rotation -> Revoke",
    "issuer.revoke",
    "key-rotation -> VerifyRefused",
    "key-rotation -> Idle",
)
"""Changes after which everything is forgotten."""


STRATEGIES: tuple[type[IssuerCase], ...] = tuple(
    QdrantServerInCluster if issubclass(QdrantServerInCluster, case) else case for case in CASES
)


def over(chosen: Callable[[type[IssuerCase]], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Run a test once for each strategy that fits."""
    fitting = [pytest.param(case, id=case.id) for case in STRATEGIES if chosen(case)]
    return pytest.mark.parametrize("case", fitting, indirect=True)


@pytest.fixture(scope="module")
def operators() -> Iterator[Operators]:
    started = Operators()
    yield started
    started.close()


@pytest.fixture(autouse=True)
def strict_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double of Qdrant takes no token that has expired; a real server does for 30 seconds."""
    monkeypatch.setattr(access, "LEEWAY", 0)


def lifetime(case: IssuerCase) -> tuple[dict[str, Any], dict[str, float]]:
    """Where a token cannot be revoked it is waited for that it expires: fields of the spec, and constants."""
    if case.traits.revocable:
        return {}, {}
    leeway = qdrant_tokens.LEEWAY if BINARY else 1.0
    return {"keyLifetime": LIFETIME, "renewBefore": "2s"}, {"leeway": leeway}


@pytest.fixture
def scene(
    devcluster: Cluster, crds: list[str], case: IssuerCase, operators: Operators, tmp_path: Path
) -> Iterator[Scene]:
    """The first key of a case is published, and no operator runs."""
    made = Scene(devcluster, case, operators, tmp_path, *lifetime(case))
    made.make_by_hand()
    made.finish(None)
    yield made
    made.close()


def wiped(scene: Scene) -> Callable[[], None]:
    return scene.wipe_status


@pytest.mark.parametrize("between", [None, wiped], ids=["", "wiped"])
@over()
def test_killed_after_each_change(scene: Scene, between: Callable[[Scene], Callable[[], None]] | None) -> None:
    if not scene.case.traits.revocable and REPEATS == 1:
        scene.patch({"spec": {"keyLifetime": "10m"}})  # of the next key: here only the one before it has to expire
    with Consumer(scene).at_work() as consumer:
        for _ in range(REPEATS):
            before = Before.of(scene)
            kills = kill_at_each_change(scene, scene.request(), between and between(scene), DELAY)
            assert kills >= LEAST_KILLS
            before.check_one_rotation()
    consumer.check(gaps=scene.case.in_place)
    scene.check_nothing_shows()


@pytest.mark.skipif(REPEATS == 1, reason="VECTORWRIGHT_KILLS is not set")
@over()
def test_killed_once_in_a_rotation(scene: Scene) -> None:
    with Consumer(scene).at_work() as consumer:
        for at in range(1, MOST_CHANGES):
            before = Before.of(scene)
            request = scene.request()
            was_killed = kill_once(scene, request, kill_at=at)
            scene.finish(request)
            before.check_one_rotation()
            if not was_killed:
                break
        assert 15 < at < MOST_CHANGES - 1
    consumer.check(gaps=scene.case.in_place)
    scene.check_nothing_shows()


@over()
def test_everything_is_forgotten(scene: Scene) -> None:
    mine = STRATEGIES.index(type(scene.case))
    points = POINTS if REPEATS > 1 else POINTS[mine % 4 :: 4]
    with Consumer(scene).at_work() as consumer:
        for point in points:
            before = Before.of(scene)
            request = scene.request()
            kill_once(scene, request, kill_after=point)
            scene.forget()
            scene.finish(request, settled=True)
            before.check_healed(point)
    consumer.check(gaps=scene.case.in_place)
    scene.check_nothing_shows()


@over(lambda case: "create" in case.calls and case is not QdrantServerInCluster)
def test_killed_in_an_exchange_with_the_store(scene: Scene) -> None:
    methods = ("create",) if scene.case.in_place else ("create", "revoke")
    with Consumer(scene).at_work() as consumer:
        for method in methods:
            hits = 0
            for at in range(MOST_EXCHANGES if REPEATS > 1 else 2):
                before = Before.of(scene)
                request = scene.request()
                was_in_it = kill_in_exchange(scene, request, method, at)
                scene.finish(request)
                before.check_one_rotation()
                hits += was_in_it
                # A frame that is no answer of the store's (gRPC's own) may be the first that is lost.
                if not was_in_it and at > 0:
                    break
            assert hits > 0, method
    consumer.check(gaps=scene.case.in_place)
    scene.check_nothing_shows()


@over(lambda case: case.id in {"weaviate-DualIdentity", "generated-Generate"})
def test_pods_are_replaced_once(
    devcluster: Cluster, crds: list[str], case: IssuerCase, operators: Operators, tmp_path: Path
) -> None:
    with contextlib.closing(Scene(devcluster, case, operators, tmp_path, pods=2)) as scene:
        scene.finish(None)
        before, templates = Before.of(scene), scene.templates()
        with Consumer(scene).at_work() as consumer:
            kill_at_each_change(scene, scene.request())
        before.check_one_rotation()
        assert scene.templates() == templates + 1
        consumer.check()


@over(lambda case: case.traits.overlaps and "live" in case.calls)
def test_an_old_backup_is_restored(scene: Scene) -> None:
    backup = scene.back_up()
    for _ in range(2):
        scene.finish(scene.request())
    before = Before.of(scene)
    scene.restore(backup)
    scene.finish(scene.request(), settled=True)
    before.check_healed("restore", since=1)
    with Consumer(scene).at_work() as consumer:
        scene.finish(scene.request())
    consumer.check(gaps=scene.case.in_place)


@over()
def test_two_operators_at_once(scene: Scene) -> None:
    scene.constants["claim"] = 5.0
    with Consumer(scene).at_work() as consumer:
        for _ in range(3 * REPEATS):
            before = Before.of(scene)
            rival = scene.start()
            scene.finish(scene.request())
            rival.kill()
            before.check_one_rotation()
    consumer.check(gaps=scene.case.in_place)
    scene.check_nothing_shows()
