"""Choose where a cluster comes from, and start it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.devcluster import build, kind, kubeconfig, state
from deploy.devcluster.build import Progress
from deploy.devcluster.cluster import Cluster
from deploy.devcluster.components import ControlPlane, Programs
from deploy.devcluster.errors import ClusterError
from deploy.devcluster.node import programs as node_programs
from deploy.devcluster.node import requirements
from deploy.devcluster.node.node import Node
from deploy.devcluster.paths import cluster_directory

_ENVTEST = ("etcd", "kube-apiserver", "kubectl")


def silent(_: str) -> None:
    """The progress callback of those who want none."""


def start(
    name: str | None = None,
    directory: Path | None = None,
    progress: Progress = silent,
    *,
    owned: bool = True,
    context: str | None = None,
    node: bool | None = None,
) -> Cluster:
    """Start a cluster, or reach one that was named, and return when it can be used.

    Where it comes from, in this order: the kubeconfig context ``context`` (or the environment's CONTEXT; never the
    ambient current context), kind where a Docker engine answers, the programs in KUBEBUILDER_ASSETS, a control plane
    built from Go modules. With ``node`` (or the environment's NODE=1) pods run: the first two have nodes of their own,
    else one is added to a control plane built from Go modules, which needs Linux and root. ``directory`` must not exist
    or be empty; without it a fresh one is made, in the checkout for a cluster with a name and among the temporary files
    otherwise.

    With ``owned`` the cluster ends with this process, however that ends. Raises ClusterError with what to install when
    there is no way to a cluster, or with the end of the log of the part that did not start.
    """
    begin = _choose(context or os.environ.get("CONTEXT", ""), node_wanted() if node is None else node)
    directory = _prepare(name, directory)
    name = name or directory.name
    with _removed_on_failure(directory):
        cluster = begin(name, directory, progress)
        state.save(directory, name=name, source=cluster.source, server=cluster.server, processes=cluster.processes)
    if not owned:
        for process in cluster.processes:
            process.disown()
    return cluster


def prepare(progress: Progress = silent, *, node: bool | None = None) -> None:
    """Build now what ``start()`` would build first, where a cluster would come from Go modules. Raises ClusterError."""
    chosen = _choose(os.environ.get("CONTEXT", ""), node_wanted() if node is None else node)
    if chosen in (_from_go_modules, _with_node):
        build.ensure_built(progress)
    if chosen is _with_node:
        node_programs.ensure_built(progress)


def attach(kubeconfig_file: Path, progress: Progress = silent) -> Cluster:
    """A cluster that runs already, by its kubeconfig's current context. ``stop()`` leaves it running."""
    directory = _prepare(None, None)
    with _removed_on_failure(directory):
        return Cluster(
            name=directory.name,
            source="kubeconfig",
            directory=directory,
            kubeconfig_file=kubeconfig_file.resolve(),
            kubectl_command=_any_kubectl(progress),
        )


_Starter = Callable[[str, Path, Progress], Cluster]


def node_wanted() -> bool:
    """Whether the environment asks for a cluster that runs pods: NODE=1."""
    return os.environ.get("NODE", "0") not in {"", "0"}


def _choose(context: str, node: bool) -> _Starter:
    if context:
        return lambda name, directory, progress: _from_context(context, name, directory, progress)
    if kind.usable():
        return _from_kind
    if node:
        # Envtest's programs have no kubelet, and one of another release might not suit them.
        requirements.check_machine()
        return _with_node
    if assets := os.environ.get("KUBEBUILDER_ASSETS", ""):
        return lambda name, directory, progress: _from_envtest(Path(assets), name, directory, progress)
    return _from_go_modules


def _from_context(context: str, name: str, directory: Path, progress: Progress) -> Cluster:
    target = directory / "kubeconfig"
    kubeconfig.extract(context, target)
    progress(f"using the kubeconfig context {context}")
    return Cluster(
        name=name,
        source="context",
        directory=directory,
        kubeconfig_file=target,
        kubectl_command=_any_kubectl(progress),
    )


def _from_kind(name: str, directory: Path, progress: Progress) -> Cluster:
    command = _any_kubectl(progress)
    guard = kind.create(kind.cluster_name(name), directory, progress=progress)
    try:
        return Cluster(
            name=name,
            source="kind",
            directory=directory,
            kubeconfig_file=directory / "kubeconfig",
            kubectl_command=command,
            processes=[guard],
        )
    except BaseException:
        guard.stop()
        raise


def _from_envtest(assets: Path, name: str, directory: Path, progress: Progress) -> Cluster:
    missing = [program for program in _ENVTEST if not os.access(assets / program, os.X_OK)]
    if missing:
        raise ClusterError(f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}: correct it, or unset it")
    manager = assets / "kube-controller-manager"
    programs = Programs(
        etcd=(str(assets / "etcd"),),
        apiserver=(str(assets / "kube-apiserver"),),
        controller_manager=(str(manager),) if os.access(manager, os.X_OK) else None,
        kubectl=(str(assets / "kubectl"),),
    )
    progress(f"starting the control plane in KUBEBUILDER_ASSETS={assets}")
    return _run(programs, "envtest", name, directory, progress)


def _from_go_modules(name: str, directory: Path, progress: Progress) -> Cluster:
    programs = Programs.multicall(build.ensure_built(progress))
    progress(f"starting Kubernetes {build.kubernetes_version()} (etcd, API server, controller manager)")
    return _run(programs, "control plane", name, directory, progress)


def _with_node(name: str, directory: Path, progress: Progress) -> Cluster:
    requirements.ensure_packages(requirements.RUNTIME_TOOLS, progress)
    programs = Programs.multicall(build.ensure_built(progress))
    node = Node.create(node_programs.ensure_built(progress), directory)
    try:
        progress(f"starting Kubernetes {build.kubernetes_version()} with a node at {node.addresses.node}")
        cluster = _run(programs, "node", name, directory, progress, node)
    except BaseException:
        node.stop()
        raise
    try:
        node.join(cluster.kubeconfig, cluster.kubectl_run, progress)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _run(
    programs: Programs, source: str, name: str, directory: Path, progress: Progress, node: Node | None = None
) -> Cluster:
    control_plane = ControlPlane(programs, directory, None if node is None else node.surroundings)
    try:
        control_plane.start(name, progress)
        return Cluster(
            name=name,
            source=source,
            directory=directory,
            kubeconfig_file=control_plane.kubeconfig,
            kubectl_command=programs.kubectl,
            control_plane=control_plane,
            node=node,
            has_controller_manager=programs.controller_manager is not None,
        )
    except BaseException:
        control_plane.stop()
        raise


def _any_kubectl(progress: Progress) -> tuple[str, ...]:
    """The user's kubectl, or the one that comes with the control plane."""
    installed = shutil.which("kubectl")
    return (installed,) if installed else Programs.multicall(build.ensure_built(progress)).kubectl


def _prepare(name: str | None, directory: Path | None) -> Path:
    if directory is None:
        directory = cluster_directory(name) if name else Path(tempfile.mkdtemp(prefix="vectorwright-"))
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    if any(directory.iterdir()):
        raise ClusterError(f"{directory} is not empty: stop the cluster that is there, or choose another place")
    return directory


@contextlib.contextmanager
def _removed_on_failure(directory: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
