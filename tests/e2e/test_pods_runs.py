"""Ingestion runs in real pods, and what can happen to them.

What is checked: a worker runs under an account of its own, without a token of the Kubernetes API; one that is deleted
or killed in the middle is replaced, and the run ends complete, with little done twice; an IngestionJob that is deleted
while it runs takes its pods with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.chroma import ChromaServer
from tests.support.openai import OpenAIServer
from tests.support.real_pods import Doors, Pods, wait_until
from tests.support.vectorwright import Body, Resources

pytestmark = [pytest.mark.pods, pytest.mark.cluster, pytest.mark.server, pytest.mark.timeout(300)]
WORKERS = "app.kubernetes.io/component=worker"
ACCOUNT = "ingest"
DOCUMENTS = 60
BATCH = 4


def pages(embedder: OpenAIServer) -> list[str]:
    """What was embedded of the documents, in order; the operator has a probe of its own embedded now and then."""
    return [text for text in embedder.embedded if text.startswith("# Page")]


@pytest.fixture
def slow(openai_server: OpenAIServer) -> Iterator[OpenAIServer]:
    """An embedder that takes its time, so that a run can be met in the middle."""
    openai_server.delay = 0.5
    openai_server.embedded.clear()
    yield openai_server
    openai_server.delay = 0.0


@pytest.fixture
def running(served: Resources, pods: Pods, doors: Doors, chroma_server: ChromaServer, slow: OpenAIServer) -> Body:
    """The pod of a run that has written some of its vectors, and not all."""
    served.secret("embedder-key", **{"api-key": slow.key})
    served.config_map("pages", **{f"page-{n:02}.md": f"# Page {n}\n\ntext number {n}\n" for n in range(DOCUMENTS)})
    model = {"baseUrl": f"http://{doors.to(slow.port)}/v1", "model": slow.model, "batchSize": BATCH}
    credentials = {"name": "embedder-key", "tokenKey": "api-key"}
    served.create("EmbeddingModel", "model", {"openAI": model, "credentials": credentials})
    served.create(
        "VectorStore", "store", {"chroma": {"url": f"http://{doors.to(chroma_server.port)}"}, "probeInterval": "1s"}
    )
    index = {"storeRef": {"name": "store"}, "indexName": f"{pods.namespace}-i", "embeddingModelRef": {"name": "model"}}
    served.create("VectorIndex", "index", index)
    pods.kubectl("create", "serviceaccount", ACCOUNT)
    served.wait_ready("VectorIndex", "index")
    served.create(
        "IngestionJob",
        "job",
        {
            "indexRef": {"name": "index"},
            "source": {"configMap": {"name": "pages"}},
            "batch": {"maxRecords": BATCH, "workers": 1},
            "runner": {"serviceAccountName": ACCOUNT},
        },
    )
    wait_until(lambda: len(pages(slow)) >= BATCH * 3, "the run is in the middle", 90)
    slow.delay = 10.0  # until the test has done with it what it wants
    (pod,) = pods.all(WORKERS)
    assert len(pages(slow)) < DOCUMENTS
    return pod


def test_a_worker_has_no_way_to_the_kubernetes_api(running: Body, pods: Pods) -> None:
    found = pods.run_in(
        running["metadata"]["name"],
        """
        import os, urllib.request, ssl
        print(os.path.exists("/var/run/secrets/kubernetes.io"))
        try:
            urllib.request.urlopen(
                "https://kubernetes.default.svc/api/v1/secrets", context=ssl._create_unverified_context()
            )
        except OSError as error:
            print(getattr(error, "code", error))
        """,
    )
    assert running["spec"]["serviceAccountName"] == ACCOUNT
    assert running["spec"]["automountServiceAccountToken"] is False
    assert found.splitlines()[0] == "False"
    assert found.splitlines()[1] in {"401", "403"}


@pytest.mark.parametrize("how", ["deleted", "killed"])
def test_a_run_whose_pod_dies_in_the_middle_ends_complete(
    running: Body, served: Resources, pods: Pods, slow: OpenAIServer, how: str
) -> None:
    if how == "deleted":
        pods.delete_at_once(running["metadata"]["name"])
    else:
        pods.kill(running)
    done_before = len(pages(slow))
    replacement = pods.wait(
        WORKERS,
        lambda found: [pod for pod in found if pod["metadata"]["uid"] != running["metadata"]["uid"]],
        "another pod takes up the run",
    )
    assert replacement
    slow.delay = 0.0
    body = served.wait_phase("job", "Succeeded", "Failed", "Unverified", timeout=180)
    assert body["status"]["phase"] == "Succeeded", body["status"]
    served.wait("VectorIndex", "index", lambda index: index["status"].get("vectors") == DOCUMENTS, 60)
    assert len(set(pages(slow))) == DOCUMENTS
    # What was embedded and not yet written when it died is embedded again, and nothing else.
    assert len(pages(slow)) - DOCUMENTS <= min(done_before, BATCH * 10)
    pods.wait_gone(WORKERS)


def test_a_job_that_is_deleted_while_it_runs_takes_its_pods_with_it(
    running: Body, served: Resources, pods: Pods, slow: OpenAIServer
) -> None:
    assert served.get("IngestionJob", "job")["metadata"]["finalizers"]
    served.delete("IngestionJob", "job")
    served.wait_gone("IngestionJob", "job", 90)
    pods.wait_gone(WORKERS)
    assert pods.kubectl("get", "jobs", "-o", "name") == ""
    assert len(pages(slow)) < DOCUMENTS
    assert running["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in pods.all(WORKERS)}
