"""What every way to run a worker offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vectorwright.api.v1alpha1.ingestionjob import IngestionJob
from vectorwright.ingest.runspec import RunState

from .handover import RunFile, RunInputs


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a run finds."""

    exists: bool
    """Whether a worker is there, running or ended."""
    finished: bool = False
    state: RunState | None = None
    """What the worker told last; None when it told nothing."""
    died: str | None = None
    """Why a finished worker told no result: killed, out of memory, evicted."""


@dataclass(frozen=True, slots=True)
class WorkerBudget:
    """A worker's share of what a backend and an embedder may be asked for. None: no limit."""

    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    embed_requests_per_minute: float | None = None
    embed_tokens_per_minute: float | None = None
    source_requests_per_second: float | None = None
    """Of the store that a copy reads from, where that is another one."""


class Runner(Protocol):
    """One way to run workers. ``name`` is that of one start of one run, unique in its namespace."""

    async def start(self, job: IngestionJob, name: str, inputs: RunInputs) -> None:
        """Start a worker; nothing when it is there already."""
        ...

    async def look(self, namespace: str, name: str, budget: WorkerBudget | None = None) -> Look:
        """Look at a worker, and hand it its budget in the same exchange."""
        ...

    async def renew(self, namespace: str, name: str, files: Sequence[RunFile]) -> bool:
        """Let a worker that runs have these credentials and certificates. Whether it has them by now.

        Nothing where it has them already, or is not there.
        """
        ...

    async def stop(self, namespace: str, name: str) -> None:
        """Stop a worker and remove what is left of it; nothing when there is none."""
        ...

    async def stop_all(self) -> None:
        """Stop what must not outlive this process."""
        ...
