"""The Kubernetes Job of one run: a pure function from a run's inputs to a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from vectorwright.api.v1alpha1.common import API_VERSION, GROUP
from vectorwright.api.v1alpha1.ingestionjob import IngestionJob, Resources
from vectorwright.errors import Terminal
from vectorwright.ingest.runspec import EXIT_TERMINAL

from .handover import RunFile, RunInputs

RUN_LABEL = f"{GROUP}/ingestion-job"
"""Label of a worker's Job and pods: the name of the IngestionJob, shortened where it is too long for a label. Who owns
the Job is said by its owner reference."""
RUN_ANNOTATION = f"{GROUP}/run"
"""Annotation of the pod that holds the run's specification; the pod sees it as ``run.json``."""
RUN_DIRECTORY = "/etc/vectorwright/run"
PROGRESS_PORT = 8088
RETRIES = 3
"""Starts of a pod after the first, before the Job fails: the operator then starts the run again, with backoff."""
MAX_ANNOTATIONS = 200 * 1024
"""Bytes of run specification that fit: all annotations of an object together may hold 256 KiB."""
KEEP_FINISHED = 24 * 3600
"""Seconds after which Kubernetes removes a finished Job that the operator did not."""

Manifest = dict[str, Any]


DEFAULT_REQUESTS = {"cpu": "250m", "memory": "512Mi"}
DEFAULT_LIMITS = {"memory": "2Gi"}
MAX_LABEL = 63


def label_value(name: str) -> str:
    """A name of up to 253 characters as a label's value, which has 63 at most; distinct for distinct names."""
    if len(name) <= MAX_LABEL:
        return name
    return f"{name[:52].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def ingestion_job_of(body: Mapping[str, Any]) -> str | None:
    """The name of the IngestionJob that a worker's Job belongs to."""
    for owner in body["metadata"].get("ownerReferences") or ():
        if owner.get("kind") == "IngestionJob" and str(owner.get("apiVersion", "")).startswith(f"{GROUP}/"):
            return str(owner["name"])
    return None


def worker_job(
    job: IngestionJob, name: str, inputs: RunInputs, *, image: str, service_account: str | None = None
) -> Manifest:
    """The Job. It copies none of the IngestionJob's labels: GitOps tools prune what carries theirs.

    Raises Terminal when the specification is too large for an annotation.
    """
    specification = inputs.spec.model_dump_json(by_alias=True, exclude_none=True)
    if len(specification.encode()) > MAX_ANNOTATIONS:
        raise Terminal(
            f"the run's specification has {len(specification.encode())} bytes, more than {MAX_ANNOTATIONS}: put inline "
            "documents into a ConfigMap, or split a long list of addresses over several IngestionJobs",
            reason="SpecTooLarge",
        )
    labels = {
        "app.kubernetes.io/name": "vectorwright",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "vectorwright",
        RUN_LABEL: label_value(job.metadata.name),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": job.metadata.namespace,
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "IngestionJob",
                    "name": job.metadata.name,
                    "uid": job.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "backoffLimitPerIndex": RETRIES,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": int(inputs.spec.deadline_seconds) + 300,
            "ttlSecondsAfterFinished": KEEP_FINISHED,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailIndex",
                        "onExitCodes": {"containerName": "worker", "operator": "In", "values": [EXIT_TERMINAL]},
                    },
                ]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": {RUN_ANNOTATION: specification}},
                "spec": _pod(job, inputs, image, service_account),
            },
        },
    }


def _pod(job: IngestionJob, inputs: RunInputs, image: str, service_account: str | None) -> Manifest:
    runner = job.spec.runner
    resources = runner.resources if runner else None
    account = (runner.service_account_name if runner else None) or service_account
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "worker",
                "image": image,
                "args": ["worker", "--directory", RUN_DIRECTORY, "--listen", f"0.0.0.0:{PROGRESS_PORT}",
                         "--termination-log", "/dev/termination-log"],
                "env": [{"name": "HOME", "value": "/tmp"}, {"name": "TMPDIR", "value": "/tmp"}],  # noqa: S108
                "ports": [{"name": "progress", "containerPort": PROGRESS_PORT}],
                "resources": _resources(resources),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "run", "mountPath": RUN_DIRECTORY, "readOnly": True},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
                ],
            }
        ],
        "volumes": [
            {"name": "run", "projected": {"defaultMode": 0o440, "sources": _sources(inputs.files)}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }  # fmt: skip
    if account:
        pod["serviceAccountName"] = account
    if runner and runner.node_selector:
        pod["nodeSelector"] = runner.node_selector
    return pod


def _resources(chosen: Resources | None) -> Manifest:
    """What was chosen, and defaults that do not contradict it: no request may be above its limit."""
    requests = dict((chosen.requests if chosen else None) or {})
    limits = dict((chosen.limits if chosen else None) or {})
    limited = {**{name: value for name, value in DEFAULT_LIMITS.items() if name not in requests}, **limits}
    requested = {**{name: value for name, value in DEFAULT_REQUESTS.items() if name not in limits}, **requests}
    return {name: value for name, value in (("requests", requested), ("limits", limited)) if value}


def _sources(files: Sequence[RunFile]) -> list[Manifest]:
    """One projected volume: the specification, and one source a Secret or ConfigMap."""
    path = f"metadata.annotations['{RUN_ANNOTATION}']"
    sources: list[Manifest] = [{"downwardAPI": {"items": [{"path": "run.json", "fieldRef": {"fieldPath": path}}]}}]
    grouped: dict[tuple[str, str], list[RunFile]] = {}
    for file in files:
        grouped.setdefault((file.kind, file.name), []).append(file)
    for (kind, name), members in grouped.items():
        items = [{"key": file.key, "path": file.path} for file in members]
        sources.append({"secret" if kind == "Secret" else "configMap": {"name": name, "items": items}})
    return sources
