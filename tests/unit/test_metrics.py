"""Metrics: series of an object go with it, a counter follows a run's own count, names keep to the rules."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vectorwright.observability import metrics
from vectorwright.observability.series import ObjectCounter, ObjectGauge


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        if dict(sample.labels).get("namespace") in (None, "team")  # others' are those of tests that came before
    }


def test_every_series_of_an_object_is_forgotten_with_it() -> None:
    metrics.INDEX_READY.set("team", "docs", 1, store="main")
    metrics.INDEX_VECTORS.set("team", "docs", 1200, store="main")
    metrics.INDEX_VECTORS.set("team", "other", 7, store="main")
    metrics.STORE_UP.set("team", "docs", 1)
    metrics.INGEST_VECTORS.inc("team", "docs", 3)
    assert ("vectorwright_index_vectors", (("name", "docs"), ("namespace", "team"), ("store", "main"))) in samples()
    metrics.forget("VectorIndex", "team", "docs")
    left = {(name, dict(labels)["name"]) for name, labels in samples() if "namespace" in dict(labels)}
    assert left == {
        ("vectorwright_index_vectors", "other"),
        ("vectorwright_store_up", "docs"),
        ("vectorwright_ingest_vectors_total", "docs"),
    }
    for kind, name in (("VectorIndex", "other"), ("VectorStore", "docs"), ("IngestionJob", "docs")):
        metrics.forget(kind, "team", name)
    assert not [labels for _, labels in samples() if "namespace" in dict(labels)]


def test_an_index_that_changes_its_store_has_one_series() -> None:
    gauge = ObjectGauge("g", "doc", "VectorIndex", ("store",))
    gauge.set("n", "i", 1, store="a")
    gauge.set("n", "i", 2, store="b")
    assert gauge.value("n", "i", store="a") is None
    assert gauge.value("n", "i", store="b") == 2


def test_a_counter_follows_what_runs_report() -> None:
    counter = ObjectCounter("c", "doc", "IngestionJob", ("outcome",))
    counter.follow("n", "j", "run-1", 10, outcome="done")
    counter.follow("n", "j", "run-1", 25, outcome="done")
    counter.follow("n", "j", "run-1", 25, outcome="done")
    counter.follow("n", "j", "run-1", 20, outcome="done")
    counter.follow("n", "j", "run-1", 2, outcome="failed")
    counter.follow("n", "j", "run-2", 5, outcome="done")
    assert counter.value("n", "j", outcome="done") == 30
    assert counter.value("n", "j", outcome="failed") == 2
    counter.forget("n", "j")
    counter.follow("n", "j", "run-2", 6, outcome="done")
    assert counter.value("n", "j", outcome="done") == 6


def test_a_counter_does_not_go_down() -> None:
    with pytest.raises(ValueError, match="cannot go down"):
        ObjectCounter("c", "doc", "IngestionJob").inc("n", "j", -1)


def test_labels_must_be_complete() -> None:
    with pytest.raises(ValueError, match="store"):
        ObjectGauge("g", "doc", "VectorIndex", ("store",)).set("n", "i", 1)


def test_names_begin_with_ours_and_use_base_units() -> None:
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        assert family.documentation
        assert family.name.startswith(("vectorwright_", "process_"))
        assert not family.name.endswith(("_ms", "_milliseconds", "_mb", "_minutes"))
        assert not any(sample.name.endswith("_created") for sample in family.samples)
