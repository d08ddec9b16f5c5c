"""A cluster in Docker by kind, where a Docker engine really answers."""

from __future__ import annotations

import re
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
    """Whether kind is installed and a Docker engine answers."""
    return shutil.which("kind") is not None and docker_answers()


def docker_answers() -> bool:
    """Whether there is a Docker engine (an installed client alone says nothing)."""
    if shutil.which("docker") is None:
        return False
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, timeout=15, check=False)
    except subprocess.TimeoutExpired:
        return False
    return answer.returncode == 0


def cluster_name(name: str) -> str:
    """What the kind cluster of the cluster ``name`` is called."""
    label = re.sub(r"[^a-z0-9]+", "-", f"vectorwright-{name.removeprefix('vectorwright-')}")
    return label[:50].strip("-")


def machine_address() -> str | None:
    """Where the nodes' pods reach this machine: its end of the network that kind's containers are in."""
    ranges = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    asked = subprocess.run(
        ["docker", "network", "inspect", "kind", "--format", ranges], capture_output=True, text=True, check=False
    )
    found = [word for word in asked.stdout.split() if asked.returncode == 0 and "." in word]
    return found[0] if found else None


def load_image(name: str, archive: Path) -> None:
    """Give the nodes of the cluster ``name`` the images in ``archive``. Raises ClusterError with kind's own words."""
    loaded = subprocess.run(
        ["kind", "load", "image-archive", str(archive), "--name", cluster_name(name)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if loaded.returncode != 0:
        raise ClusterError(f"kind could not load {archive}:\n{loaded.stdout.strip()}")


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
