"""The programs of a node that come as Go modules, each built once from the pins in its folder of ``go/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.devcluster import build, gobuild
from deploy.devcluster.errors import ClusterError
from deploy.devcluster.gobuild import GoBuildError, GoProgram, Progress

SOURCES = Path(__file__).with_name("go")

_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_INSTEAD = ", or kind with Docker, or name a cluster that has nodes: CONTEXT=NAME"


def kubernetes_node_program() -> GoProgram:
    """Scheduler, kubelet and kube-proxy in one program, of the control plane's release."""
    version = gobuild.module_version(
        _ours("kubernetes-node", "kubernetes", "the node's Kubernetes"), "k8s.io/kubernetes"
    )
    return _ours(
        "kubernetes-node",
        "kubernetes",
        "the node's part of Kubernetes",
        link_flags=build.link_flags(version),
        description=f"Kubernetes {version} (scheduler, kubelet, kube-proxy)",
        duration="3 minutes",
    )


def coredns_program() -> GoProgram:
    """CoreDNS with the plugins that a cluster needs."""
    return _ours("coredns", "coredns", "CoreDNS", duration="2 minutes")


def pause_program() -> GoProgram:
    """What a pod's sandbox runs."""
    return _ours("pause", "pause", "the pause program", sources=("go.mod", "main.go"), duration="a second")


def containerd_programs() -> tuple[GoProgram, ...]:
    """containerd, its shim for runc, and its command line; containerd finds the shim by its name."""
    return tuple(
        GoProgram(
            name=name,
            label=name,
            source=SOURCES / "containerd",
            package=f"{_CONTAINERD}/{name}",
            duration=duration,
            without_go="containerd cannot be built: no Go toolchain was found",
            instead=_INSTEAD,
        )
        for name, duration in (
            ("containerd", "2 minutes"),
            ("containerd-shim-runc-v2", "10 seconds"),
            ("ctr", "10 seconds"),
        )
    )


def _ours(
    name: str,
    folder: str,
    label: str,
    *,
    sources: tuple[str, ...] = ("go.mod", "go.sum", "main.go"),
    link_flags: str = "-s -w",
    description: str = "",
    duration: str = "some minutes",
) -> GoProgram:
    return GoProgram(
        name=name,
        label=label,
        source=SOURCES / folder,
        sources=sources,
        link_flags=link_flags,
        description=description,
        duration=duration,
        without_go=f"{label} cannot be built: no Go toolchain was found",
        instead=_INSTEAD,
    )


@dataclass(frozen=True, slots=True)
class NodePrograms:
    """Files of the built programs."""

    kubernetes: Path
    coredns: Path
    pause: Path
    containerd: Path
    shim: Path
    ctr: Path


def ensure_built(progress: Progress) -> NodePrograms:
    """All of them, built first where they are not in the cache. Raises ClusterError as the control plane's does."""
    wanted = (kubernetes_node_program(), coredns_program(), pause_program(), *containerd_programs())
    try:
        return NodePrograms(*(gobuild.ensure_built(program, progress) for program in wanted))
    except GoBuildError as error:
        raise ClusterError(str(error)) from None
