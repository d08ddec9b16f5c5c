"""What runs pods: containerd, kubelet, kube-proxy and DNS in a machine of their own, and the scheduler beside it."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.devcluster import kubeconfig
from deploy.devcluster.components import Surroundings
from deploy.devcluster.gobuild import Progress
from deploy.devcluster.node import cgroups, configuration, loading
from deploy.devcluster.node.configuration import NODE_NAME
from deploy.devcluster.node.machine import Machine, environment
from deploy.devcluster.node.programs import NodePrograms
from deploy.devcluster.node.requirements import SEARCHED
from deploy.devcluster.processes import ManagedProcess, wait_for

_READY_SECONDS = 120.0
"""The node is ready after about 10 s; a machine whose cores are all busy may take much longer."""


@dataclass(frozen=True, slots=True)
class _User:
    """A part that calls the API server, as it calls itself."""

    name: str
    group: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)


class Node:
    """The one node of a cluster. ``surroundings`` is what its control plane must know before it starts."""

    def __init__(self, programs: NodePrograms, directory: Path, machine: Machine) -> None:
        self._programs = programs
        self._directory = directory
        self._machine = machine
        self._processes: list[ManagedProcess] = [machine.process]
        self._users = {
            "kube-scheduler": _User("system:kube-scheduler"),
            "kubelet": _User(f"system:node:{NODE_NAME}", "system:nodes"),
            "kube-proxy": _User("system:kube-proxy"),
            "coredns": _User(configuration.DNS_USER),
        }
        self.addresses = machine.addresses
        self.surroundings = Surroundings(
            address=str(self.addresses.machine),
            services=str(self.addresses.services),
            kubelet_credentials=self._certify(),
            users=tuple((user.token, user.name, user.group) for user in self._users.values()),
        )

    @classmethod
    def create(cls, programs: NodePrograms, directory: Path) -> Node:
        """The node's machine, with nothing running on it yet. Raises as ``Machine.start`` does."""
        visible = [programs.kubernetes, programs.coredns, programs.containerd, programs.shim, programs.ctr, directory]
        machine = Machine.start(directory / "node", visible=visible, remove=directory)
        try:
            return cls(programs, directory, machine)
        except BaseException:
            machine.process.stop()
            raise

    @property
    def processes(self) -> tuple[ManagedProcess, ...]:
        return tuple(self._processes)

    def join(self, admin: Path, kubectl: Callable[..., str], progress: Progress) -> None:
        """Start every part, and return when the node is ready to run pods.

        ``admin`` is a kubeconfig with every right, and ``kubectl`` uses it as ``Cluster.kubectl_run`` does.
        """
        for part, user in self._users.items():
            kubeconfig.write_for(admin, self._file(f"{part}.kubeconfig"), token=user.token)
        kubectl("apply", "-f", "-", input=configuration.dns_rights())
        self._start_scheduler()
        self._start_containerd()
        self._start_dns()
        kubelet = self._start_kubelet()
        self._start_proxy()
        progress("waiting for the node to be ready")
        conditions = "{.status.conditions[?(@.type=='Ready')].status}"
        wait_for(
            lambda: kubectl("get", "node", NODE_NAME, "--ignore-not-found", "-o", f"jsonpath={conditions}") == "True",
            what="the node to be ready",
            timeout=_READY_SECONDS,
            process=kubelet,
            every=0.3,
        )

    def load_image(self, archive: Path) -> None:
        """Give containerd the images of an archive, as ``docker save`` writes it. Raises ClusterError."""
        loading.import_image(self._machine.pid, self._programs.ctr, archive)

    def stop(self) -> None:
        """End every part and every pod."""
        for process in reversed(self._processes):
            process.stop()

    def _file(self, name: str) -> Path:
        return self._machine.directory / name

    def _write(self, name: str, text: str) -> Path:
        path = self._file(name)
        kubeconfig.write_private(path, text)
        return path

    def _certify(self) -> tuple[Path, Path]:
        """A certificate by which the kubelet knows the API server, and no other caller."""
        import trustme  # noqa: PLC0415 - it takes a while to load, and only a node needs it

        authority = trustme.CA()
        issued = authority.issue_cert(
            "kube-apiserver.invalid", common_name="kube-apiserver", organization_name="system:masters"
        )
        authority.cert_pem.write_to_path(str(self._file("kubelet-clients.crt")))
        certificate, key = self._file("apiserver.crt"), self._file("apiserver.key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self._write("apiserver.key", issued.private_key_pem.bytes().decode())
        return certificate, key

    def _run(self, name: str, command: list[str], **more: str) -> ManagedProcess:
        process = ManagedProcess.start(
            command,
            log=self._directory / f"{name}.log",
            env={**environment(), **more},
            stop_signal=signal.SIGKILL,
            remove=self._directory,
        )
        self._processes.append(process)
        return process

    def _start_scheduler(self) -> None:
        """It runs beside the API server: it needs neither this node nor its network."""
        command = [str(self._programs.kubernetes), "kube-scheduler", "--leader-elect=false", "--secure-port=0"]
        command += [f"--kubeconfig={self._file('kube-scheduler.kubeconfig')}"]
        self._run("kube-scheduler", command)

    def _start_containerd(self) -> None:
        networks = self._file("cni")
        networks.mkdir()
        (networks / "10-pods.conflist").write_text(configuration.cni(self.addresses))
        snapshotter = "overlayfs" if self._machine.overlay_works() else "native"
        config = self._write("containerd.toml", configuration.containerd(cni=networks, snapshotter=snapshotter))
        path = f"{self._programs.shim.parent}:{SEARCHED}"
        process = self._run("containerd", self._machine.enter(self._programs.containerd, "--config", config), PATH=path)
        outside = Path(f"/proc/{self._machine.pid}/root{configuration.CONTAINERD_SOCKET}")
        wait_for(outside.is_socket, what="containerd to listen", timeout=60, process=process)
        archive = self._file("pause.tar")
        loading.write_image(archive, configuration.PAUSE_IMAGE, self._programs.pause)
        self.load_image(archive)

    def _start_dns(self) -> None:
        config = self._write(
            "Corefile", configuration.corefile(self.addresses, kubeconfig=self._file("coredns.kubeconfig"))
        )
        process = self._run("coredns", self._machine.enter(self._programs.coredns, "-conf", config))

        def answers() -> bool:
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex((str(self.addresses.node), 53)) == 0

        wait_for(answers, what="CoreDNS to answer", timeout=60, process=process)

    def _start_kubelet(self) -> ManagedProcess:
        resolver = self._write("resolv.conf", f"nameserver {self.addresses.node}\n")
        text = configuration.kubelet(
            self.addresses,
            client_ca=self._file("kubelet-clients.crt"),
            resolver=resolver,
            control_group=cgroups.name_of(self._directory),
        )
        config = self._write("kubelet.yaml", text)
        flags = [f"--config={config}", f"--kubeconfig={self._file('kubelet.kubeconfig')}"]
        flags += [f"--hostname-override={NODE_NAME}", f"--node-ip={self.addresses.node}"]
        return self._run("kubelet", self._machine.enter(self._programs.kubernetes, "kubelet", *flags))

    def _start_proxy(self) -> None:
        text = configuration.kube_proxy(self.addresses, kubeconfig=self._file("kube-proxy.kubeconfig"))
        config = self._write("kube-proxy.yaml", text)
        self._run("kube-proxy", self._machine.enter(self._programs.kubernetes, "kube-proxy", f"--config={config}"))
