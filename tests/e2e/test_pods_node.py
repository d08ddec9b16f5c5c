"""The node that NODE=1 adds to a control plane: what is a cluster's own, and what is left of it.

What is checked: two stand side by side, with pods that have the same names and ports; a cluster that is stopped, or
whose owner is killed, leaves no process, mount, interface, rule, control group or directory; one of which everything
was killed is removed by the next command.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.devcluster import Cluster, ClusterError, kind, start, state
from deploy.devcluster.node import cgroups, requirements
from deploy.devcluster.node.addresses import BLOCKS, Addresses
from deploy.devcluster.node.configuration import PAUSE_IMAGE
from deploy.devcluster.paths import CHECKOUT, cluster_directory
from deploy.devcluster.processes import Identity, wait_for
from deploy.devcluster.supervisor import CONTROL_GROUPS
from tests.support.real_pods import processes_of

pytestmark = [pytest.mark.pods, pytest.mark.cluster, pytest.mark.timeout(300)]

_INTERFACES = Path("/sys/class/net")
POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: probe, labels: {{app: probe}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: "{PAUSE_IMAGE}", ports: [{{containerPort: 80, hostPort: 8080}}]}}]
"""


@pytest.fixture(autouse=True)
def _own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are about the node that is made here."""
    for name in ("CONTEXT", "NAME", "NODE"):
        monkeypatch.delenv(name, raising=False)
    if kind.usable():
        pytest.skip("kind is here, and makes the nodes")
    try:
        requirements.check_machine()
    except ClusterError as error:
        pytest.skip(str(error))


def run_pod(cluster: Cluster) -> str:
    """Run a pod; its UID."""
    kubectl = cluster.kubectl_run
    wait_for(lambda: kubectl("get", "sa", "default", "--ignore-not-found"), what="the account", timeout=60, every=0.2)
    kubectl("apply", "-f", "-", input=POD)
    kubectl("wait", "--for=condition=Ready", "pod/probe", "--timeout=60s")
    uid = kubectl("get", "pod", "probe", "-o", "jsonpath={.metadata.uid}")
    assert processes_of(uid, pauses=True)
    return uid


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def rules() -> set[str]:
    """The machine's own rules of packets, without their counters."""
    lines = output("iptables-save").splitlines()
    return {line for line in lines if line.startswith("-A") or "KUBE" in line or "CNI" in line}


def traces(directory: Path) -> list[str]:
    """What there is on this machine of the cluster in ``directory``."""
    group = cgroups.name_of(directory)
    found = [f"group {path}" for path in (CONTROL_GROUPS / group, *CONTROL_GROUPS.glob(f"*/{group}")) if path.exists()]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]
    found += [f"directory {directory}"] if directory.exists() else []
    needle = os.fsencode(directory)
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if needle in command:
            found.append(f"process {place.name}: {command!r}")
    return found


def wire(cluster: Cluster) -> str:
    """The interface that leads to the node, by its name and number: the name is used again."""
    (name,) = (one.interface for one in map(Addresses, BLOCKS) if str(one.machine) == cluster.machine_address)
    return f"{name}:{(_INTERFACES / name / 'ifindex').read_text().strip()}"


def is_there(wire: str) -> bool:
    name, _, number = wire.partition(":")
    try:
        return (_INTERFACES / name / "ifindex").read_text().strip() == number
    except OSError:
        return False


def gone(directory: Path, wire: str) -> None:
    """Wait until nothing is left of a cluster. The kernel ends a network a moment after its last process."""
    wait_for(lambda: not traces(directory), what=f"nothing of it to be left: {directory}", timeout=20, every=0.2)
    wait_for(lambda: not is_there(wire), what="its interface to go", timeout=20, every=0.2)


def test_two_stand_side_by_side_and_leave_nothing() -> None:
    packets = rules()
    with start(node=True) as one, start(node=True) as other:
        uids = [run_pod(cluster) for cluster in (one, other)]
        addresses = {cluster.machine_address for cluster in (one, other)}
        assert len(addresses) == 2
        pods = {
            cluster.kubectl_run("get", "pod", "probe", "-o", "jsonpath={.status.podIP}") for cluster in (one, other)
        }
        assert len(pods) == 2
        assert one.has_nodes
        wires = [wire(cluster) for cluster in (one, other)]
        assert all(is_there(one) for one in wires)
        assert rules() == packets, "the rules of kube-proxy are the node's, not this machine's"
        assert traces(one.directory)
        one.restart_apiserver()
        one.kubectl_run("delete", "pod", "probe", "--wait")
        uids.append(run_pod(one))
    for cluster, interface in zip((one, other), wires, strict=True):
        gone(cluster.directory, interface)
    assert not any(processes_of(uid, pauses=True) for uid in uids)
    assert rules() == packets


def test_a_killed_owner_leaves_nothing() -> None:
    script = textwrap.dedent(
        """
        import time
        from deploy.devcluster import start
        from tests.e2e.test_pods_node import run_pod, wire
        cluster = start(node=True)
        print(run_pod(cluster), wire(cluster), cluster.directory, flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        uid, interface, directory = owner.stdout.readline().split()
        assert is_there(interface)
        owner.send_signal(signal.SIGKILL)
    gone(Path(directory), interface)
    assert processes_of(uid, pauses=True) == []


@pytest.fixture
def name() -> Iterator[str]:
    name = f"t-{secrets.token_hex(4)}"
    yield name
    subprocess.run([sys.executable, "-m", "deploy.devcluster", "down", "--name", name], cwd=CHECKOUT, check=True)
    cluster_directory(name).with_suffix(".lock").unlink(missing_ok=True)


def test_what_was_killed_altogether_is_removed_by_the_next_command(name: str) -> None:
    directory = cluster_directory(name)
    with start(name, node=True, owned=False) as cluster:
        uid, interface = run_pod(cluster), wire(cluster)
        known = state.load(directory)
        assert known is not None
        identities: list[Identity] = [identity for pair in known.processes for identity in pair]
        for identity in identities:
            identity.signal(signal.SIGKILL)
        wait_for(lambda: not any(one.alive() for one in identities), what="all to be killed", timeout=20)
        assert any("group" in trace for trace in traces(directory))
        state.remove(directory)
        gone(directory, interface)
        assert processes_of(uid, pauses=True) == []
