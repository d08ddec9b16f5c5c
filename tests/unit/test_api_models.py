"""The models of the API, as Python sees them.

What is checked: names on the wire; lengths of time; exactly one provider and embedder; statuses that come back as they
were written; unknown fields; the same bounds as the resource definitions; references and names that Kubernetes takes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from vectorwright.api.v1alpha1 import (
    EmbeddingModel,
    EmbeddingModelSpec,
    IngestionJob,
    IngestionJobStatus,
    VectorIndex,
    VectorIndexSpec,
    VectorIndexStatus,
    VectorStore,
    VectorStoreSpec,
    VectorStoreStatus,
)
from vectorwright.api.v1alpha1.common import Condition, ConditionStatus, Duration, ResourceName, seconds
from vectorwright.api.v1alpha1.embeddingmodel import EMBEDDERS
from vectorwright.api.v1alpha1.vectorstore import PROVIDERS
from vectorwright.stores.registry import MODULES

BLOCKS: dict[str, Any] = {
    "pinecone": {},
    "qdrant": {"url": "http://qdrant"},
    "weaviate": {"url": "http://weaviate"},
    "milvus": {"url": "http://milvus"},
    "chroma": {"url": "http://chroma"},
    "pgvector": {"host": "db", "database": "d"},
    "lance": {"path": "x"},
    "faiss": {"path": "x"},
    "memory": {"local": True},
}


# -- lengths of time --
@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("1d", 86400), ("1m1m", 120), ("1h1ms", 3600.001)],
)
def test_a_length_of_time_is_read_as_people_write_it(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


_durations = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"])), min_size=1, max_size=4
)


@given(_durations)
def test_what_the_pattern_takes_can_be_read(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    try:
        TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        assert len(text) > 32
        return
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    assert seconds(text) == pytest.approx(sum(number * factor[unit] for number, unit in parts))


@pytest.mark.parametrize("text", ["", "5", "s", "5 m", "-5m", "1.5h", "5M", "5m ", "5m\n", "1h30"])
def test_anything_else_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Duration).validate_python(text)
    with pytest.raises(ValueError, match="not a duration such as 30s, 5m or 1h30m"):
        seconds(text)


# -- names --
@pytest.mark.parametrize("name", ["a", "a-b", "a.b", "1", "a" * 253, "x-1.y-2"])
def test_names_that_kubernetes_takes_are_taken(name: str) -> None:
    assert TypeAdapter(ResourceName).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a" * 254, "a/b", "../a", "a\n"])
def test_names_that_it_does_not_take_are_not(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ResourceName).validate_python(name)


# -- providers and embedders --
@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_provider_is_the_one_key_that_is_set(provider: str) -> None:
    assert VectorStoreSpec.model_validate({provider: BLOCKS[provider]}).provider == provider


def test_none_and_several_providers_are_none() -> None:
    with pytest.raises(ValueError, match="must be set, found none"):
        _ = VectorStoreSpec.model_validate({}).provider
    with pytest.raises(ValueError, match="must be set, found chroma, memory"):
        _ = VectorStoreSpec.model_validate({key: BLOCKS[key] for key in ("memory", "chroma")}).provider


def test_every_provider_has_a_field_a_module_and_every_embedder_a_field() -> None:
    assert set(PROVIDERS) == set(MODULES) == set(BLOCKS)
    assert set(PROVIDERS) <= set(VectorStoreSpec.model_fields)
    assert set(EMBEDDERS) <= {field.alias for field in EmbeddingModelSpec.model_fields.values()}


def test_the_embedder_is_the_one_key_that_is_set() -> None:
    remote = {"openAI": {"baseUrl": "https://api", "model": "m"}}
    assert EmbeddingModelSpec.model_validate(remote).embedder == "openAI"
    assert EmbeddingModelSpec.model_validate({"local": {"model": "wordllama"}}).embedder == "local"
    with pytest.raises(ValueError, match="found openAI, local"):
        _ = EmbeddingModelSpec.model_validate({**remote, "local": {"model": "wordllama"}}).embedder


# -- the wire --
def test_specs_come_back_as_they_were_written() -> None:
    spec = {
        "storeRef": {"kind": "VectorStore", "name": "vectors"},
        "indexName": "docs",
        "dimension": 4,
        "metric": "dotproduct",
        "metadataFields": [{"name": "lang", "type": "keyword"}],
        "tuning": {"chroma": {"hnsw": {"efSearch": 100}}},
        "updatePolicy": "Costly",
        "onLost": "Recreate",
    }
    assert VectorIndexSpec.model_validate(spec).dump() == spec
    store = {"pgvector": {"host": "db", "database": "d", "schema": "rag", "sslMode": "require"}}
    assert VectorStoreSpec.model_validate(store).dump() == store


STATUSES: list[tuple[Any, dict[str, Any]]] = [
    (
        VectorIndexStatus,
        {
            "observedGeneration": 3,
            "conditions": [
                {
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "3 vectors",
                    "lastTransitionTime": "2026-01-31T12:00:00Z", "observedGeneration": 3,
                }
            ],
            "lastHandledReconcileAt": "now",
            "vectors": 0,
            "vectorsExact": False,
            "adopted": False,
            "lastIngestedAt": "2026-01-31T12:00:00Z",
            "drift": [{"field": "a", "desired": "1", "observed": "2", "class": "Safe"}],
            "driftedFields": 1,
        },
    ),
    (VectorStoreStatus, {"provider": "chroma", "throttled": False, "capabilities": {"metrics": [], "aliases": False}}),
    (
        IngestionJobStatus,
        {
            "phase": "SucceededWithErrors",
            "run": {
                "id": "docs-1", "trigger": "generation-1-i1", "runner": "InProcess",
                "startedAt": "2026-01-31T12:00:00Z", "attempt": 2,
            },
            "handledSlot": "2026-01-31T12:00:00Z",
            "deadLetters": [{"document": "a", "reason": "R", "message": "m"}],
            "lastRuns": [
                {
                    "id": "docs-0", "phase": "Failed", "startedAt": "2026-01-31T12:00:00Z",
                    "finishedAt": "2026-01-31T12:00:01Z", "written": 0, "failed": 0,
                }
            ],
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "status"), STATUSES)
def test_a_status_that_is_read_and_written_again_is_the_same(model: Any, status: dict[str, Any]) -> None:
    """Otherwise every pass would write a status that says nothing new."""
    assert model.model_validate(status).dump() == status


def test_a_point_in_time_is_written_in_whole_seconds_of_utc() -> None:
    condition = Condition(
        type="Ready",
        status=ConditionStatus.TRUE,
        reason="R",
        message="",
        last_transition_time=datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
    )
    assert condition.dump()["lastTransitionTime"] == "2026-01-31T12:00:00Z"


def test_unknown_fields_are_dropped_as_the_api_server_does() -> None:
    spec = {"storeRef": {"name": "v", "namespace": "x"}, "dimension": 4, "colour": "red"}
    assert VectorIndexSpec.model_validate(spec).dump() == {
        "storeRef": {"kind": "VectorStore", "name": "v"},
        "dimension": 4,
    }


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"dimension": 0}, "dimension"),
        ({"dimension": 65536}, "dimension"),
        ({"metric": "l2"}, "metric"),
        ({"indexName": "-x"}, "indexName"),
        ({"metadataFields": [{"name": "1x", "type": "keyword"}]}, "metadataFields"),
        ({"storeRef": {"kind": "Secret", "name": "x"}}, "storeRef"),
        ({"tuning": {"pgvector": {"hnsw": {"m": 1}}}}, "tuning"),
    ],
)
def test_the_bounds_are_those_of_the_resource_definitions(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        VectorIndexSpec.model_validate({"storeRef": {"name": "v"}, "dimension": 4, **spec})
    assert caught.value.errors()[0]["loc"][0] == field


# -- objects --
def test_an_object_knows_whether_it_is_paused_or_on_its_way_out() -> None:
    def index(**metadata: Any) -> VectorIndex:
        return VectorIndex.model_validate(
            {"metadata": {"name": "x", **metadata}, "spec": {"storeRef": {"name": "v"}, "dimension": 4}}
        )

    assert not index().paused
    assert index(annotations={"vectorwright.dev/paused": "True"}).paused
    assert not index(annotations={"vectorwright.dev/paused": "false"}).paused
    assert not index().deleting
    assert index(deletionTimestamp="2026-01-01T00:00:00Z").deleting
    assert index(namespace="a").key == ("a", "x")


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (VectorStore, {"memory": {"local": True}}),
        (EmbeddingModel, {"local": {"model": "wordllama"}}),
        (VectorIndex, {"storeRef": {"name": "v"}, "dimension": 4}),
        (IngestionJob, {"indexRef": {"name": "i"}, "source": {"configMap": {"name": "c"}}}),
    ],
)
def test_an_object_without_a_status_has_an_empty_one(model: Any, spec: dict[str, Any]) -> None:
    assert model.model_validate({"metadata": {"name": "x"}, "spec": spec}).status.dump() == {}


def test_what_manages_is_everything_but_observe() -> None:
    base = {"storeRef": {"name": "v"}, "dimension": 4}
    assert VectorIndexSpec.model_validate(base).manages
    assert VectorIndexSpec.model_validate({**base, "managementPolicy": "Manage"}).manages
    assert not VectorIndexSpec.model_validate({**base, "managementPolicy": "Observe"}).manages
