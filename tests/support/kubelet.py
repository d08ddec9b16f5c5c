"""The part of a kubelet that a worker's pod needs: its volume as files, its container as a process, its end as status.

The test cluster has no node. The Job controller makes real pods; this runs one as the kubelet would: it projects the
volume from the pod's own manifest, starts the container's arguments with its environment, and reports how it ended.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.vectorwright import Resources


class Kubelet:
    """Runs the pods of one namespace, one at a time, in a directory."""

    def __init__(self, resources: Resources, directory: Path) -> None:
        self._resources = resources
        self._core: Any = resources.core
        self._directory = directory

    def pod(self, job: str, timeout: float = 30.0) -> Any:
        """The newest pod of an IngestionJob that has not ended, once the Job controller has made it."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            pods = self._core.list_namespaced_pod(
                self._resources.namespace, label_selector="app.kubernetes.io/component=worker"
            ).items
            mine = [
                pod
                for pod in pods
                if pod.status.phase == "Pending" and pod.metadata.annotations["vectorwright.dev/run"].find(job) >= 0
            ]
            if mine:
                return max(mine, key=lambda pod: pod.metadata.creation_timestamp)
            time.sleep(0.1)
        pytest.fail(f"no pod for {job} after {timeout:g} s\n{self._resources.operator.tail()}")

    def start(self, pod: Any) -> subprocess.Popen[bytes]:
        """Start the pod's container."""
        place = self._directory / pod.metadata.name
        mount = place / "run"
        self._project(pod, mount)
        container = pod.spec.containers[0]
        arguments = list(container.args)
        for flag, value in (("--directory", str(mount)), ("--termination-log", str(place / "termination"))):
            arguments[arguments.index(flag) + 1] = value
        at = arguments.index("--listen")
        arguments[at : at + 2] = ["--unix", str(place / "s")]
        # The completion index comes by the downward API, from an annotation; nothing here reads it.
        environment = {item.name: item.value for item in container.env if item.value is not None}
        return subprocess.Popen(
            [sys.executable, "-m", "vectorwright", *arguments],
            env={"PATH": os.environ["PATH"], **environment, "HOME": str(place), "TMPDIR": str(place)},
            stdin=subprocess.DEVNULL,
        )

    def report(self, pod: Any, exit_code: int) -> None:
        """Tell the API server how the container ended, with its termination message."""
        log = self._directory / pod.metadata.name / "termination"
        message = log.read_text()[:4096] if log.exists() else ""
        now = datetime.now(UTC).isoformat()
        terminated = {"exitCode": exit_code, "message": message, "finishedAt": now, "startedAt": now}
        status = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "containerStatuses": [
                {
                    "name": pod.spec.containers[0].name,
                    "image": pod.spec.containers[0].image,
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"terminated": terminated},
                }
            ],
        }
        self._core.patch_namespaced_pod_status(pod.metadata.name, self._resources.namespace, {"status": status})

    def run(self, job: str) -> int:
        """Run the next pod of an IngestionJob to its end; its exit code."""
        pod = self.pod(job)
        with self.start(pod) as process:
            code = process.wait(60)
        self.report(pod, code)
        return code

    def _project(self, pod: Any, mount: Path) -> None:
        """The files of the pod's projected volume."""
        volume = next(item for item in pod.spec.volumes if item.name == "run")
        for source in volume.projected.sources:
            if source.downward_api is not None:
                for item in source.downward_api.items:
                    key = item.field_ref.field_path.split("'")[1]
                    _write(mount / item.path, pod.metadata.annotations[key].encode())
            if source.secret is not None:
                secret = self._core.read_namespaced_secret(source.secret.name, self._resources.namespace)
                for item in source.secret.items:
                    _write(mount / item.path, base64.b64decode(secret.data[item.key]))
            if source.config_map is not None:
                found = self._core.read_namespaced_config_map(source.config_map.name, self._resources.namespace)
                for item in source.config_map.items:
                    _write(mount / item.path, found.data[item.key].encode())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
