"""How this machine reaches packages, for a build that happens in another root directory."""

from __future__ import annotations

import configparser
import io
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.devcluster.errors import ClusterError

CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Authorities that somebody added to this machine: without them it may reach no mirror."""

_UV = (Path("/etc/uv/uv.toml"), Path.home() / ".config" / "uv" / "uv.toml")
_PIP = (Path("/etc/pip.conf"), Path.home() / ".pip" / "pip.conf", Path.home() / ".config" / "pip" / "pip.conf")
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "timeout", "retries", "proxy")
"""Of pip's settings those that say where packages come from; others name places of this machine."""


@dataclass(frozen=True, slots=True)
class PackageSources:
    """Mirrors and settings of the machine's own distribution, of pip and of uv."""

    suite: str
    """The release, such as "bookworm"."""
    mirror: str
    """Where the release's own packages are."""
    lines: tuple[str, ...]
    """A ``sources.list`` of the release, its updates and its security fixes."""
    apt: str
    """Settings of apt that say how it downloads."""
    pip: str
    """A ``pip.conf``."""

    @classmethod
    def of_this_machine(cls) -> PackageSources:
        """Raises ClusterError where there is no apt, or where it names no source of this release."""
        suite = release(Path("/etc/os-release").read_text())
        targets = _output(
            ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Identifier: Packages"]
        ).splitlines()
        lines = source_lines(targets, suite)
        if not lines:
            raise ClusterError(f"the image cannot be built: apt's sources have no packages of {suite}")
        return cls(
            suite=suite,
            mirror=lines[0].split()[1],
            lines=lines,
            apt=apt_settings(_output(["apt-config", "dump"]).splitlines()),
            pip=pip_settings([path.read_text() for path in _PIP if path.exists()], os.environ),
        )

    def mounts(self, place: Path) -> list[str]:
        """Write the settings to ``place``; "source:target:ro" for each file that a build must see."""
        found: list[str] = []
        for name, text, target in (
            ("sources.list", "".join(f"{line}\n" for line in self.lines), "/etc/apt/sources.list"),
            ("apt.conf", self.apt, "/etc/apt/apt.conf"),
            ("pip.conf", self.pip, "/etc/pip.conf"),
        ):
            path = place / name
            path.write_text(text)
            found.append(f"{path}:{target}:ro")
        found += [f"{path}:/etc/uv/uv.toml:ro" for path in _UV if path.exists()][-1:]
        return found


def release(text: str) -> str:
    """The code name in an ``os-release``. Raises ClusterError when it has none."""
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME" and value.strip('"'):
            return value.strip('"')
    raise ClusterError("the image cannot be built: this is neither a Debian nor an Ubuntu; start Docker")


def source_lines(targets: Iterable[str], suite: str) -> tuple[str, ...]:
    """A line for each site and release of ``suite``, the suite first; each target is "site release component"."""
    components: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        site, name, component = [*target.split(), "", "", ""][:3]
        if component and name.partition("-")[0] == suite:
            known = components.setdefault((site, name), [])
            if component not in known:
                known.append(component)
    ordered = sorted(components, key=lambda key: key[1] != suite)
    return tuple(f"deb {site} {name} {' '.join(components[site, name])}" for site, name in ordered)


def apt_settings(dump: Iterable[str]) -> str:
    """Of what ``apt-config dump`` prints the settings of proxies, certificates, time-outs and dates."""
    kept = ("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Check-", "Acquire::ForceIPv")
    return "".join(f"{line}\n" for line in dump if line.startswith(kept) and not line.endswith('"";'))


def pip_settings(files: Iterable[str], environment: Mapping[str, str]) -> str:
    """A ``pip.conf`` of what ``files`` say, the later over the earlier, and the environment over all, as pip has it."""
    found: dict[str, str] = {}
    for text in files:
        read = configparser.RawConfigParser()
        read.read_string(text)
        if read.has_section("global"):
            found |= {key: value for key, value in read.items("global") if key in _PIP_KEYS}
    for key in _PIP_KEYS:
        if value := environment.get(f"PIP_{key.upper().replace('-', '_')}"):
            found[key] = value
    if not found:
        return ""
    written = configparser.RawConfigParser()
    written["global"] = found
    whole = io.StringIO()
    written.write(whole)
    return whole.getvalue()


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClusterError(f"the image cannot be built: '{command[0]}' does not answer; start Docker") from error
    return done.stdout
