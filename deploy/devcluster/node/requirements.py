"""What a node asks of this machine: Linux, root, and some packages of its distribution."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.devcluster.errors import ClusterError
from deploy.devcluster.gobuild import Progress

RUNTIME_TOOLS = {
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
"""Command, or file, that pods need: the Debian package that has it."""

IMAGE_TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap"}
"""What the image is built with where there is no container engine."""

SEARCHED = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
"""Where these are looked for: the PATH of a user often leaves out what is for root."""


def check_machine() -> None:
    """Raises ClusterError, with what to do, where this machine cannot run a node."""
    user = os.geteuid()
    system = platform.system()
    if system == "Linux" and user == 0:
        return
    lacking = f"this is user {user}" if system == "Linux" else f"this is {system}"
    raise ClusterError(
        f"NODE=1 runs pods on this machine, which only root on Linux may do, and {lacking}: run it as root on Linux, "
        "or install kind with Docker, or name a cluster that has nodes by CONTEXT=NAME"
    )


def missing_packages(tools: Mapping[str, str]) -> list[str]:
    """The packages of ``tools`` that are not there, sorted."""
    return sorted({package for tool, package in tools.items() if not _found(tool)})


def _found(tool: str) -> bool:
    return Path(tool).exists() if tool.startswith("/") else shutil.which(tool, path=SEARCHED) is not None


def ensure_packages(tools: Mapping[str, str], progress: Progress) -> None:
    """Install with apt-get what is missing. Raises ClusterError where that cannot be done, or failed."""
    packages = missing_packages(tools)
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"NODE=1 needs {', '.join(packages)} (as Debian calls them), and there is no apt-get to install them with: "
            "install what has these programs"
        )
    progress(f"installing {', '.join(packages)} with apt-get")
    _apt(["update", "-qq"], packages)
    _apt(["install", "-y", "-qq", "--no-install-recommends", *packages], packages)
    if still := missing_packages(tools):
        raise ClusterError(
            f"apt-get installed {', '.join(packages)}, and what {', '.join(still)} should have is not there"
        )


def _apt(arguments: Iterable[str], packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", *arguments]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ClusterError(f"{', '.join(packages)} could not be installed: '{' '.join(command)}' failed:\n{tail}")
