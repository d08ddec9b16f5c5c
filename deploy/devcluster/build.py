"""Build the control plane from Go modules, once for each version of its sources, and keep it outside the checkout."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.devcluster.errors import ClusterError
from deploy.devcluster.paths import cache_directory, locked
from deploy.devcluster.processes import ManagedProcess, log_tail

Progress = Callable[[str], None]

SOURCE = Path(__file__).with_name("controlplane")
GO_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")
"""Where installers put Go without adding it to PATH."""

_SOURCES = ("go.mod", "go.sum", "main.go")
_VERSION_PACKAGE = "k8s.io/component-base/version"
_OLDEST_THAT_READS_GO_MOD = (1, 21)
_REPORT_SECONDS = 5.0
_INSTALL_GO = (
    "Install Go {needed} or later (https://go.dev/doc/install), or kind with Docker, or name a cluster: CONTEXT=NAME."
)


@dataclass(frozen=True, slots=True)
class GoToolchain:
    """A Go command that is new enough for the control plane's go.mod."""

    command: str
    version: str


def kubernetes_version() -> str:
    """The Kubernetes release that go.mod pins, as "v1.36.1"."""
    found = re.search(r"k8s\.io/kubernetes (v[0-9.]+)", (SOURCE / "go.mod").read_text())
    if found is None:
        raise ClusterError(f"{SOURCE / 'go.mod'} names no k8s.io/kubernetes version")
    return found[1]


def needed_go() -> str:
    """The Go version that go.mod asks for, as "1.26.0"."""
    found = re.search(r"^go ([0-9.]+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"{SOURCE / 'go.mod'} names no Go version")
    return found[1]


def find_go() -> GoToolchain:
    """The installed Go. Raises ClusterError, with what to install, when there is none or it is too old."""
    needed = needed_go()
    advice = _INSTALL_GO.format(needed=".".join(needed.split(".")[:2]))
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *GO_PLACES])
    command = shutil.which("go", path=places)
    if command is None:
        raise ClusterError(f"no cluster to run on: no Go toolchain and no Docker with kind was found. {advice}")
    own = _go_version(command, Path("/"))
    if own is None:
        raise ClusterError(f"{command} does not work: 'go env GOVERSION' failed. {advice}")
    if _numbers(own) < _OLDEST_THAT_READS_GO_MOD:
        raise ClusterError(f"{command} is Go {own}, and the control plane needs Go {needed}. {advice}")
    # Inside the module the go command switches to (and fetches) the toolchain that go.mod asks for, where it may.
    switched = own if _numbers(own) >= _numbers(needed) else _go_version(command, SOURCE)
    if switched is None or _numbers(switched) < _numbers(needed):
        raise ClusterError(
            f"{command} is Go {own}, the control plane needs Go {needed}, and this toolchain could not be fetched "
            f"(GOTOOLCHAIN, GOPROXY and GOFLAGS decide). {advice}"
        )
    return GoToolchain(command, switched)


def _go_version(command: str, directory: Path) -> str | None:
    answer = subprocess.run(
        [command, "env", "GOVERSION"], cwd=directory, env=_environment(), capture_output=True, text=True, check=False
    )
    found = re.search(r"go([0-9][0-9.]*)", answer.stdout)
    return found[1].rstrip(".") if answer.returncode == 0 and found else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _environment() -> dict[str, str]:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    if "HOME" not in environment:
        # Without a home the go command has no place for its caches.
        cache = cache_directory()
        environment |= {"GOPATH": str(cache / "go"), "GOCACHE": str(cache / "go-build")}
    return environment


def _link_flags() -> str:
    """Without a version of its own the server calls itself v0.0.0, which no client can parse."""
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s", "-w", *(f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in values.items())])


def binary_path() -> Path:
    """Where the built control plane is (or will be): keyed by its sources, link flags and the machine's kind."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((SOURCE / name).read_bytes())
    digest.update(f"{_link_flags()} {platform.system()} {platform.machine()}".encode())
    return cache_directory() / "controlplane" / digest.hexdigest()[:20] / "controlplane"


def ensure_built(progress: Progress) -> Path:
    """The control plane's program, built first when it is not in the cache.

    Of several builders at the same time one builds and the others wait for it. Raises ClusterError when there is no
    usable Go, or with the end of the compiler's output.
    """
    target = binary_path()
    if target.exists():
        return target
    lock = target.parent.with_suffix(".lock")

    def waiting(seconds: float) -> None:
        progress(f"another run is building the control plane; waiting for it ({seconds:.0f} s)")

    with locked(lock, _at_most_every(_REPORT_SECONDS, waiting)):
        if not target.exists():
            _build(find_go(), target, progress)
    return target


def _at_most_every(seconds: float, report: Callable[[float], None]) -> Callable[[float], None]:
    last = [-seconds]

    def maybe(now: float) -> None:
        if now - last[0] >= seconds:
            last[0] = now
            report(now)

    return maybe


def _build(go: GoToolchain, target: Path, progress: Progress) -> None:
    begun = time.monotonic()
    progress(
        f"building Kubernetes {kubernetes_version()} (etcd, API server, controller manager, kubectl) with Go "
        f"{go.version}; about 4 minutes on two cores, once"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in target.parent.glob("*.partial"):
        abandoned.unlink()
    partial = target.with_suffix(".partial")
    log = target.with_suffix(".log")
    listed = _run_go([go.command, "list", "-deps", "."], log, progress, _downloading)
    total = sum(not line.startswith("go: ") for line in listed)
    _run_go(
        [go.command, "build", "-v", "-trimpath", "-ldflags", _link_flags(), "-o", str(partial), "."],
        log,
        progress,
        lambda lines: _compiling(lines, total),
    )
    partial.replace(target)
    log.unlink()
    progress(f"built the control plane in {time.monotonic() - begun:.0f} s: {target}")


def _downloading(lines: list[str]) -> str:
    return f"downloading: {sum(line.startswith('go: downloading') for line in lines)} modules"


def _compiling(lines: list[str], total: int) -> str:
    """``go build -v`` names each package it compiles (not those in its cache), the main package last."""
    if lines and lines[-1].endswith("/controlplane"):
        return "linking"
    return f"compiling: {len(lines)} of at most {total} packages"


def _run_go(command: list[str], log: Path, progress: Progress, describe: Callable[[list[str]], str]) -> list[str]:
    """Run a go command that ends with this process, and return its output; report its progress in the meantime."""
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    report = _at_most_every(
        _REPORT_SECONDS, lambda seconds: progress(f"{describe(log.read_text().splitlines())}, {seconds:.0f} s")
    )
    with ManagedProcess.start(command, log=log, cwd=SOURCE, env=_environment()) as process:
        while process.poll() is None:
            time.sleep(0.2)
            if (passed := time.monotonic() - begun) > _REPORT_SECONDS:
                report(passed)
        if process.poll() != 0:
            raise ClusterError(f"'{' '.join(command[:2])}' failed in {SOURCE}:\n{log_tail(log)}")
    return log.read_text().splitlines()
