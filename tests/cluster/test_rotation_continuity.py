"""A client that uses a published key while it is replaced again and again, on real servers and on doubles.

Aspects covered: the operator is a process of its own, on a real API server; not one request of the client is refused;
an independent caller is let in with each old key until it is revoked, and refused within the promised time; no more
than two keys live at any moment; revisions and history tell what was asked for; no value is used twice; runs that write
into the store go on all the while and lose nothing; the store's and the index's own status never falters.

``VECTORWRIGHT_ROTATIONS`` says how often each key is replaced.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.rotated_stores import RotatedPinecone, RotatedPostgres, RotatedQdrant, RotatedStore, RotatedWeaviate
from tests.support.rotation_client import Census, Consumer, Ingestion, OldKey, Statuses, Witness, at_work
from tests.support.vectorwright import Body, Resources, condition

from vectorwright.kube import resources as kinds
from vectorwright.kube.watched import data_of
from vectorwright.rotation.state import RotationState, from_data

pytestmark = [pytest.mark.cluster, pytest.mark.server]

ROTATIONS = int(os.environ.get("VECTORWRIGHT_ROTATIONS", "12"))
OVERLAP = 0.5
WINDOW = 0.2
"""Seconds for which a client uses what it read: the rest is for the request that was begun last, on a busy machine."""
WRITING = 0.2
"""Seconds from the time that the API server notes of a write until others can read it."""
REFUSAL_TIMEOUT = 10.0
RECORDS = 1000
STORES = (RotatedPostgres, RotatedWeaviate, RotatedQdrant, RotatedPinecone)
VECTORWRIGHT = Path(sys.executable).with_name("vectorwright")


@pytest.fixture(params=STORES, ids=lambda store: store.provider)
def store(request: pytest.FixtureRequest) -> Iterator[RotatedStore]:
    made: RotatedStore = request.param(request)
    yield made
    made.close()


@dataclass
class Figures:
    """What one rotation took, in seconds."""

    whole: list[float] = field(default_factory=list)
    """From asking for it to its end."""
    refusal: list[float] = field(default_factory=list)
    """From the beginning of the revocation to the first refusal that the witness met."""

    def told(self, client: Consumer) -> str:
        """For people."""
        return (
            f"{len(self.whole)} rotations, {client.requests} requests, {len(client.refused)} refused, "
            f"{client.late} late; "
            f"latency p50 {statistics.median(client.latencies) * 1000:.1f} ms, max {max(client.latencies):.2f} s; "
            f"one rotation p50 {statistics.median(self.whole):.2f} s, max {max(self.whole):.2f} s; "
            f"refused after its revocation p50 {statistics.median(self.refusal):.3f} s, max {max(self.refusal):.3f} s"
        )


def set_up(resources: Resources, store: RotatedStore) -> None:
    """A store that is reached with the published key, an index in it, and the rotation of the key."""
    resources.secret("admin", **store.admin())
    spec: Body = {store.provider: store.settings(), "probeInterval": "1s", "limits": {"requestsPerSecond": 20}}
    resources.create("VectorStore", "store", {**spec, "controlCredentials": {"name": "key"}})
    rotation: Body = {
        "storeRef": {"name": "store"},
        "adminCredentials": {"name": "admin"},
        "identity": {store.identity: store.fields()},
        "secret": {"name": "key"},
        "overlap": f"{OVERLAP * 1000:.0f}ms",
        "refusalTimeout": f"{REFUSAL_TIMEOUT:.0f}s",
        "revokePolicy": "Automatic",
    }
    resources.create("APIKeyRotation", "rotation", rotation)
    resources.create(
        "VectorIndex",
        "index",
        {"storeRef": {"name": "store"}, "indexName": "docs", "dimension": 4, "metric": "cosine"},
    )
    resources.wait_ready("VectorIndex", "index", timeout=90)


def state(resources: Resources) -> RotationState:
    """What the operator remembers: its moments are not cut to seconds."""
    body = resources.core.read_namespaced_secret("rotation.key-rotation", resources.namespace)
    found = from_data(data_of({"data": body.data}, kinds.SECRETS))
    assert found is not None
    return found


def rotate(resources: Resources, number: int) -> None:
    """Ask for a rotation and wait for its end: as kubectl does it, and some as our own command does it."""
    if number % 50 == 2:
        told = subprocess.run(
            [
                VECTORWRIGHT, "rotate", "rotation", "--namespace", resources.namespace,
                "--kubeconfig", resources.cluster.kubeconfig, "--wait",
            ],
            check=True, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert " is refused since " in told.stdout
        return
    resources.annotate("APIKeyRotation", "rotation", rotate_requested_at=f"number {number}")
    resources.wait("APIKeyRotation", "rotation", lambda body: _is_through(body, f"number {number}"))


def _is_through(body: Body, request: str) -> bool:
    status = body.get("status") or {}
    return (status.get("step"), status.get("handledRequest")) == ("Idle", request)


def refused(witness: Witness, key_id: str, revision: int) -> OldKey:
    """The key of a revision, which the witness saw to be refused."""
    ends = time.monotonic() + REFUSAL_TIMEOUT
    while (found := witness.refused(key_id, revision)) is None:
        assert time.monotonic() < ends, f"key {key_id} of revision {revision} was not seen to be refused"
        time.sleep(0.02)
    return found


def check_history(resources: Resources, number: int, witness: Witness, client: Consumer) -> float:
    """The last rotation, as the status and the operator's memory tell it. Returns the seconds until the refusal."""
    status = resources.get("APIKeyRotation", "rotation")["status"]
    assert status["revision"] == number + 1
    assert "previous" not in status
    assert "pending" not in status
    told, record = status["history"][0], state(resources).history[0]
    assert told["revision"] == record.revision == number + 1
    assert told["reason"] == "Requested"
    assert told["keyId"] == status["current"]["id"] != told["revokedKeyId"]
    assert told["startedAt"] <= told["publishedAt"] <= told["revokedAt"] <= told["refusedAt"] <= told["finishedAt"]
    seen = state(resources).verification
    assert seen is not None
    assert (seen.key_id, seen.result) == (told["revokedKeyId"], "Refused")
    old = refused(witness, told["revokedKeyId"], number)
    assert record.revoked_at is not None
    revoked = record.revoked_at.timestamp()
    promised = client.last_read[old.mark] + OVERLAP
    assert revoked >= promised - WRITING, "revoked before the overlap was over"
    assert old.refused >= promised - WRITING, "refused before the overlap was over"
    return old.refused - revoked


def counted(resources: Resources, *reasons: str) -> int:
    """How often events of the rotation with these reasons came."""
    found = resources.core.list_namespaced_event(resources.namespace, field_selector="involvedObject.name=rotation")
    return sum(
        (item.series.count if item.series else item.count) or 1 for item in found.items if item.reason in reasons
    )


@pytest.mark.timeout(180 + ROTATIONS * 12)
def test_not_one_request_is_refused(resources: Resources, store: RotatedStore) -> None:
    set_up(resources, store)
    client = Consumer(resources, "key", store, OVERLAP, WINDOW)
    witness, census = Witness(resources, "key", store), Census(store)
    ingestion, statuses = Ingestion(resources, "index", RECORDS), Statuses(resources)
    figures = Figures()
    with at_work(client.work, witness.watch, witness.probe, census.work, ingestion.work, *statuses.workers()):
        for number in range(1, ROTATIONS + 1):
            began = time.monotonic()
            rotate(resources, number)
            figures.whole.append(time.monotonic() - began)
            figures.refusal.append(check_history(resources, number, witness, client))
    print(f"\n{store.provider}: {figures.told(client)}; {len(ingestion.runs)} runs")  # noqa: T201
    assert client.refused == []
    assert client.requests > 20 * ROTATIONS
    assert client.late <= client.requests / 1000
    assert max(figures.refusal) < REFUSAL_TIMEOUT
    # Each value once, and all of them seen by the witness; the client saw what it needed.
    marks = [key.mark for key in witness.published]
    assert len(marks) == len(set(marks)) == ROTATIONS + 1
    assert set(client.last_read) <= set(marks)
    assert list(client.last_read)[-1] == marks[-1]
    assert sum(key.accepted for key in witness.old) > 0
    assert witness.still_accepted() == []
    assert census.counted > ROTATIONS
    assert census.most <= 2
    assert len(store.live()) == 1
    assert [run["phase"] for run in ingestion.runs] == ["Succeeded"] * len(ingestion.runs)
    assert [run["counts"]["vectorsWritten"] for run in ingestion.runs] == [RECORDS] * len(ingestion.runs)
    assert [
        run["counts"].get("documentsFailed", 0) + run["counts"].get("vectorsFailed", 0) for run in ingestion.runs
    ] == [0] * len(ingestion.runs)
    assert store.records(resources.get("VectorIndex", "index")["status"]["physicalName"]) == RECORDS
    assert statuses.seen >= 2
    assert (statuses.denied, statuses.not_ready) == ([], [])
    for kind, name in (("VectorStore", "store"), ("VectorIndex", "index"), ("APIKeyRotation", "rotation")):
        assert condition(resources.get(kind, name), "Ready")["status"] == "True"
    told = resources.operator.text()
    secrets = [key.material.token or key.material.password or "" for key in witness.published]
    assert [number for number, value in enumerate(secrets, 1) if value in told] == []
