"""A person's word before a key is revoked.

Aspects covered: the first revocation waits for it, or each does, by policy; it counts for the very key that it names,
and where identities take turns for the one of that time; the next rotation waits meanwhile; ``vectorwright rotate`` is
tested in test_rotation_status.py.
"""

from __future__ import annotations

import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.rotation.cases import IssuerCase
from tests.support.rotation_stores import Scene, chosen, team
from tests.support.rotations import Rotation, make_anywhere
from tests.support.vectorwright import Resources

pytestmark = [pytest.mark.cluster, pytest.mark.server]

CONFIRM = "vectorwright.dev/confirm-revoke="


@pytest.fixture
def rotation(resources: Resources) -> Rotation:
    """One whose keys need no store, not made yet."""
    make_anywhere(resources)
    return Rotation(resources)


def asked_for(rotation: Rotation, revision: int) -> str:
    """The word that a rotation waits for, once the key of a revision is published."""
    rotation.at("Revoke", revision)
    return rotation.blocked(CONFIRM).partition(CONFIRM)[2].split()[0]


def test_the_first_revocation_waits_for_a_word_about_the_very_key(rotation: Rotation) -> None:
    rotation.make(revokePolicy="ConfirmFirst")
    first = rotation.idle(1)["current"]["id"]
    rotation.request()
    assert asked_for(rotation, 2) == first
    assert rotation.condition("Ready")["status"] == "True"
    rotation.annotate(confirm_revoke="another-key")
    second = rotation.request()  # waits for the revocation
    status = rotation.looked_at()
    assert (status["step"], status["revision"]) == ("Revoke", 2)
    assert status["handledRequest"] != second
    rotation.annotate(confirm_revoke=first)
    # The second revocation needs no word any more.
    history = rotation.idle(3)["history"]
    assert [item.get("revokedKeyId") is not None for item in history] == [True, True, False]
    assert history[1]["revokedKeyId"] == first


def test_each_revocation_waits_where_the_policy_says_so(rotation: Rotation) -> None:
    rotation.make(revokePolicy="ConfirmEach")
    for revision in (1, 2):
        rotation.idle(revision)
        rotation.request()
        rotation.annotate(confirm_revoke=asked_for(rotation, revision + 1))
    rotation.idle(3)


@chosen("postgres")
def test_where_identities_take_turns_a_word_is_for_one_of_their_turns(
    served_cluster: Cluster, trial_operator: TrialOperator, case: IssuerCase
) -> None:
    with team(served_cluster, lambda _: trial_operator) as resources:
        scene = Scene(resources, case)
        rotation = scene.make(revokePolicy="ConfirmEach", overlap="0s")
        said = []
        for revision in (1, 2):
            key = rotation.idle(revision)["current"]["id"]
            rotation.request()
            said.append(asked_for(rotation, revision + 1))
            assert said[-1] == f"{key}@{revision}"
            rotation.annotate(confirm_revoke=said[-1])
        old = rotation.idle(3)["current"]["id"]
        held = rotation.values
        rotation.request()
        # The same role as two rotations ago: neither its name nor the word of that time is one for now.
        assert asked_for(rotation, 4) == f"{old}@3"
        for stale in (old, said[0]):
            assert stale.partition("@")[0] == old
            rotation.annotate(confirm_revoke=stale)
            assert rotation.looked_at()["step"] == "Revoke"
            assert scene.accepted(held)
        rotation.annotate(confirm_revoke=f"{old}@3")
        rotation.idle(4)
        assert not scene.accepted(held)
