"""A cluster that runs, however it came about, and the calls on it that demo, tests and benchmarks share."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from deploy.devcluster import kind, kubeconfig
from deploy.devcluster.components import ControlPlane
from deploy.devcluster.errors import ClusterError, KubectlError
from deploy.devcluster.node.node import Node
from deploy.devcluster.processes import ManagedProcess


class Cluster:
    """A reachable API server with a kubeconfig and a kubectl of its own.

    ``source`` says where it came from: "control plane", "node" (a control plane and a node), "envtest", "kind",
    "context" or "kubeconfig". ``token`` is a bearer token with every right, or empty when the cluster is reached in
    another way. ``stop()`` ends what was started for it, and removes its directory; a cluster that was there before is
    left alone.
    """

    def __init__(
        self,
        *,
        name: str,
        source: str,
        directory: Path,
        kubeconfig_file: Path,
        kubectl_command: Sequence[str],
        processes: Sequence[ManagedProcess] = (),
        control_plane: ControlPlane | None = None,
        node: Node | None = None,
        has_controller_manager: bool = True,
    ) -> None:
        access = kubeconfig.read_access(kubeconfig_file)
        self.name = name
        self.source = source
        self.directory = directory
        self.kubeconfig = kubeconfig_file
        self.server = access.server
        self.token = access.token
        self.has_controller_manager = has_controller_manager
        self.ca_file: Path | None = None
        if access.ca is not None:
            self.ca_file = directory / "ca.crt"
            self.ca_file.write_bytes(access.ca)
        self.kubectl = _write_kubectl(directory, kubeconfig_file, kubectl_command)
        self._processes = tuple(processes)
        self._control_plane = control_plane
        self._node = node
        self._stopped = False

    @property
    def processes(self) -> tuple[ManagedProcess, ...]:
        """The programs that run for this cluster; none for one that was there before."""
        parts = (self._control_plane, self._node)
        return (*self._processes, *(process for part in parts if part is not None for process in part.processes))

    @property
    def has_nodes(self) -> bool:
        """Whether pods run here: at least one node says that it is ready."""
        conditions = "{.items[*].status.conditions[?(@.type=='Ready')].status}"
        return "True" in self.kubectl_run("get", "nodes", "-o", f"jsonpath={conditions}").split()

    @property
    def machine_address(self) -> str | None:
        """Where pods reach this machine; None where that is not known."""
        if self._node is not None:
            return str(self._node.addresses.machine)
        return kind.machine_address() if self.source == "kind" else None

    def load_image(self, archive: Path) -> None:
        """Give the nodes the images in ``archive``, in the format of ``docker save``.

        Raises ClusterError where the nodes take images from a registry only.
        """
        if self._node is not None:
            self._node.load_image(archive)
        elif self.source == "kind":
            kind.load_image(self.name, archive)
        else:
            raise ClusterError(
                f"the nodes of a cluster from {self.source} cannot be given an image: push it to a registry of theirs"
            )

    def kubectl_run(self, *arguments: str, input: str | None = None, timeout: float = 120) -> str:  # noqa: A002
        """Run kubectl with everything allowed and return its stdout. Raises KubectlError with its stderr."""
        done = subprocess.run(
            [self.kubectl, *arguments], input=input, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise KubectlError(arguments, done.returncode, done.stderr)
        return done.stdout

    def kill_apiserver(self) -> None:
        """End the API server as a crash would; ``start_apiserver()`` brings it back on the same address."""
        self._own_control_plane().kill_apiserver()

    def start_apiserver(self) -> None:
        """Start a killed API server again; returns when it is ready."""
        self._own_control_plane().start_apiserver()

    def restart_apiserver(self) -> None:
        """Kill the API server and start it again on the same address with the same data."""
        self.kill_apiserver()
        self.start_apiserver()

    def _own_control_plane(self) -> ControlPlane:
        if self._control_plane is None:
            raise ClusterError(f"the API server of a cluster from {self.source} is not ours to stop")
        return self._control_plane

    def stop(self) -> None:
        """End what was started for this cluster and remove its directory. Safe to call again."""
        if self._stopped:
            return
        self._stopped = True
        if self._node is not None:
            self._node.stop()
        if self._control_plane is not None:
            self._control_plane.stop()
        for process in self._processes:
            process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _write_kubectl(directory: Path, kubeconfig_file: Path, command: Sequence[str]) -> Path:
    """A kubectl that talks to this cluster whatever KUBECONFIG says, and keeps its cache with it.

    The discovery cache must not be shared: it is keyed by address, and another run may get the same port.
    """
    shim = directory / "bin" / "kubectl"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(
        "#!/bin/sh\n"
        f"export KUBECONFIG={shlex.quote(os.fspath(kubeconfig_file))}\n"
        f"export KUBECACHEDIR={shlex.quote(os.fspath(directory / 'kube-cache'))}\n"
        f'exec {shlex.join(command)} "$@"\n'
    )
    shim.chmod(0o755)
    return shim
