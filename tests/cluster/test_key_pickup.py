"""A Secret that changes again and again on a real API server, over PostgreSQL roles that take turns and die.

Aspects covered: an in-process run over thousands of records goes on, is one run, and writes every record once; indexes
that are made meanwhile become ready; no status and no event ever tells of a refusal; no password in any log, status or
event; a key that is wrong fails the run, and the Secret's mending starts it again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.postgres_roles import PostgresWithRoles
from tests.support.rotating import RotatedRoles, rotating
from tests.support.vectorwright import Resources

from vectorwright.stores.registry import StoreCredentials

pytestmark = pytest.mark.cluster

RECORDS = 3000
DIMENSION = 8


@pytest.fixture
def roles(postgres_with_roles: PostgresWithRoles) -> RotatedRoles:
    return RotatedRoles(postgres_with_roles)


def publish(resources: Resources, name: str, credentials: StoreCredentials) -> None:
    resources.secret(name, username=str(credentials.username), password=str(credentials.password))


def set_up(resources: Resources, roles: RotatedRoles, *, data: str = "key") -> None:
    spec: dict[str, Any] = {"pgvector": roles.settings, "limits": {"requestsPerSecond": 10}}
    spec |= {"controlCredentials": {"name": "key"}, "dataCredentials": {"name": data}}
    resources.create("VectorStore", "store", spec)
    index(resources, "index")
    resources.wait_ready("VectorIndex", "index")
    rows = ({"text": f"record {n}", "v": [1.0 + n, *[1.0] * (DIMENSION - 1)]} for n in range(RECORDS))
    resources.config_map("table", **{"table.jsonl": "\n".join(map(json.dumps, rows))})
    job = {"indexRef": {"name": "index"}, "source": {"configMap": {"name": "table"}}}
    job |= {"embedding": {"precomputed": {"field": "v"}}, "batch": {"maxRecords": 20}, "runner": {"type": "InProcess"}}
    resources.create("IngestionJob", "job", job)


def index(resources: Resources, name: str) -> None:
    spec = {"storeRef": {"name": "store"}, "indexName": name, "dimension": DIMENSION, "metric": "cosine"}
    resources.create("VectorIndex", name, spec)


@contextmanager
def watched(resources: Resources) -> Iterator[list[str]]:
    """All statuses that differ, as JSON, while the block lasts."""
    stop, seen = threading.Event(), [""]

    def look() -> None:
        while not stop.wait(0.1):
            found = [resources.get("VectorStore", "store"), resources.get("IngestionJob", "job")]
            found += [resources.get("VectorIndex", name) for name in ("index", "index-0", "index-1", "index-2")]
            status = json.dumps([body.get("status") for body in found])
            if status != seen[-1]:
                seen.append(status)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(look)
        try:
            yield seen
        finally:
            stop.set()
        running.result()


def count(roles: RotatedRoles) -> tuple[int, int]:
    """Records of the index, and their distinct ids."""
    server = roles.server
    with server.server.connect(server.database) as connection:
        found = connection.execute(f'SELECT count(*), count(DISTINCT id) FROM {server.schema}."index"').fetchone()
    assert found is not None
    return int(str(found[0])), int(str(found[1]))


def test_a_run_and_indexes_go_on_while_the_secret_changes(resources: Resources, roles: RotatedRoles) -> None:
    publish(resources, "key", roles.credentials)
    set_up(resources, roles)
    for number in range(3):
        index(resources, f"index-{number}")
        resources.wait_ready("VectorIndex", f"index-{number}")
    resources.wait("IngestionJob", "job", lambda body: ((body.get("status") or {}).get("counts") or {}).get("batches"))
    with (
        watched(resources) as seen,
        rotating(
            roles, lambda: publish(resources, "key", roles.credentials), every=1.2, overlap=0.8, kill_each=3
        ) as died,
    ):
        for number in range(3, 6):
            index(resources, f"index-{number}")
            resources.wait_ready("VectorIndex", f"index-{number}")
        body = resources.wait_phase("job", "Succeeded", "Failed", "SucceededWithErrors", timeout=120)
    status = body["status"]
    assert len(died) > 3, "no sessions were killed"
    assert (status["phase"], status["counts"]["vectorsWritten"]) == ("Succeeded", RECORDS)
    assert status["counts"].get("documentsFailed", 0) == status["counts"].get("vectorsFailed", 0) == 0
    assert (len(status["lastRuns"]), status["lastRuns"][0]["phase"]) == (1, "Succeeded")
    assert count(roles) == (RECORDS, RECORDS)
    assert len(seen) > 3
    assert "AccessDenied" not in "".join(seen)
    events = [item for name in ("store", "index", "job") for item in resources.events(name)]
    assert [reason for reason, _ in events if reason in ("AccessDenied", "RunFailed", "WorkerDied")] == []
    assert len([reason for reason, _ in events if reason == "RunStarted"]) == 1
    told = resources.operator.text() + "".join(seen) + json.dumps(events)
    assert not [password for password in roles.values if password in told]


def test_a_key_that_is_wrong_is_told_of_and_mended(resources: Resources, roles: RotatedRoles) -> None:
    publish(resources, "key", roles.credentials)
    wrong = StoreCredentials(username=roles.credentials.username, password="wrong-password-of-nobody")
    publish(resources, "data-key", wrong)
    set_up(resources, roles, data="data-key")
    message = resources.wait_condition("IngestionJob", "job", "Stalled", "True", "AccessDenied")
    assert "no other credentials came within 5 s" in message
    assert str(wrong.password) not in message + resources.operator.text()
    publish(resources, "data-key", roles.credentials)
    body = resources.wait_phase("job", "Succeeded")
    assert [run["phase"] for run in body["status"]["lastRuns"]] == ["Succeeded", "Failed"]
    assert count(roles) == (RECORDS, RECORDS)
