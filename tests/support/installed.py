"""The operator as a cluster runs it: deploy/kustomize, two pods under their own ServiceAccount."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.devcluster import Cluster
from tests.support.rbac import BASE, SYSTEM_NAMESPACE
from tests.support.real_pods import Pods, image_name

SELECTOR = "app.kubernetes.io/name=vectorwright,app.kubernetes.io/component=operator"
DEPLOYMENT = "vectorwright-operator"
LEASE = "vectorwright-operator"
Body = dict[str, Any]


class InstalledOperator:
    """The base of deploy/kustomize with the image of the test, applied and rolled out."""

    def __init__(self, cluster: Cluster, directory: Path, **environment: str) -> None:
        self.pods = Pods(cluster, SYSTEM_NAMESPACE)
        self._was_there = True
        self._overlay = directory / "overlay"
        self._overlay.mkdir()
        name, _, tag = image_name().rpartition(":")
        variables = [
            {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": key, "value": value}}
            for key, value in environment.items()
        ]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            # kustomize takes no absolute path here.
            "resources": [os.path.relpath(BASE, self._overlay.resolve())],
            "images": [{"name": "vectorwright", "newName": name, "newTag": tag}],
            "patches": [{"target": {"kind": "Deployment", "name": DEPLOYMENT}, "patch": json.dumps(variables)}],
        }
        (self._overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))

    def install(self) -> None:
        """Apply it and wait until both pods are ready and one of them leads."""
        kinds = self.pods.cluster.kubectl_run("get", "crd", "vectorstores.vectorwright.dev", "--ignore-not-found")
        self._was_there = bool(kinds)
        self.pods.cluster.kubectl_run("apply", "--server-side", "--force-conflicts", "-k", str(self._overlay))
        self.pods.wait_rolled_out(DEPLOYMENT)
        self.wait_led()

    def remove(self) -> None:
        """Delete all of it, the kinds and their objects included; nothing where there was an installation before."""
        if self._was_there:
            return
        self.pods.cluster.kubectl_run("delete", "-k", str(self._overlay), "--ignore-not-found", "--timeout=120s")

    def running(self) -> list[Body]:
        """Its pods that are not ending."""
        return [pod for pod in self.pods.all(SELECTOR) if "deletionTimestamp" not in pod["metadata"]]

    def leader(self) -> Body | None:
        """The pod that holds the Lease; None while none does."""
        holder = str(self.pods.get("lease", LEASE)["spec"].get("holderIdentity") or "")
        return next((pod for pod in self.running() if holder.startswith(f"{pod['metadata']['name']}_")), None)

    def holder(self) -> str:
        """Who holds the Lease: the name of a pod, and a part that is new with each start of it."""
        return str(self.pods.get("lease", LEASE)["spec"].get("holderIdentity") or "")

    def wait_led(self, *, after: str = "", timeout: float = 90) -> Body:
        """The pod that leads, once that is somebody else than the holder ``after``."""
        deadline = time.monotonic() + timeout
        while (found := self.leader()) is None or self.holder() == after:
            if time.monotonic() > deadline:
                pytest.fail(f"nobody leads after {timeout:g} s: {self.holder()}\n{self.tail()}")
            time.sleep(0.2)
        return found

    def text(self) -> str:
        """What its pods wrote, each line with the pod's name."""
        return self.pods.logs(SELECTOR)

    def refusals(self) -> list[str]:
        """Lines that say that the API server refused something to it."""
        return [line for line in self.text().splitlines() if "forbidden" in line.lower()]

    def tail(self) -> str:
        """The end of it."""
        return "\n".join(self.text().splitlines()[-40:])
