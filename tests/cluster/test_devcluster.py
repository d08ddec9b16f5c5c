"""The launcher's promises: a whole API server, two side by side, kept or ended as asked, nothing left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.devcluster import Cluster, KubectlError, kind, start, state
from deploy.devcluster.paths import cluster_directory
from deploy.devcluster.processes import Identity, wait_for

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: probe}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: none.invalid/none}]}
"""


@pytest.fixture(autouse=True)
def _own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the session was told about its cluster is not meant for the clusters that are started here."""
    for name in ("CONTEXT", "NAME", "NODE"):
        monkeypatch.delenv(name, raising=False)


def launcher(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.devcluster", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=400, check=False
    )


def test_it_is_a_whole_control_plane(devcluster: Cluster, namespace: str) -> None:
    kubectl = devcluster.kubectl_run
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"].startswith("v1.")
    wait_for(lambda: "default" in kubectl("get", "sa", "-n", namespace), what="the service account", timeout=30)
    assert kubectl("create", "token", "default", "-n", namespace).count(".") == 2
    kubectl("apply", "-n", namespace, "-f", "-", input=_JOB)
    wait_for(lambda: "probe" in kubectl("get", "pods", "-n", namespace), what="the Job's pod", timeout=30)
    allowed = ("auth", "can-i", "create", "secrets", f"--as=system:serviceaccount:{namespace}:default")
    with pytest.raises(KubectlError):
        kubectl(*allowed)


def test_an_error_of_kubectl_is_told_in_its_words(devcluster: Cluster) -> None:
    with pytest.raises(KubectlError, match='"absent" not found'):
        devcluster.kubectl_run("get", "namespace", "absent")


def test_kubectl_ignores_the_ambient_kubeconfig(devcluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert "kube-system" in devcluster.kubectl_run("get", "namespaces")


def test_two_stand_side_by_side_and_stop_leaves_nothing(devcluster: Cluster) -> None:
    with start() as other:
        assert other.server != devcluster.server
        other.kubectl_run("create", "namespace", "mine")
        with pytest.raises(KubectlError):
            devcluster.kubectl_run("get", "namespace", "mine")
        assert other.kubeconfig.stat().st_mode & 0o777 == 0o600
        parts = [identity for process in other.processes for identity in process.identities]
        assert parts
    other.stop()
    assert not any(part.alive() for part in parts)
    assert not other.directory.exists()


def test_the_api_server_comes_back_with_its_data_and_address() -> None:
    with start() as cluster:
        if cluster.source not in {"control plane", "envtest"}:
            pytest.skip(f"the API server of a cluster from {cluster.source} is not ours to stop")
        cluster.kubectl_run("create", "namespace", "mine")
        cluster.kill_apiserver()
        with pytest.raises(KubectlError, match="refused"):
            cluster.kubectl_run("get", "namespace", "mine")
        cluster.start_apiserver()
        assert "mine" in cluster.kubectl_run("get", "namespaces")


def test_a_killed_owner_leaves_nothing() -> None:
    script = textwrap.dedent(
        """
        import time
        from deploy.devcluster import start
        cluster = start()
        print(cluster.directory, *(i.pid for process in cluster.processes for i in process.identities), flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        directory, *pids = owner.stdout.readline().split()
        parts = [Identity.of(int(pid)) for pid in pids]
        assert parts
        owner.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(part and part.alive() for part in parts), what="the cluster to end", timeout=20)
    wait_for(lambda: not Path(directory).exists(), what="its directory to go", timeout=20)


@pytest.fixture
def name() -> Iterator[str]:
    name = f"t-{secrets.token_hex(4)}"
    yield name
    launcher("down", "--name", name)
    cluster_directory(name).with_suffix(".lock").unlink(missing_ok=True)


def test_up_stays_down_removes_and_both_may_be_repeated(name: str) -> None:
    directory = cluster_directory(name)
    first = launcher("up", "--name", name)
    assert first.returncode == 0, first.stderr
    assert f"KUBECONFIG={directory / 'kubeconfig'}" in first.stdout
    running = state.load(directory)
    assert running is not None
    assert running.alive()
    again = launcher("up", NAME=name)
    assert again.returncode == 0
    assert "running already" in again.stderr
    if running.source == "control plane":
        with_node = launcher("up", NAME=name, NODE="1")
        assert with_node.returncode == 1
        assert f"cluster {name} runs without a node: stop it first" in with_node.stderr
    assert f"{name}: running" in launcher("status").stdout
    namespaces = subprocess.run(
        [directory / "bin" / "kubectl", "get", "ns"], capture_output=True, text=True, check=True
    )
    assert "kube-system" in namespaces.stdout
    for _ in range(2):
        assert launcher("down", "--name", name).returncode == 0
    assert not directory.exists()
    assert not any(identity.alive() for pair in running.processes for identity in pair)


def test_up_replaces_a_cluster_that_died(name: str) -> None:
    assert launcher("up", "--name", name).returncode == 0
    before = state.load(cluster_directory(name))
    assert before is not None
    for supervisor, _ in before.processes:
        supervisor.signal(signal.SIGKILL)
    everything = [identity for pair in before.processes for identity in pair]
    wait_for(lambda: not any(identity.alive() for identity in everything), what="the parts to die", timeout=10)
    assert "dead" in launcher("status").stdout
    again = launcher("up", "--name", name)
    assert "is ready" in again.stderr
    after = state.load(cluster_directory(name))
    assert after is not None
    assert after.alive()


def test_a_named_context_is_used_and_left_alone(devcluster: Cluster, name: str) -> None:
    asked = {"CONTEXT": devcluster.kubectl_run("config", "current-context").strip()}
    asked["KUBECONFIG"] = str(devcluster.kubeconfig)
    up = launcher("up", "--name", name, **asked)
    assert up.returncode == 0, up.stderr
    assert devcluster.server in up.stderr
    assert launcher("down", "--name", name).returncode == 0
    assert "kube-system" in devcluster.kubectl_run("get", "namespaces")


def test_a_node_for_somebody_else_than_root_is_refused_in_one_sentence(name: str) -> None:
    if kind.usable():
        pytest.skip("kind is here, whose nodes need no root")
    command = [sys.executable, "-m", "deploy.devcluster", "up", "--name", name]
    if os.geteuid() == 0:
        # Somebody else by number, who may still read the checkout.
        command = ["unshare", "--user", "--map-user=1000", *command]
        if subprocess.run([*command[:3], "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("this kernel lets nobody change users so")
    up = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NODE": "1"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert up.returncode == 1
    assert "NODE=1 runs pods on this machine, which only root on Linux may do" in up.stderr
    assert len(up.stderr.splitlines()) == 1
    assert not cluster_directory(name).exists()


def test_two_starters_of_one_name_make_one_cluster(name: str) -> None:
    command = [sys.executable, "-m", "deploy.devcluster", "up", "--name", name]
    starters = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [starter.communicate(timeout=300)[1] for starter in starters]
    assert sorted("running already" in text for text in said) == [False, True]
    assert [starter.returncode for starter in starters] == [0, 0]


def test_a_full_directory_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(RuntimeError, match="not empty"):
        start(directory=tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"


def test_kubectl_comes_with_the_cluster(devcluster: Cluster) -> None:
    bare = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    answer = subprocess.run([devcluster.kubectl, "get", "ns"], env=bare, capture_output=True, text=True, check=True)
    assert "default" in answer.stdout
    assert shutil.which("kubectl", path=str(devcluster.kubectl.parent)) == str(devcluster.kubectl)
