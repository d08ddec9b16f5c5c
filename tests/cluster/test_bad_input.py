"""What a user sees when something is wrong: condition, reason and message of each case, on a real API server.

Aspects covered: Secrets (missing, without the key, with the wrong value); a store that is down, behind the wrong
certificate, or deleted from; an index that exists otherwise; another model; sources that do not exist, are private, or
are empty; documents that are no text, too large, doubled, or carry wrong vectors; an embedder that talks rubbish; a
store that dies in the middle of a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from deploy.devcluster.processes import free_port
from tests.support.chroma import ChromaServer, StartChroma
from tests.support.git import GitServer
from tests.support.http_files import HttpFiles
from tests.support.json_lines import json_lines_job
from tests.support.openai import Fault, FaultKind, OpenAIServer
from tests.support.postgres import PostgresServer
from tests.support.tls import TlsFront
from tests.support.vectorwright import Resources, condition

pytestmark = pytest.mark.cluster

Spec = dict[str, object]


def _chroma(server: ChromaServer) -> Spec:
    # Every test has its own names in the shared server, and its own timer: quick, so that drift is seen within a test.
    return {"chroma": {"url": server.url}, "probeInterval": "1s"}


def _collections(server: ChromaServer) -> str:
    return f"{server.url}/api/v2/tenants/default_tenant/databases/default_database/collections"


def _stalled(resources: Resources, kind: str, name: str, reason: str) -> str:
    """The message, once the resource has failed for good in the eyes of every tool."""
    message = resources.wait_condition(kind, name, "Stalled", "True", reason)
    body = resources.get(kind, name)
    assert condition(body, "Ready")["status"] == "False"
    assert condition(body, "Ready")["reason"] == reason
    assert not condition(body, "Reconciling")
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"]
    return message


def _index(resources: Resources, name: str, server: ChromaServer, **spec: object) -> str:
    """A store and a VectorIndex whose name in the store is this test's own."""
    physical = f"{resources.namespace}-{name}"
    if not resources.exists("VectorStore", "chroma"):
        resources.create("VectorStore", "chroma", _chroma(server))
    resources.create("VectorIndex", name, {"storeRef": {"name": "chroma"}, "indexName": physical, **spec})
    return physical


def _jsonl_job(resources: Resources, lines: list[object], **spec: Any) -> None:
    resources.create("IngestionJob", "job", json_lines_job(lines, **spec))


def _dead_letters(body: dict[str, object]) -> dict[str, str]:
    """Document → reason of the dead letters in a job's status."""
    status = body["status"]
    assert isinstance(status, dict)
    return {letter["document"]: letter["reason"] for letter in status.get("deadLetters", [])}


def test_secret_that_does_not_exist(resources: Resources, chroma_server: ChromaServer) -> None:
    resources.create("VectorStore", "store", {**_chroma(chroma_server), "controlCredentials": {"name": "key"}})
    message = _stalled(resources, "VectorStore", "store", "SecretNotFound")
    assert message == f"Secret {resources.namespace}/key does not exist: create it"


def test_secret_without_the_key_and_its_repair_is_noticed(resources: Resources, chroma_server: ChromaServer) -> None:
    resources.secret("key", other="value-that-is-secret")
    spec = {**_chroma(chroma_server), "controlCredentials": {"name": "key", "tokenKey": "api-key"}}
    resources.create("VectorStore", "store", spec)
    message = _stalled(resources, "VectorStore", "store", "SecretKeyMissing")
    assert message == f"Secret {resources.namespace}/key has no key 'api-key' (it has: other)"
    resources.secret("key", **{"api-key": "abcdefgh"})
    resources.wait_ready("VectorStore", "store")


def test_wrong_password(resources: Resources, postgres_server: PostgresServer) -> None:
    resources.secret("key", username=postgres_server.user, password="not-the-password")
    provider = {
        "host": postgres_server.host,
        "port": postgres_server.port,
        "database": postgres_server.database,
        "sslMode": "disable",
    }
    resources.create("VectorStore", "store", {"pgvector": provider, "controlCredentials": {"name": "key"}})
    message = _stalled(resources, "VectorStore", "store", "AccessDenied")
    assert postgres_server.host in message
    assert "not-the-password" not in json.dumps(resources.get("VectorStore", "store"))
    assert "not-the-password" not in resources.operator.text()
    resources.secret("key", username=postgres_server.user, password=postgres_server.password)
    resources.wait_ready("VectorStore", "store")


def test_store_that_is_down(resources: Resources) -> None:
    port = free_port()
    resources.create("VectorStore", "store", {"chroma": {"url": f"http://127.0.0.1:{port}"}, "probeInterval": "1s"})
    message = resources.wait_condition("VectorStore", "store", "Reconciling", "True", "Unreachable")
    assert f"127.0.0.1:{port}" in message
    assert not condition(resources.get("VectorStore", "store"), "Stalled")
    resources.create("VectorIndex", "index", {"storeRef": {"name": "store"}, "dimension": 3})
    waiting = resources.wait_condition("VectorIndex", "index", "Ready", "False", "StoreNotReady")
    assert waiting.startswith("VectorStore store is not ready: ")


def test_certificate_of_an_unknown_authority(
    resources: Resources, chroma_server: ChromaServer, tls_front: Callable[[int], TlsFront]
) -> None:
    front = tls_front(chroma_server.port)
    resources.create("VectorStore", "store", {"chroma": {"url": front.url}, "probeInterval": "1s"})
    message = _stalled(resources, "VectorStore", "store", "TLSVerificationFailed")
    assert message.endswith("set the CA bundle or the server name in spec.tls")
    resources.config_map("authority", **{"ca.crt": front.ca_file.read_text()})
    resources.patch("VectorStore", "store", {"spec": {"tls": {"caConfigMap": {"name": "authority"}}}})
    resources.wait_ready("VectorStore", "store")


def test_index_that_exists_with_another_dimension(resources: Resources, chroma_server: ChromaServer) -> None:
    name = f"{resources.namespace}-index"
    made = httpx.post(_collections(chroma_server), json={"name": name}, trust_env=False).raise_for_status().json()
    record = {"ids": ["a"], "embeddings": [[1.0, 2.0, 3.0, 4.0]]}
    httpx.post(f"{_collections(chroma_server)}/{made['id']}/add", json=record, trust_env=False).raise_for_status()
    _index(resources, "index", chroma_server, dimension=3, metric="euclidean")
    message = _stalled(resources, "VectorIndex", "index", "AlreadyExists")
    assert message == (
        f"index {name} exists in the store (dimension 4, euclidean) and was not made by this resource: set "
        "spec.adoptionPolicy: IfMatching to take it over, or another spec.indexName"
    )
    resources.patch("VectorIndex", "index", {"spec": {"adoptionPolicy": "IfMatching"}})
    message = _stalled(resources, "VectorIndex", "index", "DimensionMismatch")
    assert message == (
        f"index {name} has dimension 4, the spec wants 3: nothing was touched; use another spec.indexName, or the "
        "dimension that it has"
    )
    left = httpx.get(f"{_collections(chroma_server)}/{name}", trust_env=False).raise_for_status().json()
    assert (left["id"], left["metadata"]) == (made["id"], made["metadata"])


def test_index_deleted_behind_its_back(resources: Resources, chroma_server: ChromaServer) -> None:
    name = _index(resources, "index", chroma_server, dimension=3)
    before = resources.wait_ready("VectorIndex", "index")["status"]["incarnation"]
    httpx.delete(f"{_collections(chroma_server)}/{name}", trust_env=False).raise_for_status()
    message = _stalled(resources, "VectorIndex", "index", "IndexLost")
    assert message == (
        f"index {name} is gone from the store, with its vectors: restore it there, or set spec.onLost: Recreate to "
        "make an empty one"
    )
    assert httpx.get(f"{_collections(chroma_server)}/{name}", trust_env=False).status_code == 404
    resources.patch("VectorIndex", "index", {"spec": {"onLost": "Recreate"}})
    after = resources.wait_ready("VectorIndex", "index")["status"]["incarnation"]
    assert after != before


def test_another_model_of_the_same_dimension(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer
) -> None:
    openai_server.models["other-model"] = next(iter(openai_server.models.values()))
    resources.secret("key", token=openai_server.key)
    for name, model in (("first", "text-embedding-test"), ("second", "other-model")):
        provider = {"baseUrl": openai_server.base_url, "model": model}
        resources.create("EmbeddingModel", name, {"openAI": provider, "credentials": {"name": "key"}})
    name = _index(resources, "index", chroma_server, embeddingModelRef={"name": "first"})
    body = resources.wait_ready("VectorIndex", "index")
    record = {"ids": ["a"], "embeddings": [[0.5] * body["status"]["dimension"]]}
    where = f"{_collections(chroma_server)}/{body['status']['incarnation']}/add"
    httpx.post(where, json=record, trust_env=False).raise_for_status()
    resources.patch("VectorIndex", "index", {"spec": {"embeddingModelRef": {"name": "second"}}})
    message = _stalled(resources, "VectorIndex", "index", "ModelMismatch")
    first, second = (resources.get("EmbeddingModel", item)["status"]["fingerprint"] for item in ("first", "second"))
    assert message == (
        f"index {name} holds vectors of another embedding model (fingerprint {first}, the spec's is {second}): they "
        "cannot be mixed; use the model that made them, or a new VectorIndex"
    )


def test_embedder_that_answers_rubbish(resources: Resources, openai_server: OpenAIServer) -> None:
    openai_server.always = Fault(FaultKind.RUBBISH)
    resources.secret("key", token=openai_server.key)
    provider = {"baseUrl": openai_server.base_url, "model": "text-embedding-test"}
    resources.create("EmbeddingModel", "model", {"openAI": provider, "credentials": {"name": "key"}})
    resources.wait_condition("EmbeddingModel", "model", "Reconciling", "True", "EmbedderBadAnswer")
    assert openai_server.key not in resources.operator.text()
    openai_server.always = None
    resources.wait_ready("EmbeddingModel", "model", 30)


def _text_job(resources: Resources, source: Spec, **spec: object) -> None:
    resources.create(
        "IngestionJob",
        "job",
        {"indexRef": {"name": "index"}, "source": source, "runner": {"type": "InProcess"}, **spec},
    )


def _text_index(resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer) -> str:
    resources.secret("key", token=openai_server.key)
    provider = {"baseUrl": openai_server.base_url, "model": "text-embedding-test"}
    resources.create("EmbeddingModel", "model", {"openAI": provider, "credentials": {"name": "key"}})
    return _index(resources, "index", chroma_server, embeddingModelRef={"name": "model"})


def test_git_repository_that_does_not_exist(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer, git_server: GitServer
) -> None:
    _text_index(resources, chroma_server, openai_server)
    url = git_server.repository().url.rsplit("/", 1)[0] + "/no-such-repository.git"
    _text_job(resources, {"git": {"url": url}})
    message = _stalled(resources, "IngestionJob", "job", "RepositoryNotFound")
    assert url in message
    assert resources.get("IngestionJob", "job")["status"]["phase"] == "Failed"


@pytest.mark.parametrize("address", ["http://169.254.169.254/latest/meta-data", "http://10.1.2.3/x", "http://[::1]/x"])
def test_url_on_a_private_address(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer, address: str
) -> None:
    _text_index(resources, chroma_server, openai_server)
    _text_job(resources, {"http": {"urls": [address]}})
    body = resources.wait_phase("job", "Failed", "SucceededWithErrors")
    assert "AddressRefused" in json.dumps(body["status"])
    assert "--allow-networks" in json.dumps(body["status"])


def test_empty_source(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer, git_server: GitServer
) -> None:
    repository = git_server.repository()
    repository.commit({"a.py": "print(1)\n"}, message="one")
    _text_index(resources, chroma_server, openai_server)
    _text_job(resources, {"git": {"url": repository.url, "include": ["**/*.md"]}})
    message = _stalled(resources, "IngestionJob", "job", "EmptySource")
    assert "include" in message or "matches" in message


def test_document_that_is_no_text(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer, http_files: HttpFiles
) -> None:
    _text_index(resources, chroma_server, openai_server)
    bad = http_files.put("/bad.txt", b"\x00\x01\x02binary\x00")
    good = http_files.put("/good.txt", b"plain words")
    _text_job(resources, {"http": {"urls": [bad, good]}})
    body = resources.wait_phase("job", "SucceededWithErrors")
    assert _dead_letters(body) == {bad: "BinaryContent"}
    counts = body["status"]["counts"]
    assert (counts["documentsNew"], counts["documentsFailed"]) == (1, 1)


def test_document_of_ten_megabytes(
    resources: Resources, chroma_server: ChromaServer, openai_server: OpenAIServer, http_files: HttpFiles
) -> None:
    _text_index(resources, chroma_server, openai_server)
    large = http_files.put("/large.txt", b"word " * (2 * 2**20))
    small = http_files.put("/small.txt", b"plain words")
    _text_job(resources, {"http": {"urls": [large, small]}})
    body = resources.wait_phase("job", "SucceededWithErrors")
    assert _dead_letters(body) == {large: "DocumentTooLarge"}
    assert "8388608" in body["status"]["deadLetters"][0]["message"] or "8 MiB" in json.dumps(body["status"])


def test_vectors_that_are_wrong_and_ids_that_repeat(resources: Resources, chroma_server: ChromaServer) -> None:
    _index(resources, "index", chroma_server, dimension=3)
    _jsonl_job(
        resources,
        [
            {"id": "good", "text": "a", "vector": [1, 2, 3]},
            {"id": "short", "text": "b", "vector": [1, 2]},
            '{"id": "nan", "text": "c", "vector": [1, NaN, 3]}',
            {"id": "zero", "text": "d", "vector": [0, 0, 0]},
            {"id": "good", "text": "e", "vector": [3, 2, 1]},
            "this is no JSON",
        ],
    )
    body = resources.wait_phase("job", "SucceededWithErrors")
    reasons = sorted(_dead_letters(body).values()) + sorted(
        letter["reason"] for letter in body["status"]["deadLetters"] if letter["document"].endswith("good")
    )
    assert {"WrongDimension", "ZeroVector", "DuplicateId"} <= set(reasons)
    assert {"NotFinite", "BadVector"} & set(reasons)
    counts = body["status"]["counts"]
    assert counts["vectorsWritten"] == 1
    assert counts["documentsFailed"] == 5
    index = resources.wait("VectorIndex", "index", lambda item: item["status"].get("vectors") == 1)
    assert index["status"]["vectorsExact"] is True


def test_too_many_dead_letters_fail_the_run(resources: Resources, chroma_server: ChromaServer) -> None:
    _index(resources, "index", chroma_server, dimension=3)
    lines: list[object] = [{"id": str(number), "text": "x", "vector": [number]} for number in range(4)]
    _jsonl_job(resources, lines, maxDeadLetters=2)
    _stalled(resources, "IngestionJob", "job", "TooManyDeadLetters")


def test_store_that_dies_in_the_middle_of_a_run(resources: Resources, start_chroma: StartChroma) -> None:
    server = start_chroma()
    _index(resources, "index", server, dimension=16)
    lines: list[object] = [
        {"id": str(number), "text": f"record {number}", "vector": [number + 1] * 16} for number in range(400)
    ]
    _jsonl_job(resources, lines, batch={"maxRecords": 2, "workers": 1})
    resources.wait("IngestionJob", "job", lambda body: body.get("status", {}).get("run"))
    name = resources.get("VectorIndex", "index")["status"]["physicalName"]
    where = f"{_collections(server)}/{resources.get('VectorIndex', 'index')['status']['incarnation']}/count"

    def begun(_: object) -> bool:
        return int(httpx.get(where, trust_env=False).text) >= 20

    resources.wait("IngestionJob", "job", begun)
    server.kill()
    resources.wait_condition("VectorStore", "chroma", "Reconciling", "True", "Unreachable")
    server.start()
    body = resources.wait_phase("job", "Succeeded")
    assert body["status"]["counts"]["documentsFailed"] == 0
    index = resources.wait("VectorIndex", "index", lambda item: item["status"].get("vectors") == 400)
    assert index["status"]["physicalName"] == name
