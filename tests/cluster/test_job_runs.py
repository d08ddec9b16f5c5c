"""IngestionJobs that run as Kubernetes Jobs: real Jobs and pods of a real API server, their containers run by the test.

Aspects covered: the whole hand-over through the pod's manifest; the result through the termination message; the Job
deleted once its result is recorded; a failed pod replaced by Kubernetes; a run found again after the operator was
killed; a running job deleted; what cannot run in a pod refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.support.chroma import ChromaServer
from tests.support.kubelet import Kubelet
from tests.support.openai import OpenAIServer
from tests.support.vectorwright import Resources

pytestmark = pytest.mark.cluster


@pytest.fixture
def mine(devcluster: Cluster, namespace: str, crds: list[str], tmp_path: Path) -> Iterator[Resources]:
    """Our resources, served by an operator whose workers are Jobs."""
    directory = tmp_path / "operator"
    directory.mkdir()
    flags = ("--namespace", namespace, "--leader-election-namespace", namespace, "--worker-image", "example/worker:1")
    operator = TrialOperator(devcluster.kubeconfig, *flags, directory=directory)
    found = Resources(devcluster, namespace, operator)
    try:
        operator.start()
        yield found
    finally:
        found.close()
        operator.remove()


@pytest.fixture
def kubelet(mine: Resources, tmp_path: Path) -> Kubelet:
    """Runs the pods."""
    return Kubelet(mine, tmp_path)


def _set_up(resources: Resources, chroma: ChromaServer, openai: OpenAIServer) -> str:
    resources.secret("embedder-key", **{"api-key": openai.key})
    resources.config_map("pages", **{"a.md": "# A\n\nfirst page\n", "b.md": "# B\n\nsecond page\n"})
    provider = {"baseUrl": openai.base_url, "model": "text-embedding-test"}
    credentials = {"name": "embedder-key", "tokenKey": "api-key"}
    resources.create("EmbeddingModel", "model", {"openAI": provider, "credentials": credentials})
    resources.create("VectorStore", "chroma", {"chroma": {"url": chroma.url}, "probeInterval": "1s"})
    name = f"{resources.namespace}-index"
    spec = {"storeRef": {"name": "chroma"}, "indexName": name, "embeddingModelRef": {"name": "model"}}
    resources.create("VectorIndex", "index", spec)
    source = {"configMap": {"name": "pages"}}
    resources.create("IngestionJob", "job", {"indexRef": {"name": "index"}, "source": source})
    return name


def _jobs(resources: Resources) -> list[str]:
    found: Any = resources.batch.list_namespaced_job(resources.namespace)
    return [job.metadata.name for job in found.items]


def _wait_for_no_jobs(resources: Resources) -> None:
    deadline = time.monotonic() + 30
    while _jobs(resources):
        assert time.monotonic() < deadline, _jobs(resources)
        time.sleep(0.1)


def test_a_run_in_a_pod(
    mine: Resources, kubelet: Kubelet, chroma_server: ChromaServer, openai_server: OpenAIServer
) -> None:
    _set_up(mine, chroma_server, openai_server)
    pod = kubelet.pod("job")
    assert openai_server.key not in json.dumps(mine.batch.api_client.sanitize_for_serialization(pod))
    assert kubelet.run("job") == 0
    body = mine.wait_phase("job", "Succeeded")
    assert body["status"]["counts"]["documentsNew"] == 2
    assert body["status"]["lastRuns"][0]["written"] == 2
    _wait_for_no_jobs(mine)
    mine.wait("VectorIndex", "index", lambda item: item["status"].get("vectors") == 2)


def test_a_pod_that_failed_is_replaced(
    mine: Resources, kubelet: Kubelet, chroma_server: ChromaServer, openai_server: OpenAIServer
) -> None:
    _set_up(mine, chroma_server, openai_server)
    kubelet.report(kubelet.pod("job"), 137)
    assert kubelet.run("job") == 0
    body = mine.wait_phase("job", "Succeeded")
    assert body["status"]["counts"]["vectorsWritten"] == 2


def test_a_run_is_found_again_by_the_next_operator(
    mine: Resources, kubelet: Kubelet, chroma_server: ChromaServer, openai_server: OpenAIServer
) -> None:
    _set_up(mine, chroma_server, openai_server)
    pod = kubelet.pod("job")
    started = _jobs(mine)
    mine.operator.kill()
    with kubelet.start(pod) as process:
        assert process.wait(60) == 0
    kubelet.report(pod, 0)
    mine.operator.start()
    body = mine.wait_phase("job", "Succeeded")
    assert body["status"]["lastRuns"][0]["id"] == started[0].rsplit("-", 1)[0]
    assert len(body["status"]["lastRuns"]) == 1
    _wait_for_no_jobs(mine)


def test_a_terminal_failure_is_not_repeated(
    mine: Resources, kubelet: Kubelet, chroma_server: ChromaServer, openai_server: OpenAIServer
) -> None:
    name = _set_up(mine, chroma_server, openai_server)
    pod = kubelet.pod("job")
    base = f"{chroma_server.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
    mine.annotate("VectorIndex", "index", paused="true")
    httpx.delete(f"{base}/{name}", trust_env=False).raise_for_status()
    with kubelet.start(pod) as process:
        code = process.wait(60)
    assert code == 3
    kubelet.report(pod, code)
    mine.wait_condition("IngestionJob", "job", "Stalled", "True", "IndexLost")


def test_deleting_a_running_job_deletes_its_pods(
    mine: Resources, kubelet: Kubelet, chroma_server: ChromaServer, openai_server: OpenAIServer
) -> None:
    _set_up(mine, chroma_server, openai_server)
    kubelet.pod("job")
    mine.delete("IngestionJob", "job")
    mine.wait_gone("IngestionJob", "job")
    _wait_for_no_jobs(mine)


def test_a_store_beside_the_operator_cannot_be_reached_from_pods(mine: Resources) -> None:
    mine.create("VectorStore", "memory", {"memory": {"local": True}})
    mine.create("VectorIndex", "index", {"storeRef": {"name": "memory"}, "dimension": 3})
    mine.wait_ready("VectorIndex", "index")
    line = json.dumps({"id": "a", "text": "x", "vector": [1, 2, 3]})
    spec = {
        "indexRef": {"name": "index"},
        "source": {"inline": {"documents": [{"id": "r.jsonl", "text": line}]}},
        "embedding": {"precomputed": {"field": "vector"}},
    }
    mine.create("IngestionJob", "job", spec)
    message = mine.wait_condition("IngestionJob", "job", "Stalled", "True", "StoreNotReachableFromPods")
    assert "InProcess" in message
