"""Real pods: the cluster whose nodes run them, what tests run in them, and what becomes of them.

``make e2e`` asks for it by VECTORWRIGHT_E2E=1. The cluster is the one of VECTORWRIGHT_TEST_KUBECONFIG, which has the
image already (VECTORWRIGHT_E2E_IMAGE, when it is called otherwise), else a new one with a node, which is given the
image that the Dockerfile makes (or the archive of VECTORWRIGHT_E2E_ARCHIVE).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from deploy.devcluster import Cluster, ClusterError, attach, prepare, start
from deploy.devcluster.image import IMAGE, ensure_image
from deploy.devcluster.processes import wait_for
from tests.contract.tcp_front import TcpFront

WANTED = "VECTORWRIGHT_E2E"
_SECRET_PLACE = "/etc/secret"
Body = dict[str, Any]


def prepare_pods(report: Callable[[str], None]) -> Path | None:
    """Build what a cluster with pods needs: within a test, its time limit would count. Raises ClusterError.

    The image for ``cluster_with_pods``: the checkout may change before that is called.
    """
    if os.environ.get("VECTORWRIGHT_TEST_KUBECONFIG"):
        return None
    prepare(report, node=True)
    return _archive(report)


def _archive(report: Callable[[str], None]) -> Path | None:
    """The image for the nodes; None where they have it, or can fetch it. Raises ClusterError where neither is so."""
    if "VECTORWRIGHT_E2E_IMAGE" in os.environ:
        return None
    if context := os.environ.get("CONTEXT"):
        raise ClusterError(
            f"CONTEXT={context}: its nodes take images from a registry; push this checkout's to one of theirs, "
            "and name it by VECTORWRIGHT_E2E_IMAGE"
        )
    given = os.environ.get("VECTORWRIGHT_E2E_ARCHIVE", "")
    return Path(given) if given else ensure_image(report)


@contextlib.contextmanager
def cluster_with_pods(report: Callable[[str], None], archive: Path | None = None) -> Iterator[Cluster]:
    """A cluster whose nodes have the image: that in ``archive``, where it was made before.

    Raises ClusterError, with what to do, where there can be none.
    """
    given = os.environ.get("VECTORWRIGHT_TEST_KUBECONFIG", "")
    if given:
        with attach(Path(given), report) as cluster:
            yield cluster
        return
    with start(progress=report, node=True) as cluster:
        if (archive := archive or _archive(report)) is not None:
            report("loading the image")
            cluster.load_image(archive)
        yield cluster


def image_name() -> str:
    """What the image is called where the pods run."""
    return os.environ.get("VECTORWRIGHT_E2E_IMAGE", IMAGE)


class Doors:
    """Ways for pods to servers of this machine that listen on loopback only."""

    def __init__(self, cluster: Cluster) -> None:
        self.address = cluster.machine_address or urlsplit(cluster.server).hostname or ""
        self._open: list[TcpFront] = []

    def usable(self) -> bool:
        """Whether this machine has the address at which pods would look for it."""
        if not self.address or self.address == "localhost" or self.address.startswith("127."):
            return False
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((self.address, 0))
            return True
        return False

    def to(self, port: int) -> str:
        """``host:port`` at which pods reach what listens on 127.0.0.1:``port``."""
        front = TcpFront(("127.0.0.1", port), self.address)
        self._open.append(front)
        return f"{front.host}:{front.port}"

    def close(self) -> None:
        """Shut them all."""
        for front in self._open:
            front.close()


class Pods:
    """Pods of one namespace, and workloads of our image with a program of the test's own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """kubectl in the namespace. Raises KubectlError."""
        return self.cluster.kubectl_run("-n", self.namespace, *arguments, input=stdin, timeout=timeout)

    def apply(self, *bodies: Body) -> None:
        """Apply objects, with every field checked."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
        self.kubectl("apply", "--validate=strict", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str) -> Body:
        """One object."""
        body: Body = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return body

    def all(self, selector: str) -> list[Body]:
        """The pods with these labels, the oldest first, those that are ending included."""
        found: list[Body] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def wait(self, selector: str, done: Callable[[list[Body]], object], what: str, timeout: float = 90) -> list[Body]:
        """The pods once ``done`` holds for all of them together. Fails with what is said of them."""
        deadline = time.monotonic() + timeout
        while not done(found := self.all(selector)):
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not after {timeout:g} s\n{self.kubectl('describe', 'pods', '-l', selector)}")
            time.sleep(0.2)
        return found

    def wait_gone(self, selector: str, timeout: float = 90) -> None:
        """Return once no pod has these labels."""
        self.wait(selector, lambda found: not found, f"no pod is left with {selector}", timeout)

    def logs(self, selector: str) -> str:
        """What the pods with these labels wrote."""
        return self.kubectl("logs", "-l", selector, "--tail=-1", "--prefix", "--ignore-errors")

    def run_in(self, pod: str, program: str) -> str:
        """Run a Python program in a pod of our image; what it printed."""
        return self.kubectl("exec", pod, "--", "python3", "-c", textwrap.dedent(program))

    def delete_at_once(self, pod: str) -> None:
        """Delete a pod without its grace period, as a drained or lost node would lose it."""
        self.kubectl("delete", "pod", pod, "--force", "--grace-period=0", "--wait=false")

    def kill(self, pod: Body) -> None:
        """SIGKILL to every process of a pod's containers, as the kernel does when memory runs out.

        Skips where the processes of pods are not to be seen from here.
        """
        victims = processes_of(str(pod["metadata"]["uid"]))
        if not victims:
            pytest.skip("the pods' processes are on another machine")
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def deployment(
        self,
        name: str,
        program: str,
        *,
        replicas: int = 2,
        secret: str = "",
        annotations: Body | None = None,
        ready_file: str = "",
        grace: int = 1,
    ) -> Body:
        """A Deployment of our image that runs a Python program, rolled out; its pods carry the label ``app``.

        Where ``secret`` names a Secret, each of its keys is a variable of the program's environment, as it was when the
        pod started, and a file in ``/etc/secret``, as it is. A pod is ready once ``ready_file`` is there, where one is
        named, and has ``grace`` seconds to end.
        """
        container: Body = {
            "name": "program",
            "image": image_name(),
            "command": ["python3", "-u", "-c", textwrap.dedent(program)],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        }
        spec: Body = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        if ready_file:
            container["readinessProbe"] = {"exec": {"command": ["test", "-f", ready_file]}, "periodSeconds": 1}
        if secret:
            container["envFrom"] = [{"secretRef": {"name": secret}}]
            container["volumeMounts"] = [{"name": "secret", "mountPath": _SECRET_PLACE, "readOnly": True}]
            spec["volumes"] = [{"name": "secret", "secret": {"secretName": secret}}]
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "annotations": annotations or {}},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
                },
            }
        )
        self.wait_rolled_out(name)
        return self.get("deployment", name)

    def wait_rolled_out(self, name: str, timeout: float = 120) -> None:
        """Return once a Deployment has only ready pods of its newest template."""
        self.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={timeout:g}s", timeout=timeout + 30)


def processes_of(uid: str, *, pauses: bool = False) -> list[int]:
    """Processes of a pod's containers on this machine, by their control group; with ``pauses`` those that only wait, as
    the sandbox's does."""
    needles = [f"pod{uid}".encode(), f"pod{uid.replace('-', '_')}".encode()]
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            groups, command = (place / "cgroup").read_bytes(), (place / "cmdline").read_bytes()
        except OSError:
            continue
        if any(needle in groups for needle in needles) and (pauses or command.split(b"\0")[0] != b"/pause"):
            found.append(int(place.name))
    return found


def wait_until(check: Callable[[], object], what: str, timeout: float = 60) -> None:
    """Return as soon as ``check()`` is true."""
    wait_for(check, what=what, timeout=timeout, every=0.2)
