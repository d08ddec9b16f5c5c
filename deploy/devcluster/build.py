"""The control plane: one program that is built from Go modules."""

from __future__ import annotations

from pathlib import Path

from deploy.devcluster import gobuild
from deploy.devcluster.errors import ClusterError
from deploy.devcluster.gobuild import GoBuildError, GoProgram, Progress

__all__ = ["SOURCE", "Progress", "binary_path", "ensure_built", "kubernetes_version", "link_flags"]

SOURCE = Path(__file__).with_name("controlplane")

_VERSION_PACKAGE = "k8s.io/component-base/version"


def kubernetes_version() -> str:
    """The Kubernetes release that go.mod pins, as "v1.36.1"."""
    return gobuild.module_version(GoProgram("controlplane", "the control plane", SOURCE), "k8s.io/kubernetes")


def _program() -> GoProgram:
    version = kubernetes_version()
    return GoProgram(
        name="controlplane",
        label="the control plane",
        source=SOURCE,
        sources=("go.mod", "go.sum", "main.go"),
        link_flags=link_flags(version),
        description=f"Kubernetes {version} (etcd, API server, controller manager, kubectl)",
        duration="4 minutes",
        without_go="no cluster to run on: no Go toolchain and no Docker with kind was found",
        instead=", or kind with Docker, or name a cluster: CONTEXT=NAME",
    )


def link_flags(version: str) -> str:
    """Without a version of its own the server calls itself v0.0.0, which no client can parse."""
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s", "-w", *(f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in values.items())])


def binary_path() -> Path:
    """Where the built control plane is, or will be."""
    return gobuild.binary_path(_program())


def ensure_built(progress: Progress) -> Path:
    """The control plane's program, built first when it is not in the cache.

    Raises ClusterError when there is no usable Go, or with the end of the compiler's output.
    """
    try:
        return gobuild.ensure_built(_program(), progress)
    except GoBuildError as error:
        raise ClusterError(str(error)) from None
