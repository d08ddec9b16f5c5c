"""The namespaces that a node lives in, and the wire between them and this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy.devcluster.errors import ClusterError
from deploy.devcluster.node import cgroups
from deploy.devcluster.node.addresses import Addresses, free_blocks
from deploy.devcluster.node.requirements import SEARCHED
from deploy.devcluster.processes import ManagedProcess, wait_for

_INIT = Path(__file__).with_name("init.py")
_START_SECONDS = 30.0


class Machine:
    """Processes, mounts and a network of their own; all of it ends with the one process that ``process`` is."""

    def __init__(self, directory: Path, process: ManagedProcess, pid: int, addresses: Addresses) -> None:
        self.directory = directory
        self.process = process
        self.pid = pid
        self.addresses = addresses

    @classmethod
    def start(cls, directory: Path, *, visible: Iterable[Path], remove: Path) -> Machine:
        """Make the namespaces and the wire.

        ``directory`` is made for it; ``visible`` are files that the node needs; ``remove`` is the cluster's directory.
        Raises ClusterError when every block of addresses is in use, ProcessError when the kernel refuses.
        """
        directory.mkdir()
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "--propagation", "private"]
        command += ["--", sys.executable, "-I", "-S", str(_INIT), "--directory", str(directory)]
        command += [word for path in visible for word in ("--visible", str(path))]
        group = cgroups.name_of(remove)
        try:
            cgroups.create(group)
        except OSError as error:
            raise ClusterError(
                f"NODE=1 needs a control group for its pods, and none can be made here: {error}"
            ) from error
        process = ManagedProcess.start(
            command,
            log=directory.parent / "node.log",
            env=environment(),
            stop_signal=signal.SIGKILL,
            remove=remove,
            control_group=group,
        )
        try:
            known = directory / "pid"
            wait_for(known.exists, what="the node's namespaces", timeout=_START_SECONDS, process=process)
            pid = int(known.read_text())
            return cls(directory, process, pid, _connect(pid))
        except BaseException:
            process.stop()
            raise

    def enter(self, *command: str | Path) -> list[str]:
        """``command`` as it is run inside."""
        return entering(self.pid, *command)

    def overlay_works(self) -> bool:
        """Whether container images can be laid over one another on this disk (not where it is such a pile itself)."""
        trial = self.directory / "overlay"
        places = [trial / name for name in ("lower", "upper", "work", "whole")]
        for place in places:
            place.mkdir(parents=True)
        lower, upper, work, whole = (str(place) for place in places)
        command = ["unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o"]
        command += [f"lowerdir={lower},upperdir={upper},workdir={work}", whole]
        done = subprocess.run(command, env=environment(), capture_output=True, check=False)
        return done.returncode == 0


def entering(pid: int, *command: str | Path) -> list[str]:
    """``command`` as it is run in the namespaces of ``pid``."""
    target = [f"--target={pid}", "--mount", "--net", "--pid"]
    return ["nsenter", *target, "--", *(os.fspath(word) for word in command)]


def environment() -> dict[str, str]:
    """For programs of a node: where root's tools are, no proxy, and none of the user's Kubernetes settings."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    for key in ("KUBECONFIG", "GODEBUG"):
        kept.pop(key, None)
    return {**kept, "PATH": SEARCHED}


def _connect(pid: int) -> Addresses:
    """Lay a wire to the namespaces of ``pid``, with the first block of addresses that nobody uses."""
    found = json.loads(_output(["ip", "-json", "-4", "route", "show", "table", "all"]))
    for addresses in free_blocks(route["dst"] for route in found):
        wire = ["ip", "link", "add", addresses.interface, "type", "veth", "peer", "name", "eth0", "netns", str(pid)]
        done = subprocess.run(wire, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            _configure(pid, addresses)
            return addresses
        if "exists" not in done.stderr:
            raise ClusterError(f"'{' '.join(wire)}' failed: {done.stderr.strip()}")
    raise ClusterError("every block of addresses of 10.213.0.0/16 is in use: stop a cluster that has a node")


def _configure(pid: int, addresses: Addresses) -> None:
    inside = ["nsenter", f"--target={pid}", "--net", "--"]
    for command in (
        ["ip", "address", "add", f"{addresses.machine}/30", "dev", addresses.interface],
        ["ip", "link", "set", addresses.interface, "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
        [*inside, "ip", "address", "add", f"{addresses.node}/30", "dev", "eth0"],
        [*inside, "ip", "link", "set", "eth0", "up"],
        [*inside, "ip", "route", "add", "default", "via", str(addresses.machine)],
        # So that this machine reaches pods and Services; the routes go with the interface.
        ["ip", "route", "add", str(addresses.pods), "via", str(addresses.node)],
        ["ip", "route", "add", str(addresses.services), "via", str(addresses.node)],
    ):
        _output(command)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"'{' '.join(command)}' failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
