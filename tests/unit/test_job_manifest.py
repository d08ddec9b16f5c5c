"""The Kubernetes Job of a run, as a pure function.

What is checked: it runs once, ends by its exit code, is owned and labelled within limits; nothing of the resource's own
labels is copied; no token is mounted and no value of a Secret is in it; the files a worker finds; resources that cannot
contradict each other; what is too large is refused in words. The real API server is asked by tests/cluster.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.runs import CERTIFICATE, FILES, SECRET_VALUE, ingestion_job, run_inputs, run_spec

from vectorwright.errors import Terminal
from vectorwright.ingest.runspec import EXIT_RETRYABLE, EXIT_TERMINAL, RunSpec
from vectorwright.reconcile.job_manifest import (
    RUN_ANNOTATION,
    RUN_LABEL,
    ingestion_job_of,
    label_value,
    worker_job,
)

Manifest = dict[str, Any]


def made(inputs: Any = None, **spec: Any) -> Manifest:
    return worker_job(ingestion_job(**spec), "docs-0123456789-1", inputs or run_inputs(), image="img:1")


def pod(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found


def container(manifest: Manifest) -> Manifest:
    (found,) = pod(manifest)["containers"]
    return dict(found)


def test_it_is_an_indexed_job_of_one_part_that_ends_by_its_exit_code() -> None:
    spec = made()["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 1, 1)
    assert spec["podReplacementPolicy"] == "Failed", "two pods of one part never run together"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    ignore, fail = spec["podFailurePolicy"]["rules"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fail["action"] == "FailIndex"
    assert fail["onExitCodes"] == {"containerName": "worker", "operator": "In", "values": [EXIT_TERMINAL]}
    assert EXIT_RETRYABLE not in fail["onExitCodes"]["values"]
    assert spec["activeDeadlineSeconds"] == 900, "the worker's own deadline comes first"


def test_it_belongs_to_its_ingestionjob_and_copies_none_of_its_labels() -> None:
    manifest = made()
    (owner,) = manifest["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "vectorwright.dev/v1alpha1",
        "kind": "IngestionJob",
        "name": "docs",
        "uid": "uid-1",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert ingestion_job_of(manifest) == "docs"
    for labels in (manifest["metadata"]["labels"], manifest["spec"]["template"]["metadata"]["labels"]):
        assert set(labels) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/component",
            "app.kubernetes.io/managed-by",
            RUN_LABEL,
        }
    assert "argo" not in json.dumps(manifest)


def test_a_job_of_somebody_else_has_no_ingestionjob() -> None:
    assert ingestion_job_of({"metadata": {}}) is None
    other = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "x"}
    alike = {"apiVersion": "example.com/v1", "kind": "IngestionJob", "name": "x"}
    assert ingestion_job_of({"metadata": {"ownerReferences": [other, alike]}}) is None


_label = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_names = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,90}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,90}[a-z0-9])?){0,2}\Z")


@given(_names)
def test_any_name_makes_a_label_that_kubernetes_takes(name: str) -> None:
    value = label_value(name)
    assert len(value) <= 63
    assert _label.fullmatch(value)
    assert value == name or len(name) > 63


def test_long_names_that_begin_alike_have_labels_of_their_own() -> None:
    assert label_value("a" * 100 + "b") != label_value("a" * 100 + "c")


def test_nothing_secret_is_in_it() -> None:
    text = json.dumps(made())
    assert SECRET_VALUE not in text
    assert CERTIFICATE not in text
    assert "ada" not in json.loads(text)["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION]


def test_a_worker_gets_no_token_and_no_rights_on_its_node() -> None:
    found = pod(made())
    assert found["automountServiceAccountToken"] is False
    assert found["enableServiceLinks"] is False
    assert "serviceAccountName" not in found
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(made())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_specification_reaches_the_worker_as_a_file() -> None:
    manifest = made()
    annotation = manifest["spec"]["template"]["metadata"]["annotations"][RUN_ANNOTATION]
    assert RunSpec.model_validate_json(annotation) == run_spec()
    sources = pod(manifest)["volumes"][0]["projected"]["sources"]
    assert sources[0]["downwardAPI"]["items"] == [
        {"path": "run.json", "fieldRef": {"fieldPath": f"metadata.annotations['{RUN_ANNOTATION}']"}}
    ]
    arguments = container(manifest)["args"]
    assert arguments[:3] == ["worker", "--directory", "/etc/vectorwright/run"]
    assert container(manifest)["volumeMounts"][0] == {
        "name": "run",
        "mountPath": "/etc/vectorwright/run",
        "readOnly": True,
    }


def test_secrets_and_certificates_are_projected_key_by_key() -> None:
    projected = pod(made())["volumes"][0]["projected"]
    assert projected["sources"][1:] == [
        {"secret": {"name": "store-key", "items": [{"key": "api-key", "path": "credentials/store/token"}]}},
        {
            "secret": {
                "name": "git-key",
                "items": [
                    {"key": "user", "path": "credentials/source/username"},
                    {"key": "pass", "path": "credentials/source/password"},
                ],
            }
        },
        {"configMap": {"name": "authorities", "items": [{"key": "bundle.pem", "path": "tls/store/ca.crt"}]}},
    ]
    assert projected["defaultMode"] == 0o440
    paths = [file.path for file in FILES]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("chosen", "requests", "limits"),
    [
        (None, {"cpu": "250m", "memory": "512Mi"}, {"memory": "2Gi"}),
        ({"limits": {"memory": "256Mi"}}, {"cpu": "250m"}, {"memory": "256Mi"}),
        ({"limits": {"cpu": "100m"}}, {"memory": "512Mi"}, {"cpu": "100m", "memory": "2Gi"}),
        ({"requests": {"memory": "4Gi"}}, {"cpu": "250m", "memory": "4Gi"}, None),
        (
            {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}},
            {"cpu": "2"},
            {"memory": "8Gi"},
        ),
        (
            {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
            {"cpu": "1", "memory": "1Gi"},
            {"cpu": "2", "memory": "2Gi"},
        ),
    ],
)
def test_no_default_contradicts_what_was_chosen(
    chosen: dict[str, Any] | None, requests: dict[str, str], limits: dict[str, str] | None
) -> None:
    found = container(made(runner={"resources": chosen} if chosen else {}))["resources"]
    assert found["requests"] == requests
    assert found.get("limits") == limits


def test_account_and_nodes_are_those_of_the_job_then_of_the_installation() -> None:
    named = ingestion_job(runner={"serviceAccountName": "reader", "nodeSelector": {"gpu": "true"}})
    found = pod(worker_job(named, "x", run_inputs(), image="img:1", service_account="workers"))
    assert (found["serviceAccountName"], found["nodeSelector"]) == ("reader", {"gpu": "true"})
    plain = pod(worker_job(ingestion_job(), "x", run_inputs(), image="img:1", service_account="workers"))
    assert plain["serviceAccountName"] == "workers"
    assert "nodeSelector" not in plain


def test_what_does_not_fit_into_an_annotation_is_refused_in_words() -> None:
    job = ingestion_job(source={"inline": {"documents": [{"id": "a", "text": "\N{GRINNING FACE}" * 65536}]}})
    with pytest.raises(Terminal) as caught:
        worker_job(job, "x", run_inputs(run_spec(job)), image="img:1")
    assert caught.value.reason == "SpecTooLarge"
    assert re.fullmatch(
        r"the run's specification has \d+ bytes, more than 204800: put inline documents into a ConfigMap, or split a "
        r"long list of addresses over several IngestionJobs",
        caught.value.message,
    )


def test_the_same_run_makes_the_same_manifest() -> None:
    assert made() == made()
