"""Demos that were left running (KEEP=1): written down in the checkout, listed, stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from deploy.demo import shared_cluster
from deploy.demo.commands import Kubectl
from deploy.demo.console import Screen
from deploy.demo.world import World
from deploy.devcluster import attach
from deploy.devcluster.kubeconfig import write_private
from deploy.devcluster.paths import CHECKOUT
from deploy.devcluster.processes import Identity, stop_all

_STOP_SECONDS = 120.0
"""kind takes most of a minute to delete a cluster; everything else ends within seconds."""


def _records() -> Path:
    return CHECKOUT / ".run" / "demos"


def keep(world: World) -> None:
    """Let everything outlive this process, and write down what it takes to stop it."""
    record = {
        "directory": str(world.directory),
        "kubeconfig": str(world.cluster.kubeconfig),
        "namespace": world.namespace if world.shared else None,
        "processes": [[[i.pid, i.started] for i in pair] for pair in world.identities()],
    }
    _records().mkdir(parents=True, exist_ok=True)
    write_private(_records() / f"{world.id}.json", json.dumps(record, indent=1) + "\n")
    world.let_go()


def usage(world: World) -> str:
    """How to use a demo that runs on, and how to stop it."""
    path = f"{world.cluster.kubectl.parent}:{CHECKOUT / '.venv' / 'bin'}"
    return f"""\
It runs on. In another shell:

    export KUBECONFIG={world.cluster.kubeconfig}
    export PATH={path}:$PATH

    kubectl get vst,vem,vix,vij
    kubectl describe vix docs
    vectorwright search code "keep or delete the vectors when the resource of an index is deleted"
    kubectl annotate vij docs vectorwright.dev/run-requested-at="$(date)" --overwrite
    git clone {world.repository.url}
    tail -f {world.operator.log}

Stop it and delete all of it:

    make demo-stop"""


def stop(screen: Screen) -> int:
    """Stop every demo that was left running from this checkout. Returns how many there were."""
    records = sorted(_records().glob("*.json"))
    for path in records:
        record: dict[str, Any] = json.loads(path.read_text())
        if record["namespace"] and Path(record["kubeconfig"]).exists():
            # The operator is still needed: it lets the resources go.
            with attach(Path(record["kubeconfig"])) as cluster:
                shared_cluster.leave(Kubectl(cluster, screen), record["namespace"], screen.say)
        pairs = [[Identity(pid, started) for pid, started in pair] for pair in record["processes"]]
        stop_all(pairs, _STOP_SECONDS)
        shutil.rmtree(record["directory"], ignore_errors=True)
        path.unlink()
        screen.plain(f"demo {path.stem} is gone: {len(pairs)} processes, {record['directory']}")
    return len(records)
