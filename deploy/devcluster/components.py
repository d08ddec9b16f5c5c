"""Run etcd, an API server and a controller manager as ordinary processes in one directory."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import signal
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from deploy.devcluster import kubeconfig
from deploy.devcluster.build import Progress
from deploy.devcluster.processes import ManagedProcess, on_free_port, wait_for

_ETCD = "unix://etcd.sock:1"
"""etcd listens on a socket file in the run directory: no port to race for, and nobody else can reach it."""

_READY_SECONDS = 120.0
"""The API server is ready after 2 to 4 s; a machine whose cores are all busy may take much longer."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The command that starts each part; ``controller_manager`` is None where the set has none (envtest)."""

    etcd: tuple[str, ...]
    apiserver: tuple[str, ...]
    controller_manager: tuple[str, ...] | None
    kubectl: tuple[str, ...]

    @classmethod
    def multicall(cls, binary: Path) -> Programs:
        """One program that holds all four (see controlplane/main.go)."""
        program = str(binary)
        return cls(
            (program, "etcd"),
            (program, "kube-apiserver"),
            (program, "kube-controller-manager"),
            (program, "kubectl"),
        )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who else there is: for a cluster without nodes nobody, and the API server is for this machine alone."""

    address: str = "127.0.0.1"
    """Where the API server listens, and what it tells pods to call."""
    services: str = "10.96.0.0/16"
    """The range of the Services' addresses."""
    kubelet_credentials: tuple[Path, Path] | None = None
    """Certificate and key by which kubelets know the API server; None where there are no nodes."""
    users: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)
    """Token, name and group of each part that runs apart from the control plane; a group may be empty."""


class ControlPlane:
    """The running parts. The API server keeps its port, certificate and token over a restart."""

    def __init__(self, programs: Programs, directory: Path, surroundings: Surroundings | None = None) -> None:
        self._programs = programs
        self._directory = directory
        self._surroundings = surroundings or Surroundings()
        self._processes: dict[str, ManagedProcess] = {}
        self.port = 0
        self.token = secrets.token_urlsafe(32)

    @property
    def server(self) -> str:
        return f"https://{self._surroundings.address}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate bundle that the API server made for itself: its own certificate and the CA that signed it."""
        return self._directory / "certs" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        return self._directory / "kubeconfig"

    @property
    def processes(self) -> tuple[ManagedProcess, ...]:
        return tuple(self._processes.values())

    def start(self, name: str, progress: Progress) -> None:
        """Start every part and return when the API server is ready and namespaces get their service accounts."""
        kubeconfig.write_private(self._directory / "service-account.key", _service_account_key())
        # The group system:masters may do everything, whatever RBAC says.
        users = [(self.token, "admin", "system:masters"), *self._surroundings.users]
        lines = "".join(f'{token},{user},{user},"{group}"\n' for token, user, group in users)
        kubeconfig.write_private(self._directory / "tokens.csv", lines)
        self._start_etcd()
        on_free_port(self._start_apiserver)
        kubeconfig.write(self.kubeconfig, server=self.server, token=self.token, ca=self.ca_file.read_bytes(), name=name)
        if self._programs.controller_manager is None:
            progress(
                "this set of programs has no kube-controller-manager: namespaces stay Terminating, Jobs make no pods, "
                "and owned objects are not collected"
            )
            return
        self._start_controller_manager(self._programs.controller_manager)

    def kill_apiserver(self) -> None:
        """End the API server as a crash would."""
        self._processes["kube-apiserver"].kill()

    def start_apiserver(self) -> None:
        """Start the API server again on its port; returns when it is ready."""
        self._start_apiserver(self.port)

    def _run(self, name: str, command: list[str]) -> ManagedProcess:
        process = ManagedProcess.start(
            command,
            log=self._directory / f"{name}.log",
            cwd=self._directory,
            env=_environment(),
            # Nothing of a stopped cluster is kept, so nothing is gained by waiting for it to finish its work.
            stop_signal=signal.SIGKILL,
            remove=self._directory,
        )
        self._processes[name] = process
        return process

    def _start_etcd(self) -> None:
        command = [*self._programs.etcd, "--name=dev", "--data-dir=etcd", "--unsafe-no-fsync", "--log-level=warn"]
        command += [f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}"]
        peer = "unix://etcd.sock:2"
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command += [f"--initial-cluster=dev={peer}"]
        process = self._run("etcd", command)
        socket = self._directory / "etcd.sock:1"
        wait_for(socket.exists, what="etcd to listen", timeout=30, process=process)

    def _start_apiserver(self, port: int) -> None:
        self.port = port
        command = [*self._programs.apiserver, f"--etcd-servers={_ETCD}", "--cert-dir=certs"]
        around = self._surroundings
        command += [
            f"--bind-address={around.address}",
            f"--secure-port={port}",
            f"--advertise-address={around.address}",
        ]
        command += [f"--service-cluster-ip-range={around.services}"]
        if around.kubelet_credentials is None:
            # No node reaches the API server through the Service of that name, and a loopback address is refused for it.
            command += ["--endpoint-reconciler-type=none"]
        else:
            certificate, key = around.kubelet_credentials
            command += [f"--kubelet-client-certificate={certificate}", f"--kubelet-client-key={key}"]
            command += ["--kubelet-preferred-address-types=InternalIP"]
        command += ["--token-auth-file=tokens.csv", "--authorization-mode=Node,RBAC", "--allow-privileged=true"]
        command += ["--service-account-issuer=https://kubernetes.default.svc"]
        command += ["--service-account-key-file=service-account.key"]
        command += ["--service-account-signing-key-file=service-account.key"]
        process = self._run("kube-apiserver", command)
        wait_for(
            lambda: self.ca_file.exists() and self._get("/readyz") == b"ok",
            what="the API server to be ready",
            timeout=_READY_SECONDS,
            process=process,
        )

    def _start_controller_manager(self, program: tuple[str, ...]) -> None:
        command = [*program, "--kubeconfig=kubeconfig", "--secure-port=0", "--leader-elect=false"]
        command += ["--service-account-private-key-file=service-account.key", f"--root-ca-file={self.ca_file}"]
        # The default of 20 requests/s makes deleting the namespaces of a test run the slowest part of it.
        command += ["--kube-api-qps=500", "--kube-api-burst=1000"]
        process = self._run("kube-controller-manager", command)
        wait_for(
            lambda: self._get("/api/v1/namespaces/default/serviceaccounts/default") is not None,
            what="the controller manager to make the first service account",
            timeout=_READY_SECONDS,
            process=process,
        )

    def _get(self, path: str) -> bytes | None:
        """The body of a 200 answer of our own API server (its certificate is checked), else None."""
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {self.token}"})
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            with opener.open(request, timeout=5) as answer:
                body: bytes = answer.read()
                return body
        except urllib.error.HTTPError as error:
            error.close()
            return None
        except (OSError, http.client.HTTPException):
            return None

    def stop(self) -> None:
        """Stop every part, the last started first."""
        for process in reversed(self.processes):
            process.stop()


def _environment() -> dict[str, str]:
    """What the parts need: no proxy for loopback, and none of the user's Kubernetes settings."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    for key in ("KUBECONFIG", "GODEBUG"):
        kept.pop(key, None)
    return {key: value for key, value in kept.items() if not key.startswith("ETCD_")}


def _service_account_key() -> str:
    """A fresh P-256 private key in PEM, for signing service account tokens.

    The DER is RFC 5915's ECPrivateKey without its optional public key, which the reader computes: so that nothing but
    the standard library is needed to make one.
    """
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    scalar = (secrets.randbelow(order - 1) + 1).to_bytes(32, "big")
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    der = bytes.fromhex("30310201010420") + scalar + curve
    body = base64.encodebytes(der).decode().replace("\n", "")
    return f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n"
