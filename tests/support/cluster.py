"""A real Kubernetes API server for the session, its resource definitions, and a namespace for each test."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deploy.devcluster import Cluster, ClusterError, KubectlError, attach, prepare, start
from deploy.devcluster.processes import wait_for

CRDS = Path(__file__).resolve().parents[2] / "crds"
_GIVEN = "VECTORWRIGHT_TEST_KUBECONFIG"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test needs it: within a test, its time limit would count."""
    if session.config.option.collectonly or os.environ.get(_GIVEN):
        return
    if any("devcluster" in getattr(item, "fixturenames", ()) for item in session.items):
        with contextlib.suppress(ClusterError):  # the fixture will say it, for the tests that need a cluster
            prepare(uncaptured(session.config))


@pytest.fixture(scope="session")
def devcluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with every right: the one of VECTORWRIGHT_TEST_KUBECONFIG, else one that ends with the session."""
    with open_cluster(request.config) as cluster:
        yield cluster


@contextlib.contextmanager
def open_cluster(config: pytest.Config) -> Iterator[Cluster]:
    """The cluster of VECTORWRIGHT_TEST_KUBECONFIG, else a new one that ends with the context."""
    given = os.environ.get(_GIVEN, "")
    report = uncaptured(config)
    with attach(Path(given), report) if given else start(progress=report) as cluster:
        yield cluster


def uncaptured(config: pytest.Config) -> Callable[[str], None]:
    """Print at once: the first start on a machine takes minutes, and pytest would show nothing until it is over."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def report(message: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{message}", flush=True)  # noqa: T201

    return report


@pytest.fixture(scope="session")
def crds(devcluster: Cluster) -> list[str]:
    """The committed resource definitions, applied and established; their names."""
    return apply_crds(devcluster)


def apply_crds(cluster: Cluster) -> list[str]:
    """Apply the committed resource definitions and wait until they are served; their names."""
    if not list(CRDS.glob("*.yaml")):
        pytest.fail("crds/ holds no resource definitions: run 'make crds'")
    applied = cluster.kubectl_run(
        "apply", "--server-side", "--force-conflicts", "-f", str(CRDS), "--output=name"
    ).split()
    names = [line.rpartition("/")[2] for line in applied if line.startswith("customresourcedefinition")]
    cluster.kubectl_run("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    # What clients know them by comes after that.
    wait_for(lambda: all(_explained(cluster, name) for name in names), what="the schemas of all kinds", timeout=30)
    return names


def _explained(cluster: Cluster, name: str) -> bool:
    try:
        cluster.kubectl_run("explain", name)
    except KubectlError:
        return False
    return True


@pytest.fixture
def namespace(devcluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own, deleted after it without waiting for the end of that."""
    with new_namespace(devcluster) as name:
        yield name


@contextlib.contextmanager
def new_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace with a name of its own, deleted at the end without waiting for that."""
    name = f"test-{secrets.token_hex(5)}"
    cluster.kubectl_run("create", "namespace", name)
    yield name
    cluster.kubectl_run("delete", "namespace", name, "--wait=false", "--ignore-not-found")
