"""The control group that holds all pods of one cluster: by it they are limited, and found when they are to go.

Under version 1 of control groups there is one of this name in each hierarchy, under version 2 one in all.
"""

from __future__ import annotations

import contextlib
from hashlib import sha256
from pathlib import Path

from deploy.devcluster.supervisor import CONTROL_GROUPS, remove_group

__all__ = ["create", "name_of", "remove_group"]

_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "hugetlb", "io")


def name_of(directory: Path) -> str:
    """The group of the cluster in ``directory``: it can be told without anything written down."""
    return f"vectorwright-{sha256(str(directory).encode()).hexdigest()[:12]}"


def create(name: str, root: Path = CONTROL_GROUPS) -> None:
    """Make the group ``name`` in every hierarchy that has controllers of resources, empty."""
    remove_group(name, root)
    if (root / "cgroup.controllers").exists():
        for controller in _CONTROLLERS:
            # A kernel that lacks one has nothing to share out.
            with contextlib.suppress(OSError):
                (root / "cgroup.subtree_control").write_text(f"+{controller}")
        (root / name).mkdir()
        return
    for hierarchy in root.iterdir():
        if (hierarchy / "cgroup.procs").exists() and not hierarchy.is_symlink():
            (hierarchy / name).mkdir()
