"""From an IngestionJob and what it refers to, to what a worker is handed.

What is checked: everything that is resolved, and with which defaults; what is waited for and what is refused, in words;
files for credentials, certificates and ConfigMaps, the same for a pod and for a child; no value of a Secret in the
specification; two jobs under one source name; who writes to an index alone.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.reconciling import NAMESPACE, World, resource

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.errors import Retryable, Terminal, VectorwrightError
from vectorwright.kube.status import merge_conditions
from vectorwright.reconcile.connections import Reference
from vectorwright.reconcile.handover import RunFile, RunInputs
from vectorwright.reconcile.outcome import ready_conditions, waiting_conditions
from vectorwright.reconcile.run_inputs import gather
from vectorwright.reconcile.run_rivals import source_name

READY = {"conditions": merge_conditions((), ready_conditions("fine"), 1)}
WAITING = {"conditions": merge_conditions((), waiting_conditions("StoreNotReady", "the store is down"), 1)}
INDEX_STATUS = {
    **READY, "physicalName": "docs-g1", "incarnation": "i1", "dimension": 4, "metric": "dotproduct", "backendId": "b1",
}  # fmt: skip
MODEL_STATUS = {**READY, "fingerprint": "print-1", "dimension": 4}


class Cluster(World):
    """Objects as the watch would have delivered them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.put("VectorStore", "vectors", {"chroma": {"url": "http://chroma:8000"}}, READY)
        self.put("EmbeddingModel", "small", {"local": {"model": "wordllama"}}, MODEL_STATUS)
        index = {"storeRef": {"name": "vectors"}, "embeddingModelRef": {"name": "small"}}
        self.put("VectorIndex", "docs", index, INDEX_STATUS)

    def put(self, kind: str, name: str, spec: Any, status: Any = None, **metadata: Any) -> IngestionJob | None:
        made = {"uid": f"uid-{kind}-{name}", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, **metadata}
        body = self.api.apply({**resource(kind, name, spec, **made), "status": status or {}})
        self.context.cache.put(kind, body)
        return IngestionJob.model_validate(body) if kind == "IngestionJob" else None

    def job(self, name: str = "fill", **spec: Any) -> IngestionJob:
        metadata = spec.pop("metadata", {})
        given = {"indexRef": {"name": "docs"}, "source": {"inline": {"documents": [{"id": "a", "text": "t"}]}}, **spec}
        job = self.put("IngestionJob", name, given, **metadata)
        assert job is not None
        return job

    async def gather(self, job: IngestionJob | None = None, used: list[Reference] | None = None) -> RunInputs:
        return await gather(self.context, job or self.job(), "run-1", used if used is not None else [])

    async def refused(self, job: IngestionJob | None = None) -> VectorwrightError:
        with pytest.raises(VectorwrightError) as caught:
            await self.gather(job)
        return caught.value


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


# -- resolved --
async def test_everything_that_a_run_needs_is_resolved(cluster: Cluster) -> None:
    inputs = await cluster.gather()
    spec, store = inputs.spec, inputs.spec.store
    assert (inputs.backend_id, inputs.incarnation) == ("b1", "i1")
    assert (spec.run_id, spec.job, spec.source_name) == ("run-1", "team-a/fill", "team-a/fill")
    assert (store.provider, store.settings) == ("chroma", {"url": "http://chroma:8000"})
    assert (store.index, store.incarnation, store.dimension, store.metric) == ("docs-g1", "i1", 4, "dotproduct")
    assert (store.timeout, store.requests_per_second, store.bytes_per_second) == (30.0, None, None)
    assert store.sole_writer is True
    assert spec.embedder is not None
    assert (spec.embedder.fingerprint, spec.embedder.spec.embedder) == ("print-1", "local")
    assert spec.deadline_seconds == 6 * 3600
    assert spec.network.allow_networks == []
    assert inputs.files == ()


async def test_what_the_specs_say_is_handed_on() -> None:
    cluster = Cluster(allow_networks=("10.0.0.0/8",))
    limits = {"requestsPerSecond": 5, "bytesPerSecond": 2048, "timeout": "5s"}
    tls = {"serverName": "chroma.internal", "insecureSkipVerify": True}
    cluster.put("VectorStore", "vectors", {"chroma": {"url": "https://chroma"}, "limits": limits, "tls": tls}, READY)
    fields = [{"name": "lang", "type": "keyword"}]
    cluster.put("VectorIndex", "docs", {"storeRef": {"name": "vectors"}, "metadataFields": fields}, INDEX_STATUS)
    job = cluster.job(
        sourceName="team/one",
        embedding={"precomputed": {"field": "vector"}},
        batch={"maxRecords": 7},
        sync={"mode": "Sync"},
        budget={"maxTokens": 9},
        maxDeadLetters=3,
        runner={"deadline": "1h"},
    )
    spec = (await cluster.gather(job)).spec
    assert (spec.store.requests_per_second, spec.store.bytes_per_second, spec.store.timeout) == (5.0, 2048, 5.0)
    assert (spec.store.server_name, spec.store.insecure_skip_verify) == ("chroma.internal", True)
    assert spec.store.fields == {"lang": "keyword"}
    assert (spec.source_name, spec.precomputed_field, spec.embedder) == ("team/one", "vector", None)
    assert (spec.batch.max_records, spec.budget.max_tokens, spec.max_dead_letters) == (7, 9, 3)
    assert spec.deadline_seconds == 3600
    assert spec.network.allow_networks == ["10.0.0.0/8"]


async def test_the_source_name_is_that_of_the_spec_or_the_jobs_own(cluster: Cluster) -> None:
    assert source_name(cluster.job()) == "team-a/fill"
    assert source_name(cluster.job(sourceName="x")) == "x"


# -- files --
async def test_credentials_and_certificates_come_as_files_and_never_in_the_specification(cluster: Cluster) -> None:
    cluster.secrets.set(NAMESPACE, "store-key", apiKey="store-token-value\n")
    cluster.secrets.set(NAMESPACE, "git-key", username="ada-lovelace", password="git-password-value")
    cluster.secrets.set(NAMESPACE, "model-key", token="model-token-value")
    cluster.config_maps.set(NAMESPACE, "ca", ca__crt="PEM")
    store = {
        "chroma": {"url": "https://chroma"},
        "controlCredentials": {"name": "admin-key"},
        "dataCredentials": {"name": "store-key", "tokenKey": "apiKey"},
        "tls": {"caConfigMap": {"name": "ca"}},
    }
    cluster.put("VectorStore", "vectors", store, READY)
    model = {"openAI": {"baseUrl": "https://api", "model": "m"}, "credentials": {"name": "model-key"}}
    cluster.put("EmbeddingModel", "small", model, MODEL_STATUS)
    git = {"url": "https://git.example.com/a.git", "credentials": {"name": "git-key"}}
    used: list[Reference] = []
    inputs = await cluster.gather(cluster.job(source={"git": git}), used)
    assert [(file.path, file.kind, file.name, file.key) for file in inputs.files] == [
        ("credentials/store/token", "Secret", "store-key", "apiKey"),
        ("tls/store/ca.crt", "ConfigMap", "ca", "ca.crt"),
        ("credentials/embedder/token", "Secret", "model-key", "token"),
        ("credentials/source/username", "Secret", "git-key", "username"),
        ("credentials/source/password", "Secret", "git-key", "password"),
    ]
    assert inputs.files[0].content == b"store-token-value"
    told = inputs.spec.model_dump_json() + repr(inputs)
    assert not any(value in told for value in ("store-token-value", "git-password-value", "model-token-value", "ada-"))
    assert {reference.name for reference in used} == {"store-key", "git-key", "model-key", "ca"}
    assert "admin-key" not in {reference.name for reference in used}, "control credentials stay with the operator"


async def test_a_config_map_is_handed_over_key_by_key(cluster: Cluster) -> None:
    cluster.config_maps.set(NAMESPACE, "texts", b__md="B", a__md="A")
    whole = await cluster.gather(cluster.job(source={"configMap": {"name": "texts"}}))
    assert whole.files == (
        RunFile("configmap/a.md", "ConfigMap", "texts", "a.md", b"A"),
        RunFile("configmap/b.md", "ConfigMap", "texts", "b.md", b"B"),
    )
    part = await cluster.gather(cluster.job(source={"configMap": {"name": "texts", "keys": ["b.md"]}}))
    assert [file.key for file in part.files] == ["b.md"]


async def test_a_changed_secret_changes_what_is_handed_over(cluster: Cluster) -> None:
    cluster.put("VectorStore", "vectors", {"chroma": {"url": "http://c"}, "controlCredentials": {"name": "key"}}, READY)
    cluster.secrets.set(NAMESPACE, "key", token="first")
    before = (await cluster.gather()).digest()
    assert (await cluster.gather()).digest() == before
    cluster.secrets.set(NAMESPACE, "key", token="second")
    assert (await cluster.gather()).digest() != before


# -- waited for --
async def test_what_can_still_come_is_waited_for(cluster: Cluster) -> None:
    for kind, name, reason, message in (
        ("EmbeddingModel", "small", "ModelNotReady", "EmbeddingModel small is not ready"),
        ("VectorStore", "vectors", "StoreNotFound", "VectorStore vectors does not exist"),
        ("VectorIndex", "docs", "IndexNotFound", "VectorIndex docs does not exist in namespace team-a: create it"),
    ):
        body = cluster.context.cache.get(kind, NAMESPACE, name)
        assert body is not None
        cluster.context.cache._objects[kind].clear()
        error = await cluster.refused()
        assert isinstance(error, Retryable)
        assert (error.reason, error.message) == (reason, message)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({}, "VectorIndex docs is not ready: it was not reconciled yet"),
        (WAITING, "VectorIndex docs is not ready: the store is down"),
        (READY, "VectorIndex docs is not ready: fine"),
    ],
)
async def test_an_index_that_is_not_ready_is_waited_for(cluster: Cluster, status: Any, message: str) -> None:
    cluster.put("VectorIndex", "docs", {"storeRef": {"name": "vectors"}, "dimension": 4}, status)
    cluster.context.cache.put("VectorIndex", cluster.api.set_status("VectorIndex", NAMESPACE, "docs", status))
    error = await cluster.refused()
    assert isinstance(error, Retryable)
    assert (error.reason, error.message) == ("IndexNotReady", message)


async def test_an_index_that_is_being_deleted_is_not_filled(cluster: Cluster) -> None:
    body = cluster.api.get_now("VectorIndex", NAMESPACE, "docs")
    body["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"
    body["metadata"]["resourceVersion"] = "999"
    cluster.context.cache.put("VectorIndex", body)
    error = await cluster.refused()
    assert isinstance(error, Retryable)
    assert error.message == "VectorIndex docs is being deleted"


# -- refused --
async def test_vectors_must_come_from_somewhere(cluster: Cluster) -> None:
    cluster.put("VectorIndex", "plain", {"storeRef": {"name": "vectors"}, "dimension": 4}, INDEX_STATUS)
    error = await cluster.refused(cluster.job(indexRef={"name": "plain"}))
    assert isinstance(error, Terminal)
    assert (error.reason, error.message) == (
        "NoEmbeddingModel",
        (
            "VectorIndex plain has no embedding model: set its spec.embeddingModelRef, or spec.embedding.precomputed "
            "of this job where vectors come with the records"
        ),
    )


async def test_a_config_map_key_that_is_missing_is_named(cluster: Cluster) -> None:
    cluster.config_maps.set(NAMESPACE, "texts", a="A")
    error = await cluster.refused(cluster.job(source={"configMap": {"name": "texts", "keys": ["a", "c", "b"]}}))
    assert (error.reason, error.message) == (
        "ConfigMapKeyMissing",
        "ConfigMap team-a/texts has no key b, c",
    )
    gone = await cluster.refused(cluster.job(source={"configMap": {"name": "none"}}))
    assert (gone.reason, gone.message) == ("ConfigMapNotFound", "ConfigMap team-a/none does not exist: create it")


async def test_a_certificate_authority_that_is_empty_is_refused_here_too(cluster: Cluster) -> None:
    cluster.secrets.set(NAMESPACE, "ca", other="x")
    http = {"urls": ["https://example.com"], "tls": {"caSecret": {"name": "ca"}}}
    error = await cluster.refused(cluster.job(source={"http": http}))
    assert (error.reason, error.message) == ("SecretKeyMissing", "Secret team-a/ca has no key 'ca.crt'")


async def test_of_two_jobs_under_one_source_name_the_younger_is_refused(cluster: Cluster) -> None:
    first = cluster.job("first", sourceName="docs", metadata={"creationTimestamp": "2026-01-01T00:00:00Z"})
    second = cluster.job("second", sourceName="docs", metadata={"creationTimestamp": "2026-01-02T00:00:00Z"})
    error = await cluster.refused(second)
    assert isinstance(error, Terminal)
    assert (error.reason, error.message) == (
        "SourceNameTaken",
        (
            "IngestionJob first already fills VectorIndex docs under the source name 'docs': give this job its own "
            "spec.sourceName"
        ),
    )
    assert (await cluster.gather(first)).spec.store.sole_writer is False


async def test_twins_of_one_second_are_told_apart_by_name(cluster: Cluster) -> None:
    a, b = (cluster.job(name, sourceName="docs") for name in ("a", "b"))
    await cluster.gather(a)
    assert (await cluster.refused(b)).reason == "SourceNameTaken"


async def test_other_indexes_and_namespaces_are_no_rivals(cluster: Cluster) -> None:
    cluster.put("VectorIndex", "other", {"storeRef": {"name": "vectors"}, "dimension": 4}, INDEX_STATUS)
    cluster.job("elsewhere", sourceName="docs", indexRef={"name": "other"})
    cluster.job("neighbour", sourceName="docs", metadata={"namespace": "team-b"})
    assert (await cluster.gather(cluster.job(sourceName="docs"))).spec.store.sole_writer is True


async def test_a_broken_job_beside_it_is_no_trouble(cluster: Cluster) -> None:
    """An API server with older resource definitions lets such things through."""
    broken = resource("IngestionJob", "broken", {"indexRef": {"name": "docs"}, "source": 5}, uid="uid-broken")
    cluster.context.cache.put("IngestionJob", cluster.api.apply(broken))
    assert (await cluster.gather()).spec.job == "team-a/fill"


async def test_a_model_that_changed_is_not_used_before_its_index_decided(cluster: Cluster) -> None:
    """Otherwise vectors of two models could meet in one index."""
    index = {"storeRef": {"name": "vectors"}, "embeddingModelRef": {"name": "small"}}
    cluster.put("VectorIndex", "docs", index, None)
    recorded = {**INDEX_STATUS, "modelFingerprint": "print-0"}
    cluster.context.cache.put("VectorIndex", cluster.api.set_status("VectorIndex", NAMESPACE, "docs", recorded))
    error = await cluster.refused()
    assert isinstance(error, Retryable)
    assert error.message == "VectorIndex docs has not taken up EmbeddingModel small as it is now"


async def test_an_index_that_is_only_observed_may_have_other_writers(cluster: Cluster) -> None:
    index = {"storeRef": {"name": "vectors"}, "dimension": 4, "managementPolicy": "Observe"}
    cluster.put("VectorIndex", "watched", index, INDEX_STATUS)
    job = cluster.job(indexRef={"name": "watched"}, embedding={"precomputed": {"field": "v"}})
    assert (await cluster.gather(job)).spec.store.sole_writer is False
