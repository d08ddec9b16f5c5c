"""Fixtures of the tests that run real pods: one cluster and one installed operator for all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from deploy.devcluster import Cluster, ClusterError
from tests.support.cluster import new_namespace, uncaptured
from tests.support.installed import InstalledOperator
from tests.support.real_pods import WANTED, Doors, Pods, cluster_with_pods, prepare_pods
from tests.support.vectorwright import Resources

if TYPE_CHECKING:
    from deploy.trial import TrialOperator


_ARCHIVE = pytest.StashKey[Path | None]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without being asked, nobody waits for pods."""
    if os.environ.get(WANTED, "0") not in {"", "0"}:
        return
    unasked = pytest.mark.skip(reason=f"runs real pods, as root on Linux or with kind: make e2e ({WANTED}=1)")
    for item in items:
        if item.get_closest_marker("pods") is not None:
            item.add_marker(unasked)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build programs and image before the first test needs them."""
    if not session.config.option.collectonly and any(
        "pods_cluster" in getattr(item, "fixturenames", ()) and item.get_closest_marker("skip") is None
        for item in session.items
    ):
        with contextlib.suppress(ClusterError):  # the fixture will say it
            session.config.stash[_ARCHIVE] = prepare_pods(uncaptured(session.config))


@pytest.fixture(scope="session")
def pods_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster whose nodes run pods and have our image."""
    with cluster_with_pods(uncaptured(request.config), request.config.stash.get(_ARCHIVE, None)) as cluster:
        if not cluster.has_nodes:
            pytest.fail(f"the cluster from {cluster.source} has no node that is ready")
        yield cluster


@pytest.fixture(scope="session")
def doors(pods_cluster: Cluster) -> Iterator[Doors]:
    """Ways for pods to this machine's servers."""
    found = Doors(pods_cluster)
    if not found.usable():
        pytest.skip(f"pods of this cluster cannot reach this machine at {found.address or 'any address'}")
    yield found
    found.close()


@pytest.fixture(scope="session")
def installed(pods_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledOperator]:
    """The operator, installed from deploy/kustomize; sources may be on this machine."""
    address = Doors(pods_cluster).address
    networks = {"VECTORWRIGHT_ALLOW_NETWORKS": f"{address}/32"} if address[:1].isdigit() else {}
    operator = InstalledOperator(pods_cluster, tmp_path_factory.mktemp("installed"), **networks)
    operator.install()
    yield operator
    if not pods_cluster.processes:  # one that was there before, and stays
        operator.remove()


@pytest.fixture
def pods_namespace(pods_cluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own, where only restricted pods are let in."""
    with new_namespace(pods_cluster) as name:
        pods_cluster.kubectl_run("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name


@pytest.fixture
def pods(pods_cluster: Cluster, pods_namespace: str) -> Pods:
    """Pods of this test's own namespace."""
    return Pods(pods_cluster, pods_namespace)


@pytest.fixture
def served(pods_cluster: Cluster, pods_namespace: str, installed: InstalledOperator) -> Iterator[Resources]:
    """Our resources in this test's own namespace, with the installed operator at work."""
    # All that is asked of it here is the end of its log.
    found = Resources(pods_cluster, pods_namespace, cast("TrialOperator", installed))
    yield found
    _let_go(pods_cluster, pods_namespace)
    found.close()
    assert not installed.refusals()


def _let_go(cluster: Cluster, namespace: str) -> None:
    """The operator lets the resources go while it can: their namespace ends with the test."""
    cluster.kubectl_run("-n", namespace, "delete", "vij,vix,vem,vst", "--all", "--timeout=60s", "--ignore-not-found")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory whose path kustomize may go out of."""
    return tmp_path.resolve()
