"""Build a Go program from pinned modules, once for each version of its pins, and keep it outside the checkout.

The checkout holds the pins (go.mod, go.sum, and a main.go where the program is ours), never fetched sources.
"""

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

from deploy.devcluster.paths import cache_directory, locked
from deploy.devcluster.processes import ManagedProcess, log_tail

Progress = Callable[[str], None]

GO_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")
"""Where installers put Go without adding it to PATH."""

_OLDEST_THAT_READS_GO_MOD = (1, 21)
_REPORT_SECONDS = 5.0


class GoBuildError(RuntimeError):
    """A program could not be built; the message says what to install, or ends with the compiler's output."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that is built from a Go module whose pins are in the checkout."""

    name: str
    """Name of the file that is built, and of its folder in the cache."""
    label: str
    """What messages call it, such as "the control plane"."""
    source: Path
    """The module's directory."""
    package: str = "."
    """What is built: the module itself, or the import path of a package that it requires."""
    sources: tuple[str, ...] = ("go.mod", "go.sum")
    """Files of ``source`` that decide what is built."""
    link_flags: str = "-s -w"
    description: str = ""
    """What a progress line says is being built, where ``label`` is not enough."""
    duration: str = "some minutes"
    """How long a first build takes, for people."""
    without_go: str = "no Go toolchain was found"
    """What is wrong where there is no Go."""
    instead: str = ""
    """What else than a Go toolchain would do; follows "Install Go …"."""

    def required(self, pattern: str, what: str) -> str:
        """The first group of ``pattern`` in go.mod. Raises GoBuildError when go.mod has no ``what``."""
        found = re.search(pattern, (self.source / "go.mod").read_text(), re.MULTILINE)
        if found is None:
            raise GoBuildError(f"{self.source / 'go.mod'} names no {what}")
        return found[1]


@dataclass(frozen=True, slots=True)
class GoToolchain:
    """A Go command that is new enough for a program's go.mod."""

    command: str
    version: str


def module_version(program: GoProgram, module: str) -> str:
    """The release of ``module`` that go.mod pins, as "v1.36.1"."""
    return program.required(rf"{re.escape(module)} (v[0-9.]+)", f"{module} version")


def needed_go(program: GoProgram) -> str:
    """The Go version that go.mod asks for, as "1.26.0"."""
    return program.required(r"^go ([0-9.]+)$", "Go version")


def find_go(program: GoProgram) -> GoToolchain:
    """The installed Go. Raises GoBuildError, with what to install, when there is none or it is too old."""
    needed = needed_go(program)
    advice = f"Install Go {'.'.join(needed.split('.')[:2])} or later (https://go.dev/doc/install){program.instead}."
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *GO_PLACES])
    command = shutil.which("go", path=places)
    if command is None:
        raise GoBuildError(f"{program.without_go}. {advice}")
    own = _go_version(command, Path("/"))
    if own is None:
        raise GoBuildError(f"{command} does not work: 'go env GOVERSION' failed. {advice}")
    if _numbers(own) < _OLDEST_THAT_READS_GO_MOD:
        raise GoBuildError(f"{command} is Go {own}, and {program.label} needs Go {needed}. {advice}")
    # Inside the module the go command switches to (and fetches) the toolchain that go.mod asks for, where it may.
    switched = own if _numbers(own) >= _numbers(needed) else _go_version(command, program.source)
    if switched is None or _numbers(switched) < _numbers(needed):
        raise GoBuildError(
            f"{command} is Go {own}, {program.label} needs Go {needed}, and this toolchain could not be fetched "
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


def binary_path(program: GoProgram) -> Path:
    """Where the built program is (or will be): keyed by its sources, what is built of them, and the machine's kind."""
    digest = hashlib.sha256()
    for name in program.sources:
        digest.update((program.source / name).read_bytes())
    what = "" if program.package == "." else f" {program.package}"
    digest.update(f"{program.link_flags} {platform.system()} {platform.machine()}{what}".encode())
    return cache_directory() / program.name / digest.hexdigest()[:20] / program.name


def ensure_built(program: GoProgram, progress: Progress) -> Path:
    """The program's file, built first when it is not in the cache.

    Of several builders at the same time one builds and the others wait for it. Raises GoBuildError when there is no
    usable Go, or with the end of the compiler's output.
    """
    target = binary_path(program)
    if target.exists():
        return target
    lock = target.parent.with_suffix(".lock")

    def waiting(seconds: float) -> None:
        progress(f"another run is building {program.label}; waiting for it ({seconds:.0f} s)")

    with locked(lock, _at_most_every(_REPORT_SECONDS, waiting)):
        if not target.exists():
            _build(program, find_go(program), target, progress)
    return target


def _at_most_every(seconds: float, report: Callable[[float], None]) -> Callable[[float], None]:
    last = [-seconds]

    def maybe(now: float) -> None:
        if now - last[0] >= seconds:
            last[0] = now
            report(now)

    return maybe


def _build(program: GoProgram, go: GoToolchain, target: Path, progress: Progress) -> None:
    begun = time.monotonic()
    progress(
        f"building {program.description or program.label} with Go {go.version}; about {program.duration} on two "
        "cores, once"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in target.parent.glob("*.partial"):
        abandoned.unlink()
    partial = target.with_suffix(".partial")
    log = target.with_suffix(".log")
    main_package = program.name if program.package == "." else program.package
    listed = _run_go(program, [go.command, "list", "-deps", program.package], log, progress, _downloading)
    total = sum(not line.startswith("go: ") for line in listed)
    _run_go(
        program,
        [
            *(go.command, "build", "-v", "-trimpath", "-ldflags", program.link_flags),
            *("-o", str(partial), program.package),
        ],
        log,
        progress,
        lambda lines: _compiling(lines, total, main_package),
    )
    partial.replace(target)
    log.unlink()
    progress(f"built {program.label} in {time.monotonic() - begun:.0f} s: {target}")


def _downloading(lines: list[str]) -> str:
    return f"downloading: {sum(line.startswith('go: downloading') for line in lines)} modules"


def _compiling(lines: list[str], total: int, main_package: str) -> str:
    """``go build -v`` names each package it compiles (not those in its cache), the main package last."""
    if lines and f"/{lines[-1]}".endswith(f"/{main_package}"):
        return "linking"
    return f"compiling: {len(lines)} of at most {total} packages"


def _run_go(
    program: GoProgram, command: list[str], log: Path, progress: Progress, describe: Callable[[list[str]], str]
) -> list[str]:
    """Run a go command that ends with this process, and return its output; report its progress in the meantime."""
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    report = _at_most_every(
        _REPORT_SECONDS, lambda seconds: progress(f"{describe(log.read_text().splitlines())}, {seconds:.0f} s")
    )
    with ManagedProcess.start(command, log=log, cwd=program.source, env=_environment()) as process:
        while process.poll() is None:
            time.sleep(0.2)
            if (passed := time.monotonic() - begun) > _REPORT_SECONDS:
                report(passed)
        if process.poll() != 0:
            raise GoBuildError(f"'{' '.join(command[:2])}' failed in {program.source}:\n{log_tail(log)}")
    return log.read_text().splitlines()
