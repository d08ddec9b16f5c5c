"""What is written down about a running cluster, so that a later command can find it and stop it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploy.devcluster.errors import ClusterError
from deploy.devcluster.kubeconfig import write_private
from deploy.devcluster.node import cgroups
from deploy.devcluster.processes import Identity, ManagedProcess, stop_all

_FILE = "state.json"
_STOP_SECONDS = 120.0
"""kind takes most of a minute to delete a cluster; a control plane of our own takes two seconds."""


@dataclass(frozen=True, slots=True)
class State:
    """``processes`` holds (supervisor, program) for each part that was started."""

    name: str
    source: str
    server: str
    processes: tuple[tuple[Identity, ...], ...]

    def alive(self) -> bool:
        """Whether every part that was started still runs (true for a cluster that was there before)."""
        return all(identity.alive() for pair in self.processes for identity in pair)


def save(directory: Path, *, name: str, source: str, server: str, processes: tuple[ManagedProcess, ...]) -> None:
    record = {
        "name": name,
        "source": source,
        "server": server,
        "processes": [[[i.pid, i.started] for i in process.identities] for process in processes],
    }
    write_private(directory / _FILE, json.dumps(record, indent=1) + "\n")


def load(directory: Path) -> State | None:
    """The state in ``directory``, or None when no cluster is recorded there."""
    try:
        record = json.loads((directory / _FILE).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ClusterError(f"{directory / _FILE} cannot be read ({error}): delete {directory}") from error
    pairs = tuple(tuple(Identity(pid, started) for pid, started in pair) for pair in record["processes"])
    return State(record["name"], record["source"], record["server"], pairs)


def remove(directory: Path) -> None:
    """Stop every process recorded in ``directory`` and delete it, with the control group of its pods."""
    state = load(directory)
    if state is not None:
        stop_all(state.processes, _STOP_SECONDS)
        cgroups.remove_group(cgroups.name_of(directory))
    shutil.rmtree(directory, ignore_errors=True)
