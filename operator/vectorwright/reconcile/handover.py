"""What a worker is handed: a specification and files. Where they come from is told, for those that a pod mounts."""

from __future__ import annotations

from dataclasses import dataclass, field

from vectorwright.ingest.runspec import RunSpec


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that the worker finds in its directory, and the Secret or ConfigMap key that it comes from."""

    path: str
    kind: str
    """Secret or ConfigMap."""
    name: str
    key: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RunInputs:
    """Everything that one run needs."""

    spec: RunSpec
    files: tuple[RunFile, ...]
    backend_id: str
    incarnation: str
