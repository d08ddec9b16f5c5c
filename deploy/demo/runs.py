"""Runs of IngestionJobs: asked for, waited for, and what they did."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.demo.commands import Body, DemoError, condition
from deploy.demo.world import World

RUN_SECONDS = 300.0
"""A run takes seconds; on a machine whose cores are all busy perhaps a minute."""
_PAUSE = 0.3
_STATUS_SECONDS = 15.0
"""The status of an index follows that of its jobs within a second."""
REQUEST = "vectorwright.dev/run-requested-at"
_ENDED_WELL = ("Succeeded", "SucceededWithErrors")


@dataclass(frozen=True, slots=True)
class Done:
    """What an IngestionJob's status says of its last run."""

    job: str
    phase: str
    counts: dict[str, int]
    revision: str
    verification: str

    @classmethod
    def of(cls, body: Body) -> Done:
        """Raises DemoError when the run failed."""
        name, status = body["metadata"]["name"], body.get("status", {})
        phase = status.get("phase", "unknown")
        if phase not in _ENDED_WELL:
            told = condition(body, "LastRunSucceeded") or condition(body, "Ready")
            raise DemoError(f"IngestionJob {name} is {phase}: {told.get('reason')}: {told.get('message')}")
        return cls(name, phase, status["counts"], status.get("revision", ""), status.get("verification", "none"))

    def __getitem__(self, name: str) -> int:
        """A count by its name in status, such as ``vectorsWritten``."""
        return self.counts.get(name, 0)

    @property
    def skipped(self) -> int:
        """Documents that hold nothing to write: without text, or in the dead letters."""
        return self["documentsEmpty"] + self["documentsFailed"]

    def figures(self, *names: str) -> str:
        """Such as ``12 documents listed, 0 vectors written``."""
        return ", ".join(f"{self[name]} {_words(name)}" for name in names)


def _words(name: str) -> str:
    """documentsListed → documents listed"""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name)


def done(world: World, jobs: Sequence[str], request: str | None = None) -> list[Done]:
    """Wait for the end of the runs that go on, or of those for one request.

    Raises DemoError when one takes too long, or as soon as something is stalled: a wait would be in vain.
    """
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        bodies = world.kubectl.all("vst,vem,vix,vij")
        for body in bodies:
            if stalled := condition(body, "Stalled"):
                name = f"{body['kind']} {body['metadata']['name']}"
                raise DemoError(f"{name} is stalled: {stalled['reason']}: {stalled['message']}")
        named = {body["metadata"]["name"]: body for body in bodies if body["kind"] == "IngestionJob"}
        if all(_complete(named[job], request) for job in jobs):
            return [Done.of(named[job]) for job in jobs]
        time.sleep(_PAUSE)
    raise DemoError(f"the runs of {', '.join(jobs)} did not end within {RUN_SECONDS:.0f} s")


def _complete(body: Body, request: str | None) -> bool:
    handled = body.get("status", {}).get("handledRequest")
    return condition(body, "Complete").get("status") == "True" and request in (None, handled)


def again(world: World, jobs: Sequence[str]) -> list[Done]:
    """Ask for another run of each job and wait for its end. Raises DemoError."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    world.kubectl.show("annotate", "vij", *jobs, f"{REQUEST}={moment}", "--overwrite")
    return done(world, jobs, moment)


def index(world: World, name: str, *, vectors: int) -> dict[str, Any]:
    """The status of a VectorIndex, once it tells that many vectors, or after some seconds without."""
    with contextlib.suppress(DemoError):
        world.kubectl.wait(f"vix/{name}", f"jsonpath={{.status.vectors}}={vectors}", _STATUS_SECONDS)
    status: dict[str, Any] = world.kubectl.get("vix", name).get("status", {})
    return status
