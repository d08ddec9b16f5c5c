"""Settings of the operator: flags win over ``VECTORWRIGHT_*`` variables, those over defaults; all are checked at start.

A frozen dataclass and the standard library only: the parent process of the operator loads this, and its memory is
budgeted.
"""

from __future__ import annotations

import argparse
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vectorwright.errors import Terminal

ENV_PREFIX = "VECTORWRIGHT_"

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class SettingsError(Terminal):
    """A setting is wrong. One sentence names the flag or variable, the value, and what is wanted."""

    default_reason = "InvalidSettings"


@dataclass(frozen=True, slots=True)
class BindAddress:
    """Where to listen. ``host`` is empty for all interfaces; ``port`` 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an install decides. The help texts of the flags below say what each field means."""

    namespaces: tuple[str, ...] = ()
    installation_id: str | None = None
    read_only: bool = False
    allow_in_process: bool = False
    local_stores: Path | None = None
    allow_networks: tuple[str, ...] = ()
    worker_image: str | None = None
    worker_service_account: str | None = None
    max_concurrent_reconciles: int = 16
    leader_election: bool = True
    leader_election_namespace: str | None = None
    leader_election_name: str = "vectorwright-operator"
    shutdown_grace_s: float = 20.0
    log_format: str = "json"
    log_level: str = "info"
    metrics_bind_address: BindAddress = BindAddress("", 8080)
    kubeconfig: Path | None = None
    context: str | None = None

    @property
    def cluster_wide(self) -> bool:
        """Whether all namespaces are served."""
        return not self.namespaces


def _namespace(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError("is not the name of a namespace (lower-case letters, digits and dashes, at most 63)")
    return text


def _label(text: str) -> str:
    if not _DNS_LABEL.fullmatch(text):
        raise ValueError("is not a name of lower-case letters, digits and dashes, at most 63")
    return text


def _object_name(text: str) -> str:
    if len(text) > 253 or not _DNS_SUBDOMAIN.fullmatch(text):
        raise ValueError("is not the name of a Kubernetes object (lower-case letters, digits, dashes and dots)")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(
            "is not a network such as 10.0.0.0/8 or fd00::/8 (no bits may be set after the prefix)"
        ) from None


def _image(text: str) -> str:
    if not text or re.search(r"\s", text):
        raise ValueError("is not an image reference")
    return text


def _directory(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise ValueError("is not a directory")
    return path.absolute()


def _existing_file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError("is not a file")
    return path.absolute()


def _bind_address(text: str) -> BindAddress:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError("is not an address such as :8080 or 127.0.0.1:0")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("needs its IPv6 address in brackets, such as [::1]:8080")
    return BindAddress(host, int(port))


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise ValueError("is not a number from 1 to 256")
    return int(text)


def _grace(text: str) -> float:
    if not text.isdecimal() or not 1 <= int(text) <= 600:
        raise ValueError("is not a number of seconds from 1 to 600")
    return float(text)


def _bool(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError("is neither true nor false")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return text

    return parse


@dataclass(frozen=True, slots=True)
class _Option:
    field: str
    flag: str
    parse: Callable[[str], Any]
    help: str
    metavar: str | None = None
    repeated: bool = False

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.flag.removeprefix("--").replace("-", "_").upper()


_OPTIONS: Mapping[str, Sequence[_Option]] = {
    "scope": (
        _Option(
            "namespaces", "--namespace", _namespace, "serve this namespace; repeatable (default: all namespaces)",
            "NAME", repeated=True,
        ),
        _Option(
            "installation_id", "--installation-id", _label,
            "marks what this install owns in stores; give the old one to a rebuilt cluster (default: from the UID of "
            "the namespace kube-system)",
            "ID",
        ),
        _Option("read_only", "--read-only", _bool, "observe and report only: no store is changed"),
        _Option(
            "max_concurrent_reconciles", "--max-concurrent-reconciles", _workers,
            "resources worked on at the same time (default: 16)", "N",
        ),
    ),
    "ingestion": (
        _Option("worker_image", "--worker-image", _image, "image of the pods that ingest", "IMAGE"),
        _Option(
            "worker_service_account", "--worker-service-account", _object_name,
            "ServiceAccount of those pods, in each resource's namespace; its token is never mounted (default: the "
            "namespace's default)",
            "NAME",
        ),
        _Option(
            "allow_in_process", "--allow-in-process", _bool,
            "allow IngestionJobs to run in a child process of the operator: for trials, not with untrusted documents",
        ),
        _Option(
            "local_stores", "--local-stores", _directory,
            "directory for stores that live in files and are shared with in-process runs: for trials", "DIR",
        ),
        _Option(
            "allow_networks", "--allow-networks", _network,
            "sources may reach this network although it is not public; repeatable", "CIDR", repeated=True,
        ),
    ),
    "high availability": (
        _Option(
            "leader_election", "--leader-election", _bool,
            "work only while holding a Lease (default; --no-leader-election: for trials with one operator)",
        ),
        _Option(
            "leader_election_namespace", "--leader-election-namespace", _namespace,
            "namespace of the Lease (default: the pod's own, or the context's)", "NAME",
        ),
        _Option(
            "leader_election_name", "--leader-election-name", _object_name,
            "name of the Lease (default: vectorwright-operator)", "NAME",
        ),
        _Option(
            "shutdown_grace_s", "--shutdown-grace", _grace,
            "seconds to finish in after SIGTERM; keep it under the pod's terminationGracePeriodSeconds (default: 20)",
            "SECONDS",
        ),
    ),
    "observability": (
        _Option("log_format", "--log-format", _one_of("json", "text"), "json or text (default: json)", "FORMAT"),
        _Option(
            "log_level", "--log-level", _one_of("debug", "info", "warning", "error"),
            "debug, info, warning or error (default: info)", "LEVEL",
        ),
        _Option(
            "metrics_bind_address", "--metrics-bind-address", _bind_address,
            "where /metrics, /healthz and /readyz are served; port 0 takes a free one and logs it (default: :8080)",
            "ADDRESS",
        ),
    ),
    "cluster": (
        _Option(
            "kubeconfig", "--kubeconfig", _existing_file, "kubeconfig (default: the pod's service account)", "FILE",
        ),
        _Option(
            "context", "--context", str,
            "context of --kubeconfig (default: its current-context), or alone: of the user's kubeconfig", "NAME",
        ),
    ),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the operator's flags. Values stay texts; :func:`from_arguments` parses them."""
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        for option in options:
            text = f"{option.help} [{option.variable}]"
            if option.parse is _bool:
                group.add_argument(
                    option.flag, dest=option.field, action=argparse.BooleanOptionalAction, default=None, help=text
                )
            elif option.repeated:
                group.add_argument(option.flag, dest=option.field, action="append", metavar=option.metavar, help=text)
            else:
                group.add_argument(option.flag, dest=option.field, metavar=option.metavar, help=text)


def from_arguments(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Settings from parsed flags and variables (a repeatable one: separated by commas). Raises SettingsError."""
    values: dict[str, Any] = {}
    for option in (option for options in _OPTIONS.values() for option in options):
        given: Any = getattr(arguments, option.field, None)
        where = option.flag
        if given is None:
            # An empty variable counts as absent: that is what a template without a value makes.
            text = environ.get(option.variable, "").strip()
            if not text:
                continue
            where = option.variable
            given = _parts(text) if option.repeated else text
        if option.repeated:
            parsed = (_parse(option, where, part) for part in given)
            values[option.field] = tuple(dict.fromkeys(parsed))
        else:
            values[option.field] = given if isinstance(given, bool) else _parse(option, where, given)
    return Settings(**values)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse(option: _Option, where: str, text: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as error:
        raise SettingsError(f"{where}: {text!r} {error}") from None
