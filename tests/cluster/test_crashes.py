"""SIGKILL at any moment ends in the same state: the operator's, and that of what it wrote to the store.

Aspects covered: kills while resources are created, changed and deleted; kills in the middle of runs; nothing started,
written or embedded more than it must be; no process left behind.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.support.chroma import ChromaServer
from tests.support.json_lines import json_lines_job
from tests.support.vectorwright import Resources

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

DOCUMENTS = 40
RECORDS = 300


@pytest.fixture
def mine(devcluster: Cluster, namespace: str, own_operator: TrialOperator) -> Iterator[Resources]:
    """Our resources, served by an operator of this test's own."""
    found = Resources(devcluster, namespace, own_operator)
    yield found
    found.close()


def _collection(server: ChromaServer, name: str) -> str:
    base = f"{server.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
    return f"{base}/{httpx.get(f'{base}/{name}', trust_env=False).raise_for_status().json()['id']}"


def _ids(server: ChromaServer, name: str) -> list[str]:
    answer = httpx.post(f"{_collection(server, name)}/get", json={"include": [], "limit": 5000}, trust_env=False)
    return sorted(answer.raise_for_status().json()["ids"])


def _job(index: str, count: int) -> dict[str, object]:
    lines = ({"id": f"r{n}", "text": f"record {n}", "vector": [n + 1, 1, 2]} for n in range(count))
    return json_lines_job(lines, index, batch={"maxRecords": 1, "workers": 2})


def _processes(operator: TrialOperator) -> list[str]:
    """Processes whose command line or environment names this operator's directory."""
    found = subprocess.run(["ps", "axe", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    return [line[:200] for line in found.splitlines() if str(operator.directory) in line]


def test_kills_at_random_moments(mine: Resources, chroma_server: ChromaServer) -> None:
    operator = mine.operator
    chance = random.Random(20260131)
    names = [f"{mine.namespace}-{letter}" for letter in "abc"]
    operator.start()
    limits = {"requestsPerSecond": 100}
    mine.create(
        "VectorStore", "chroma", {"chroma": {"url": chroma_server.url}, "probeInterval": "1s", "limits": limits}
    )
    for letter, name in zip("abc", names, strict=True):
        spec = {"storeRef": {"name": "chroma"}, "indexName": name, "dimension": 3, "deletionPolicy": "Delete"}
        mine.create("VectorIndex", letter, spec)
        mine.create("IngestionJob", letter, _job(letter, RECORDS))
    for _ in range(8):
        time.sleep(chance.uniform(0.05, 2.5))
        operator.kill()
        operator.start(wait=chance.random() < 0.6)
    for letter, name in zip("abc", names, strict=True):
        body = mine.wait_phase(letter, "Succeeded")
        assert body["status"]["counts"]["documentsFailed"] == 0
        assert _ids(chroma_server, name) == sorted(f"r{n}" for n in range(RECORDS))
        assert len(body["status"]["lastRuns"]) == 1
        mine.wait("VectorIndex", letter, lambda item: item["status"].get("vectors") == RECORDS)
    before = {letter: mine.get("IngestionJob", letter)["status"]["lastRuns"] for letter in "abc"}

    operator.kill()
    operator.start()
    time.sleep(3)
    after = {letter: mine.get("IngestionJob", letter)["status"]["lastRuns"] for letter in "abc"}
    assert after == before, "a restart ran something again"

    for letter, name in zip("abc", names, strict=True):
        mine.annotate("VectorIndex", letter, confirm_delete=name)
        mine.delete("IngestionJob", letter)
        mine.delete("VectorIndex", letter)
    time.sleep(chance.uniform(0.0, 0.3))
    operator.kill()
    operator.start()
    for letter, name in zip("abc", names, strict=True):
        mine.wait_gone("VectorIndex", letter)
        mine.wait_gone("IngestionJob", letter)
        base = f"{chroma_server.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
        assert httpx.get(f"{base}/{name}", trust_env=False).status_code == 404
    operator.stop()
    deadline = time.monotonic() + 15
    while (left := _processes(operator)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def test_a_killed_run_embeds_nothing_twice_but_what_was_in_flight(mine: Resources, chroma_server: ChromaServer) -> None:
    operator, name = mine.operator, f"{mine.namespace}-index"
    operator.start()
    limits = {"requestsPerSecond": 60}
    mine.create(
        "VectorStore", "chroma", {"chroma": {"url": chroma_server.url}, "probeInterval": "1s", "limits": limits}
    )
    mine.create("VectorIndex", "index", {"storeRef": {"name": "chroma"}, "indexName": name, "dimension": 3})
    mine.wait_ready("VectorIndex", "index")
    mine.create("IngestionJob", "job", _job("index", RECORDS))
    where = f"{_collection(chroma_server, name)}/count"
    mine.wait("VectorIndex", "index", lambda _: int(httpx.get(where, trust_env=False).text) >= 60)
    operator.kill()
    time.sleep(1)
    stored = int(httpx.get(where, trust_env=False).text)
    time.sleep(1)
    assert int(httpx.get(where, trust_env=False).text) == stored, "the worker outlived its operator"
    operator.start()
    counts = mine.wait_phase("job", "Succeeded")["status"]["counts"]
    assert counts["documentsUnchanged"] == stored
    assert counts["vectorsWritten"] == RECORDS - stored
    assert _ids(chroma_server, name) == sorted(f"r{n}" for n in range(RECORDS))
