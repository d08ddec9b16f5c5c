"""A cluster in Docker by kind, where a Docker engine really answers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from deploy.devcluster.build import Progress
from deploy.devcluster.errors import ClusterError
from deploy.devcluster.processes import ManagedProcess

_DELETE_SECONDS = 90.0
_GUARD = """\
# Waits to be stopped, then deletes the cluster: so that it goes when its owner does, however that one ended.
trap 'kind delete cluster --name "$1" --kubeconfig "$2"; exit 0' TERM
while :; do sleep 3600 & wait $!; done
"""


def usable() -> bool:
    """Whether kind is installed and a Docker engine answers (an installed client alone says nothing)."""
    if shutil.which("kind") is None or shutil.which("docker") is None:
        return False
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


def create(name: str, directory: Path, *, progress: Progress) -> ManagedProcess:
    """Create the kind cluster ``name`` and its kubeconfig; stopping the returned process deletes it.

    Raises ClusterError with kind's own words.
    """
    kubeconfig = directory / "kubeconfig"
    progress(f"creating the kind cluster {name}")
    guard = ManagedProcess.start(
        ["sh", "-c", _GUARD, "kind-guard", name, str(kubeconfig)],
        log=directory / "kind.log",
        grace=_DELETE_SECONDS,
        remove=directory,
    )
    created = subprocess.run(
        ["kind", "create", "cluster", "--name", name, "--kubeconfig", str(kubeconfig), "--wait", "180s"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if created.returncode != 0:
        guard.stop()
        raise ClusterError(f"kind could not create the cluster {name}:\n{created.stdout.strip()}")
    kubeconfig.chmod(0o600)
    return guard
