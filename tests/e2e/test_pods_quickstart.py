"""The quick start of README on a real node: every run is a Kubernetes Job, every part a pod or a server beside it.

What is checked: the manifests of examples/ lead to filled indexes; the runs happen in pods that have no token of the
Kubernetes API, and are gone afterwards; what was stored can be searched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.demo.repository import BRANCH, mirror
from deploy.devcluster.paths import CHECKOUT
from deploy.servers.git import GitRepository, start_git_server
from tests.support.chroma import ChromaServer
from tests.support.real_pods import Doors, Pods, image_name
from tests.support.vectorwright import Resources, condition

pytestmark = [pytest.mark.pods, pytest.mark.cluster, pytest.mark.server, pytest.mark.timeout(600)]
WORKERS = "app.kubernetes.io/component=worker"
Body = dict[str, Any]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[GitRepository]:
    """The history of this checkout."""
    base = tmp_path / "git"
    base.mkdir()
    server = start_git_server(base)
    yield mirror(CHECKOUT, server, tmp_path)
    server.process.stop()


def store_server(pods: Pods) -> None:
    """The store server of the examples, on a volume that ends with its pod: here is nobody who makes others."""
    text = (CHECKOUT / "examples" / "stores" / "lance-store-server.yaml").read_text()
    bodies: list[Body] = [body for body in yaml.safe_load_all(text) if body["kind"] != "VectorStore"]
    for body in bodies:
        if body["kind"] == "StatefulSet":
            (claim,) = body["spec"].pop("volumeClaimTemplates")
            template = body["spec"]["template"]["spec"]
            template["volumes"].append({"name": claim["metadata"]["name"], "emptyDir": {}})
            template["containers"][0]["image"] = image_name()
    pods.apply(*bodies)
    pods.kubectl("rollout", "status", "statefulset/lance-store", "--timeout=60s")


def quick_start(directory: Path, namespace: str, chroma: str, git: str) -> Path:
    """An overlay on the quick start: the addresses of this test, and a Job for each run."""
    overlay = directory / "quickstart"
    overlay.mkdir()
    set_to: list[tuple[str, str, dict[str, Any]]] = [
        ("VectorStore", "docs-store", {"/spec/chroma/url": chroma}),
        (
            "VectorStore",
            "code-store",
            {
                "/spec/lance": {"server": f"http://lance.{namespace}.svc:8090"},
                "/spec/controlCredentials": {"name": "lance-token"},
            },
        ),
        ("IngestionJob", ".*", {"/spec/source/git/url": git, "/spec/source/git/ref": BRANCH, "/spec/runner": {}}),
    ]
    patches = [
        {
            "target": {"kind": kind, "name": name},
            "patch": json.dumps([{"op": "add", "path": path, "value": value} for path, value in values.items()]),
        }
        for kind, name, values in set_to
    ]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [os.path.relpath(CHECKOUT / "examples" / "quickstart", overlay.resolve())],
        "patches": patches,
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return overlay


def test_the_quick_start_in_pods(
    served: Resources, pods: Pods, doors: Doors, chroma_server: ChromaServer, repository: GitRepository, place: Path
) -> None:
    store_server(pods)
    git = repository.url.replace(f"127.0.0.1:{repository_port(repository)}", doors.to(repository_port(repository)))
    overlay = quick_start(place, pods.namespace, f"http://{doors.to(chroma_server.port)}", git)
    pods.cluster.kubectl_run("apply", "-k", str(overlay))

    workers = pods.wait(WORKERS, on_nodes, "a worker for each IngestionJob")
    for pod in workers:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["containers"][0]["image"] == image_name()
        owner = pod["metadata"]["ownerReferences"][0]
        assert owner["kind"] == "Job"

    for name in ("docs", "code"):
        body = served.wait_phase(name, "Succeeded", "Failed", "Unverified", timeout=300)
        assert body["status"]["phase"] == "Succeeded", body["status"]
        written = body["status"]["counts"]["vectorsWritten"]
        assert written > 100
        served.wait("VectorIndex", name, partial(has_vectors, written), 90)
        assert condition(served.get("IngestionJob", name), "LastRunSucceeded")["status"] == "True"
    pods.wait_gone(WORKERS)
    assert answer(served, "docs", "What becomes of the vectors when a VectorIndex is deleted?").startswith("1. ")


def on_nodes(found: list[Body]) -> bool:
    """Whether there are two, and each has a node."""
    return len(found) == 2 and all(pod["spec"].get("nodeName") for pod in found)


def has_vectors(number: int, index: Body) -> bool:
    """Whether a VectorIndex says that it holds so many."""
    return bool(index["status"].get("vectors") == number)


def repository_port(repository: GitRepository) -> int:
    """Where its daemon listens."""
    return int(repository.url.split(":")[2].partition("/")[0])


def answer(served: Resources, index: str, question: str) -> str:
    """What ``vectorwright search`` finds, beside the cluster."""
    program = str(Path(sys.executable).with_name("vectorwright"))
    command = [program, "search", index, question, "--top-k", "1"]
    found = subprocess.run(
        [*command, "--namespace", served.namespace],
        env={**os.environ, "KUBECONFIG": str(served.cluster.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
