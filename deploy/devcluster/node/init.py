"""The first process of a node: it makes the places of the node's own, and collects what ends there.

Executed as a script (``unshare … python -I -S init.py …``), never imported: it uses the standard library alone. It is
process 1 of a namespace of processes: when it ends, however that happens, the kernel ends all others there, which are
containerd, the kubelet, and every container. Their mounts and network interfaces go with the namespaces.

Programs of a node have paths that cannot be changed (``/var/lib/kubelet/device-plugins``, ``/run/containerd/s``). In
the namespace of mounts these are empty file systems, so that neither this machine nor another node sees what is there.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_MS_BIND = 4096
_HIDDEN = ("/run", "/var/lib", "/var/log")
_KEPT = {"containerd": "/var/lib/containerd", "kubelet": "/var/lib/kubelet", "pods": "/var/log/pods"}
"""Folders of the cluster's directory, and where the node's programs see them: what is large must be on a disk."""


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _bind(source: str, target: Path) -> None:
    """The system call itself: the command would look for the path behind an open file, where it is no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), os.fsencode(target), None, _MS_BIND, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _hide(place: str, visible: Sequence[Path]) -> None:
    """Mount an empty file system on ``place``; of what is below it only ``visible`` stays."""
    held = [(path, os.open(path, os.O_PATH)) for path in visible if path.is_relative_to(place)]
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    for path, handle in held:
        if os.fstat(handle).st_mode & 0o170000 == 0o040000:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        _bind(f"/proc/self/fd/{handle}", path)
        os.close(handle)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Be process 1 of a node.")
    parser.add_argument("--directory", type=Path, required=True, help="of the node; holds what needs a disk")
    parser.add_argument("--visible", type=Path, action="append", default=[], help="a path that must stay in sight")
    options = parser.parse_args(arguments)
    # As the machine sees it: this /proc is still the one from outside.
    pid = str(Path("/proc/self").readlink())
    _mount("--make-rshared", "/")
    for place in _HIDDEN:
        if Path(place).is_dir():
            _hide(place, [options.directory, *options.visible])
    for name, place in _KEPT.items():
        (options.directory / name).mkdir()
        Path(place).mkdir(parents=True)
        _mount("--bind", str(options.directory / name), place)
    _mount("-t", "proc", "proc", "/proc")
    # Of this network alone: packets pass from the pods to this machine.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    partial = options.directory / "pid.partial"
    partial.write_text(pid)
    partial.rename(options.directory / "pid")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
