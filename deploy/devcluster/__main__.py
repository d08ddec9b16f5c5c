"""``python -m deploy.devcluster up|down|status|build|image``: clusters that stay until they are stopped."""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from deploy.devcluster import build, kind, state
from deploy.devcluster.errors import ClusterError
from deploy.devcluster.image import IMAGE, ensure_image
from deploy.devcluster.launch import node_wanted, prepare, start
from deploy.devcluster.node.loading import load_image
from deploy.devcluster.paths import CHECKOUT, cluster_directory, locked
from deploy.devcluster.processes import ProcessError

_BASE = CHECKOUT / "deploy" / "kustomize" / "base"


class _Console:
    """Progress lines with the seconds since the command began."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, message: str) -> None:
        print(f"[{time.monotonic() - self._begun:5.1f}s] {message}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.devcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (
        ("up", "start a cluster and leave it running"),
        ("down", "stop a cluster and delete its data"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.add_argument("--name", default=os.environ.get("NAME") or "dev", help="which of several clusters (NAME=)")
        if command == "down":
            sub.add_argument("--all", action="store_true", help="stop every cluster of this checkout")
    commands.add_parser("status", help="list the clusters of this checkout")
    commands.add_parser("build", help="build the control plane (and with NODE=1 a node's programs) into the cache")
    commands.add_parser("image", help="build the image of this checkout into the cache, and print where it is")
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            _up(options.name)
        elif options.command == "down":
            for name in _names() if options.all else [options.name]:
                _down(name)
        elif options.command == "build":
            print(build.ensure_built(_Console()))
            prepare(_Console())
        elif options.command == "image":
            print(ensure_image(_Console()))
        else:
            _status()
    except (ClusterError, ProcessError) as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _up(name: str) -> None:
    directory = cluster_directory(name)
    progress = _Console()
    with _lock(directory, progress):
        running = state.load(directory)
        if running is not None and running.alive():
            progress(f"cluster {name} is running already ({running.source}, {running.server})")
            source = running.source
            if node_wanted() and source in {"control plane", "envtest"}:
                raise ClusterError(
                    f"cluster {name} runs without a node: stop it first, or choose another name by NAME="
                )
        else:
            state.remove(directory)
            cluster = start(name, progress=progress, owned=False)
            progress(f"cluster {name} is ready ({cluster.source}, {cluster.server})")
            source = cluster.source
        if node_wanted():
            _load_image(name, directory, source, progress)
    print(f"export KUBECONFIG={directory / 'kubeconfig'}")
    print(f"export PATH={directory / 'bin'}:$PATH   # a kubectl for this cluster")
    print(f"# stop it: make cluster-down{'' if name == 'dev' else f' NAME={name}'}")


def _load_image(name: str, directory: Path, source: str, progress: _Console) -> None:
    """Give the nodes the image of the checkout as it is now."""
    if source not in {"node", "kind"}:
        progress(f"the nodes of a cluster from {source} take images from a registry: push {IMAGE} to one of theirs")
        return
    archive = ensure_image(progress)
    loaded = directory / "image-loaded"
    if loaded.exists() and loaded.read_text() == archive.name:
        return
    progress(f"loading the image {IMAGE}")
    if source == "kind":
        kind.load_image(name, archive)
    else:
        load_image(directory / "node", archive, progress)
    loaded.write_text(archive.name)
    progress(f"the image is there; install the operator: kubectl apply --server-side -k {_BASE.relative_to(CHECKOUT)}")


def _down(name: str) -> None:
    directory = cluster_directory(name)
    progress = _Console()
    with _lock(directory, progress):
        if not directory.exists():
            progress(f"no cluster named {name} here")
            return
        state.remove(directory)
    progress(f"cluster {name} is gone")


def _names() -> list[str]:
    return sorted(path.name for path in (CHECKOUT / ".run" / "clusters").glob("*/"))


def _status() -> None:
    names = _names()
    if not names:
        print("no clusters: make cluster-up")
    for name in names:
        directory = cluster_directory(name)
        known = state.load(directory)
        if known is None:
            print(f"{name}: starting or left over")
        else:
            condition = "running" if known.alive() else "dead (make cluster-down removes it)"
            print(f"{known.name}: {condition}, {known.source}, {known.server}, KUBECONFIG={directory / 'kubeconfig'}")


def _lock(directory: Path, progress: _Console) -> AbstractContextManager[None]:
    return locked(
        directory.with_suffix(".lock"),
        lambda seconds: progress(f"waiting for another command on this cluster ({seconds:.0f} s)"),
    )


if __name__ == "__main__":
    sys.exit(main())
