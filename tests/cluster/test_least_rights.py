"""The operator at work under exactly the rights that ``deploy/kustomize`` gives it, cluster-wide and namespaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.devcluster import Cluster
from deploy.trial import TrialOperator
from tests.support import rbac
from tests.support.chroma import ChromaServer
from tests.support.vectorwright import Resources

pytestmark = pytest.mark.cluster


@pytest.fixture
def restricted(
    devcluster: Cluster, namespace: str, crds: list[str], no_installation: None, tmp_path: Path
) -> Iterator[Resources]:
    """An operator that logs in as the ServiceAccount of the kustomization."""
    del no_installation
    kubeconfig = rbac.service_account_kubeconfig(devcluster, tmp_path)
    directory = tmp_path / "operator"
    directory.mkdir()
    operator = TrialOperator(kubeconfig, directory=directory)
    found = Resources(devcluster, namespace, operator)
    try:
        operator.start()
        yield found
    finally:
        found.close()
        operator.remove()


def test_everything_is_allowed_that_is_done(restricted: Resources, chroma_server: ChromaServer) -> None:
    restricted.secret("token", token="some-token-value")
    restricted.config_map("words", **{"a.jsonl": json.dumps({"id": "a", "text": "x", "vector": [1, 2, 3]})})
    spec: dict[str, object] = {
        "chroma": {"url": chroma_server.url},
        "controlCredentials": {"name": "token"},
        "probeInterval": "1s",
    }
    restricted.create("VectorStore", "chroma", spec)
    name = f"{restricted.namespace}-index"
    spec = {"storeRef": {"name": "chroma"}, "indexName": name, "dimension": 3}
    restricted.create("VectorIndex", "index", spec)
    restricted.create(
        "IngestionJob",
        "job",
        {
            "indexRef": {"name": "index"},
            "source": {"configMap": {"name": "words"}},
            "parse": {"type": "jsonLines", "idField": "id"},
            "embedding": {"precomputed": {"field": "vector"}},
            "runner": {"type": "InProcess"},
        },
    )
    body = restricted.wait_phase("job", "Succeeded")
    assert body["status"]["counts"]["vectorsWritten"] == 1
    for resource, reason in (("index", "Creating"), ("job", "RunStarted"), ("job", "RunSucceeded")):
        assert restricted.wait_event(resource, reason)
    for kind, resource in (("IngestionJob", "job"), ("VectorIndex", "index"), ("VectorStore", "chroma")):
        restricted.delete(kind, resource)
        restricted.wait_gone(kind, resource)
    assert "orbidden" not in restricted.operator.text()
