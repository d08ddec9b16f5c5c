"""The life of our resources through the running operator: what the unit tests of plans cannot show.

Aspects covered: drift named and mended; the update ceiling; adoption; retaining, confirmed deletion and release; a
store that outlives its indexes; two claimants; Observe; pause and reconcile-now; a Secret taken up without a restart;
runs on request, suspended, deleted in the middle; documents changed and vanished.
"""

from __future__ import annotations

import json
import time

import httpx
import kubernetes
import pytest
from tests.support.chroma import ChromaServer
from tests.support.git import GitServer
from tests.support.json_lines import json_lines_job
from tests.support.openai import OpenAIServer
from tests.support.postgres import PostgresServer
from tests.support.vectorwright import Resources, condition

pytestmark = pytest.mark.cluster


class Collection:
    """A collection of the shared Chroma server, as somebody else would see it."""

    def __init__(self, server: ChromaServer, name: str) -> None:
        self.base = f"{server.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
        self.name = name

    def get(self) -> dict[str, object] | None:
        """The collection; None when there is none."""
        answer = httpx.get(f"{self.base}/{self.name}", trust_env=False)
        found: dict[str, object] | None = answer.json() if answer.status_code == 200 else None
        return found

    def change(self, **change: object) -> None:
        """Change it behind the operator's back."""
        found = self.get()
        assert found is not None
        httpx.put(f"{self.base}/{found['id']}", json=change, trust_env=False).raise_for_status()

    def add(self, count: int, dimension: int) -> None:
        """Put vectors into it."""
        found = self.get()
        assert found is not None
        record = {"ids": [str(n) for n in range(count)], "embeddings": [[n + 1.0] * dimension for n in range(count)]}
        httpx.post(f"{self.base}/{found['id']}/upsert", json=record, trust_env=False).raise_for_status()

    def count(self) -> int:
        """How many vectors it holds."""
        found = self.get()
        assert found is not None
        return int(httpx.get(f"{self.base}/{found['id']}/count", trust_env=False).text)


def _index(resources: Resources, server: ChromaServer, name: str = "index", **spec: object) -> Collection:
    physical = f"{resources.namespace}-{name}"
    if not resources.exists("VectorStore", "chroma"):
        resources.create("VectorStore", "chroma", {"chroma": {"url": server.url}, "probeInterval": "1s"})
    spec = {"storeRef": {"name": "chroma"}, "dimension": 3, "indexName": physical, **spec}
    resources.create("VectorIndex", name, spec)
    return Collection(server, physical)


def test_drift_is_named_and_mended(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, tuning={"chroma": {"hnsw": {"efSearch": 150}}})
    resources.wait_ready("VectorIndex", "index")
    collection.change(new_configuration={"hnsw": {"ef_search": 50}})
    told = "set in the store: tuning.hnsw.ef_search 50 → 150"
    resources.wait("VectorIndex", "index", lambda _: ("DriftCorrected", told) in resources.events("index"), 20)
    found = collection.get()
    assert found is not None
    assert found["configuration_json"]["hnsw"]["ef_search"] == 150  # type: ignore[index]


def test_what_the_spec_leaves_out_is_never_reset(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server)
    resources.wait_ready("VectorIndex", "index")
    collection.change(new_configuration={"hnsw": {"ef_search": 77}})
    time.sleep(3)
    found = collection.get()
    assert found is not None
    assert found["configuration_json"]["hnsw"]["ef_search"] == 77  # type: ignore[index]
    assert resources.get("VectorIndex", "index")["status"]["driftedFields"] == 0


def test_a_removed_mark_is_written_again(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server)
    resources.wait_ready("VectorIndex", "index")
    before = collection.get()
    collection.change(new_metadata={"theirs": "kept"})

    def marked(_: object) -> bool:
        metadata = (collection.get() or {}).get("metadata")
        return isinstance(metadata, dict) and metadata.get("theirs") == "kept" and len(metadata) > 1

    resources.wait("VectorIndex", "index", marked, 20)
    assert before is not None


def test_a_change_above_the_ceiling_is_shown_and_not_done(
    resources: Resources, postgres_server: PostgresServer
) -> None:
    resources.secret("key", username=postgres_server.user, password=postgres_server.password)
    provider = {
        "host": postgres_server.host,
        "port": postgres_server.port,
        "database": postgres_server.database,
        "sslMode": "disable",
    }
    spec = {"pgvector": provider, "controlCredentials": {"name": "key"}, "probeInterval": "1s"}
    resources.create("VectorStore", "postgres", spec)
    name = resources.namespace.replace("-", "_")
    spec = {
        "storeRef": {"name": "postgres"},
        "indexName": name,
        "dimension": 3,
        "tuning": {"pgvector": {"hnsw": {"m": 8}}},
    }
    resources.create("VectorIndex", "index", spec)
    resources.wait_ready("VectorIndex", "index")
    resources.patch("VectorIndex", "index", {"spec": {"tuning": {"pgvector": {"hnsw": {"m": 24}}}}})
    message = resources.wait_condition("VectorIndex", "index", "Drifted", "True", "Drifted")
    assert message == ("tuning.hnsw.m is 8, the spec says 24 (Costly: set spec.updatePolicy: Costly to have it done)")
    body = resources.get("VectorIndex", "index")
    assert body["status"]["drift"] == [{"field": "tuning.hnsw.m", "desired": "24", "observed": "8", "class": "Costly"}]
    resources.patch("VectorIndex", "index", {"spec": {"updatePolicy": "Costly"}})
    resources.wait_condition("VectorIndex", "index", "Synced", "True", "ReconcileSuccess")


def test_vectors_are_counted_at_the_interval_that_was_asked_for(
    resources: Resources, chroma_server: ChromaServer
) -> None:
    spec = {"chroma": {"url": chroma_server.url}, "probeInterval": "1s", "countInterval": "2s"}
    resources.create("VectorStore", "chroma", spec)
    collection = _index(resources, chroma_server)
    resources.wait_ready("VectorIndex", "index")
    collection.add(7, 3)
    resources.wait("VectorIndex", "index", lambda body: body["status"]["vectors"] == 7, 20)


def test_retained_on_deletion_and_found_again(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server)
    resources.wait_ready("VectorIndex", "index")
    collection.add(5, 3)
    resources.delete("VectorIndex", "index")
    resources.wait_gone("VectorIndex", "index")
    told = resources.wait_event("index", "Retained")
    assert told == f"index {collection.name} and its 5 vectors were retained in the store"
    assert collection.count() == 5
    _index(resources, chroma_server)
    resources.wait_condition("VectorIndex", "index", "Stalled", "True", "AlreadyExists")
    resources.patch("VectorIndex", "index", {"spec": {"adoptionPolicy": "IfMatching"}})
    body = resources.wait_ready("VectorIndex", "index")
    assert (body["status"]["adopted"], body["status"]["vectors"]) == (True, 5)


def test_deletion_of_vectors_needs_to_be_confirmed(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, deletionPolicy="Delete")
    resources.wait_ready("VectorIndex", "index")
    collection.add(2, 3)
    resources.delete("VectorIndex", "index")
    message = resources.wait_condition("VectorIndex", "index", "Ready", "False", "DeletionNeedsConfirmation")
    assert f"index {collection.name} holds 2 vectors" in message
    assert collection.count() == 2
    resources.annotate("VectorIndex", "index", confirm_delete=collection.name)
    resources.wait_gone("VectorIndex", "index")
    assert collection.get() is None


def test_release_lets_go_without_the_store(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, deletionPolicy="Delete")
    resources.wait_ready("VectorIndex", "index")
    collection.add(2, 3)
    resources.annotate("VectorIndex", "index", release="true")
    resources.delete("VectorIndex", "index")
    resources.wait_gone("VectorIndex", "index")
    assert collection.count() == 2


def test_a_store_outlives_the_indexes_that_need_it(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, deletionPolicy="Delete")
    resources.wait_ready("VectorIndex", "index")
    resources.delete("VectorStore", "chroma")
    resources.wait_condition("VectorStore", "chroma", "Reconciling", "True", "InUse")
    resources.delete("VectorIndex", "index")
    resources.wait_gone("VectorIndex", "index")
    resources.wait_gone("VectorStore", "chroma")
    assert collection.get() is None


def test_two_resources_that_claim_one_index(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, "first")
    resources.wait_ready("VectorIndex", "first")
    time.sleep(1.1)  # creation is told in whole seconds: the older of the two has the claim
    second = {"chroma": {"url": chroma_server.url.replace("127.0.0.1", "localhost")}, "probeInterval": "1s"}
    resources.create("VectorStore", "same-backend", {**second, "chroma": {"url": chroma_server.url}})
    spec = {"storeRef": {"name": "same-backend"}, "dimension": 3, "indexName": collection.name}
    resources.create("VectorIndex", "second", {**spec, "adoptionPolicy": "IfMatching"})
    message = resources.wait_condition("VectorIndex", "second", "Stalled", "True", "ClaimedByAnother")
    assert message.startswith(f"index {collection.name} is already claimed by VectorIndex {resources.namespace}/first")
    resources.delete("VectorIndex", "first")
    resources.wait_gone("VectorIndex", "first")
    resources.wait_ready("VectorIndex", "second")


def test_observe_changes_nothing(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, managementPolicy="Observe")
    resources.wait_condition("VectorIndex", "index", "Ready", "False", "IndexNotFound")
    assert collection.get() is None
    made = {"name": collection.name, "configuration": {"hnsw": {"space": "cosine", "ef_search": 33}}}
    httpx.post(collection.base, json=made, trust_env=False).raise_for_status()
    before = collection.get()
    resources.patch("VectorIndex", "index", {"spec": {"tuning": {"chroma": {"hnsw": {"efSearch": 99}}}}})
    message = resources.wait_condition("VectorIndex", "index", "Drifted", "True", "Drifted")
    assert message.startswith("tuning.hnsw.ef_search is 33, the spec says 99")
    resources.delete("VectorIndex", "index")
    resources.wait_gone("VectorIndex", "index")
    assert collection.get() == before


def test_pause_and_reconcile_now(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _index(resources, chroma_server, tuning={"chroma": {"hnsw": {"efSearch": 150}}})
    resources.wait_ready("VectorIndex", "index")
    resources.annotate("VectorIndex", "index", paused="true")
    resources.wait_condition("VectorIndex", "index", "Synced", "False", "ReconcilePaused")
    collection.change(new_configuration={"hnsw": {"ef_search": 50}})
    time.sleep(3)
    found = collection.get()
    assert found is not None
    assert found["configuration_json"]["hnsw"]["ef_search"] == 50  # type: ignore[index]
    resources.annotate("VectorIndex", "index", paused="false", reconcile_requested_at="now")
    resources.wait_condition("VectorIndex", "index", "Synced", "True", "ReconcileSuccess")
    assert resources.get("VectorIndex", "index")["status"]["lastHandledReconcileAt"] == "now"


def _text_job(resources: Resources, openai_server: OpenAIServer, server: ChromaServer, url: str) -> Collection:
    resources.secret("key", token=openai_server.key)
    provider = {"baseUrl": openai_server.base_url, "model": "text-embedding-test"}
    resources.create("EmbeddingModel", "model", {"openAI": provider, "credentials": {"name": "key"}})
    collection = _index(resources, server, dimension=None, embeddingModelRef={"name": "model"})
    spec = {
        "indexRef": {"name": "index"},
        "source": {"git": {"url": url}},
        "sync": {"mode": "Sync", "maxDeletePercent": 50},
        "runner": {"type": "InProcess"},
    }
    resources.create("IngestionJob", "job", spec)
    return collection


def _counts(resources: Resources, request: str) -> dict[str, int]:
    """Ask for a run; its counts."""
    resources.annotate("IngestionJob", "job", run_requested_at=request)
    body = resources.wait(
        "IngestionJob",
        "job",
        lambda item: item["status"].get("handledRequest") == request and "run" not in item["status"],
        60,
    )
    assert body["status"]["phase"] == "Succeeded", body["status"]
    counts: dict[str, int] = body["status"]["counts"]
    return counts


def test_documents_from_git_kept_in_sync(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer, git_server: GitServer
) -> None:
    repository = git_server.repository()
    files = {f"docs/{number}.md": f"# Page {number}\n\nWords about topic {number}.\n" for number in range(6)}
    repository.commit(files, message="six pages")
    collection = _text_job(resources, openai_server, chroma_server, repository.url)
    first = resources.wait_phase("job", "Succeeded")["status"]
    assert first["counts"]["documentsNew"] == 6
    assert collection.count() == first["counts"]["vectorsWritten"] == 6
    assert first["verification"] == "Exact"

    def pages() -> list[str]:
        """What was embedded of documents; the operator has a probe of its own embedded now and then."""
        return [text for text in openai_server.embedded if text.startswith("# Page")]

    embedded = pages()

    again = _counts(resources, "again")
    assert (again["documentsUnchanged"], again["vectorsEmbedded"], again["vectorsWritten"]) == (6, 0, 0)
    assert pages() == embedded != []

    repository.commit({"docs/2.md": "# Page 2\n\nOther words.\n", "docs/5.md": None}, message="change one, drop one")
    changed = _counts(resources, "changed")
    assert (changed["documentsReplaced"], changed["documentsDeleted"], changed["documentsUnchanged"]) == (1, 1, 4)
    assert (changed["vectorsWritten"], changed["vectorsDeleted"]) == (1, 2)
    index = resources.wait("VectorIndex", "index", lambda body: body["status"].get("vectors") == 5, 20)
    assert index["status"]["lastIngestedAt"]
    assert collection.count() == 5

    repository.commit({f"docs/{number}.md": None for number in (0, 1, 3)}, message="drop most")
    resources.annotate("IngestionJob", "job", run_requested_at="dropped")
    message = resources.wait_condition("IngestionJob", "job", "Stalled", "True", "TooManyDeletes")
    assert "60" in message
    assert collection.count() == 5


def test_a_new_secret_is_used_without_a_restart(
    resources: Resources, openai_server: OpenAIServer, chroma_server: ChromaServer, git_server: GitServer
) -> None:
    repository = git_server.repository()
    repository.commit({"a.md": "# A\n\nwords\n"}, message="one")
    _text_job(resources, openai_server, chroma_server, repository.url)
    resources.wait_phase("job", "Succeeded")
    openai_server.key = "another-key-altogether"
    resources.secret("key", token=openai_server.key)
    repository.commit({"b.md": "# B\n\nmore words\n"}, message="two")
    assert _counts(resources, "rotated")["documentsNew"] == 1
    assert "another-key-altogether" not in resources.operator.text()
    assert "another-key-altogether" not in json.dumps(resources.get("EmbeddingModel", "model"))


def test_a_run_that_failed_for_its_key_runs_again_with_the_right_one(
    resources: Resources, openai_server: OpenAIServer, chroma_server: ChromaServer, git_server: GitServer
) -> None:
    repository = git_server.repository()
    repository.commit({"a.md": "# A\n\nwords\n"}, message="one")
    _text_job(resources, openai_server, chroma_server, repository.url)
    resources.wait_phase("job", "Succeeded")
    openai_server.key = "another-key-altogether"
    repository.commit({"b.md": "# B\n\nmore words\n"}, message="two")
    resources.annotate("IngestionJob", "job", run_requested_at="with the old key")
    resources.wait_condition("IngestionJob", "job", "Stalled", "True", "AccessDenied")
    resources.secret("key", token=openai_server.key)
    body = resources.wait_phase("job", "Succeeded")
    assert body["status"]["counts"]["documentsNew"] == 1


def _slow_job(resources: Resources, chroma_server: ChromaServer) -> Collection:
    limited = {"chroma": {"url": chroma_server.url}, "probeInterval": "1s", "limits": {"requestsPerSecond": 40}}
    resources.create("VectorStore", "chroma", limited)
    collection = _index(resources, chroma_server, dimension=16)
    lines = [{"id": str(n), "text": f"record {n}", "vector": [n + 1] * 16} for n in range(500)]
    resources.create("IngestionJob", "job", json_lines_job(lines, batch={"maxRecords": 1, "workers": 1}))
    resources.wait("VectorIndex", "index", lambda body: (collection.get() or None) and collection.count() >= 5)
    return collection


def test_suspend_stops_a_run_and_resuming_completes_it(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _slow_job(resources, chroma_server)
    resources.patch("IngestionJob", "job", {"spec": {"suspend": True}})
    resources.wait_phase("job", "Suspended")
    stopped = collection.count()
    assert stopped < 500
    time.sleep(2)
    assert collection.count() == stopped
    resources.patch("IngestionJob", "job", {"spec": {"suspend": False}})
    counts = resources.wait_phase("job", "Succeeded")["status"]["counts"]
    assert collection.count() == 500
    assert counts["vectorsWritten"] <= 500 - stopped + 10


def test_deleting_a_running_job_stops_it(resources: Resources, chroma_server: ChromaServer) -> None:
    collection = _slow_job(resources, chroma_server)
    resources.delete("IngestionJob", "job")
    resources.wait_gone("IngestionJob", "job", 30)
    stopped = collection.count()
    assert stopped < 500
    time.sleep(2)
    assert collection.count() == stopped


def _one_record(resources: Resources, chroma_server: ChromaServer) -> dict[str, object]:
    """A job of one record, which is made; its spec."""
    _index(resources, chroma_server, dimension=3)
    record = {"id": "a", "text": "x", "vector": [1, 2, 3]}
    spec = json_lines_job([record], parse={"type": "jsonLines", "idField": "id"})
    resources.create("IngestionJob", "job", spec)
    return spec


def test_applied_twice_does_nothing_twice(resources: Resources, chroma_server: ChromaServer) -> None:
    spec = _one_record(resources, chroma_server)
    first = resources.wait_phase("job", "Succeeded")
    with pytest.raises(kubernetes.client.ApiException) as refused:
        resources.create("IngestionJob", "job", spec)
    assert refused.value.status == 409
    resources.patch("IngestionJob", "job", {"spec": spec})
    time.sleep(3)
    assert resources.get("IngestionJob", "job")["status"]["lastRuns"] == first["status"]["lastRuns"]


def test_conditions_of_a_finished_job_read_as_current(resources: Resources, chroma_server: ChromaServer) -> None:
    _one_record(resources, chroma_server)
    body = resources.wait_phase("job", "Succeeded")
    for kind in ("Ready", "Complete", "LastRunSucceeded"):
        assert condition(body, kind)["status"] == "True", kind
    assert not condition(body, "Reconciling")
    assert not condition(body, "Stalled")
    table = resources.cluster.kubectl_run("get", "vij", "job", "-n", resources.namespace)
    assert table.splitlines()[0].split() == [
        "NAME", "PHASE", "INDEX", "DONE", "FAILED", "RATE", "ETA", "LASTSUCCESS", "AGE",
    ]  # fmt: skip
