"""What a benchmark of the operator stands on: a cluster with the CRDs, a Chroma server, the operator."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes
import urllib3
from deploy.devcluster import Cluster, start
from deploy.servers.chroma import ChromaServer, start_chroma_server
from deploy.trial import TrialOperator

ROOT = Path(__file__).resolve().parents[1]
GROUP, VERSION = "vectorwright.dev", "v1alpha1"
Body = dict[str, Any]


def say(text: str) -> None:
    """One line of progress."""
    print(f"   {text}", flush=True)


@dataclass(frozen=True)
class World:
    """The parts, and the official client to the cluster."""

    cluster: Cluster
    chroma: ChromaServer
    operator: TrialOperator
    api: Any
    """``kubernetes.client.CustomObjectsApi``."""
    kube: Any
    """``kubernetes.client.ApiClient``."""

    def create(self, plural: str, kind: str, name: str, spec: Body) -> Body:
        """Create one of our resources in the namespace ``default``."""
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": {"name": name}, "spec": spec}
        created: Body = self.api.create_namespaced_custom_object(GROUP, VERSION, "default", plural, body)
        return created

    def wait_ready(self, plural: str, name: str, timeout: float = 60.0) -> None:
        """Return once a resource is Ready. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if ready(self.api.get_namespaced_custom_object(GROUP, VERSION, "default", plural, name)):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{plural} {name} is not Ready after {timeout:g} s\n{self.operator.tail()}")

    def rss_mib(self) -> float:
        """Resident memory of the operator's parent and working process together, in MiB."""
        children = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(self.operator.pid), "--ppid", str(self.operator.pid)],
            capture_output=True,
            text=True,
            check=True,
        )
        return sum(int(line) for line in children.stdout.split()) / 1024

    def served_requests(self) -> dict[str, float]:
        """Requests that the API server has served for our kinds, Secrets and events, by "verb resource"."""
        text = self.cluster.kubectl_run("get", "--raw", "/metrics")
        found: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("apiserver_request_total{"):
                continue
            labels = dict(part.split("=", 1) for part in line[line.index("{") + 1 : line.rindex("}")].split(","))
            resource, verb = labels["resource"].strip('"'), labels["verb"].strip('"')
            if labels["group"].strip('"') == GROUP or resource in ("secrets", "events", "configmaps"):
                key = f"{verb} {resource}"
                found[key] = found.get(key, 0.0) + float(line.rsplit(" ", 1)[1])
        return found


def ready(body: Body) -> bool:
    """Whether a resource's condition Ready is True."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


class ReadyWatch:
    """Follows all VectorIndexes and remembers when each was first seen Ready."""

    def __init__(self, world: World) -> None:
        self.at: dict[str, float] = {}
        self._changed = threading.Condition()
        self._watch = kubernetes.watch.Watch()
        self._thread = threading.Thread(target=self._follow, args=(world,), daemon=True)
        self._thread.start()

    def _follow(self, world: World) -> None:
        events = self._watch.stream(world.api.list_namespaced_custom_object, GROUP, VERSION, "default", "vectorindexes")
        # The stream breaks when the API server stops at the end of the benchmark.
        with contextlib.suppress(urllib3.exceptions.ProtocolError):
            for event in events:
                now, body = time.perf_counter(), event["object"]
                name = body["metadata"]["name"]
                if name not in self.at and ready(body):
                    with self._changed:
                        self.at[name] = now
                        self._changed.notify_all()

    def wait(self, done: Callable[[dict[str, float]], bool], timeout: float) -> None:
        """Return once ``done`` holds of the moments seen. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: done(self.at), timeout):
                raise TimeoutError(f"{len(self.at)} VectorIndexes Ready after {timeout:g} s")

    def stop(self) -> None:
        """Stop following."""
        self._watch.stop()


@contextlib.contextmanager
def world(*flags: str) -> Iterator[World]:
    """Start everything, and stop it at the end."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vectorwright-bench-")))
        cluster = stack.enter_context(start(progress=say))
        cluster.kubectl_run("apply", "-f", str(ROOT / "crds"))
        cluster.kubectl_run("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        chroma = start_chroma_server(directory / "chroma")
        stack.callback(chroma.stop)
        operator = stack.enter_context(TrialOperator(cluster.kubeconfig, *flags, trial=False))
        kube = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
        stack.callback(kube.close)
        yield World(cluster, chroma, operator, kubernetes.client.CustomObjectsApi(kube), kube)
