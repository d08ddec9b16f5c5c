"""The IngestionJob ``fill`` of a :class:`~tests.support.reconciling.World`, and workers that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from tests.support.reconciling import NAMESPACE, World, resource

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.api.v1alpha1.ingestionjob import Counts, Phase, RunnerType
from vectorwright.ingest.runspec import RunState
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.handover import RunFile, RunInputs
from vectorwright.reconcile.runner_base import Look, WorkerBudget
from vectorwright.reconcile.runners import Runners
from vectorwright.settings import Settings

FILL = Key("IngestionJob", NAMESPACE, "fill")


@dataclass
class Workers:
    """Workers that are there until the test says how they ended; both kinds of runner at once."""

    settings: Settings = field(default_factory=lambda: Settings(allow_in_process=True, worker_image="img:1"))
    running: dict[str, Look] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    budgets: list[WorkerBudget | None] = field(default_factory=list)
    handed: list[RunInputs] = field(default_factory=list)
    renewed: list[dict[str, bytes]] = field(default_factory=list)
    takes_up: bool = True
    """Whether a running worker has changed credentials at once."""
    refusal: Exception | None = None

    def runners(self) -> Runners:
        return cast("Runners", self)

    def get(self, _: RunnerType) -> Workers:
        return self

    def choose(self, job: IngestionJob) -> RunnerType:
        return Runners.choose(cast("Runners", _Choosing(self.settings)), job)

    async def start(self, _: IngestionJob, name: str, inputs: RunInputs) -> None:
        await asyncio.sleep(0)
        if self.refusal:
            raise self.refusal
        self.log.append(f"start {name}")
        self.handed.append(inputs)
        self.running.setdefault(name, Look(exists=True))

    async def look(self, _: str, name: str, budget: WorkerBudget | None = None) -> Look:
        await asyncio.sleep(0)
        self.budgets.append(budget)
        return self.running.get(name, Look(exists=False))

    async def renew(self, _: str, name: str, files: Sequence[RunFile]) -> bool:
        await asyncio.sleep(0)
        assert name in self.running
        self.renewed.append({file.path: file.content for file in files})
        return self.takes_up

    async def stop(self, _: str, name: str) -> None:
        await asyncio.sleep(0)
        self.log.append(f"stop {name}")
        self.running.pop(name, None)

    async def stop_all(self) -> None:
        self.running.clear()

    def tell(self, phase: Phase, **more: Any) -> None:
        """The one worker tells its state, and ends where that is an end."""
        (name,) = self.running
        counts = Counts(**more.pop("counts", {}))
        state = RunState(**{"run_id": name, "phase": phase, "counts": counts, **more})
        self.running[name] = Look(exists=True, finished=phase is not Phase.RUNNING, state=state)

    def die(self, why: str) -> None:
        """The one worker is gone without a word."""
        (name,) = self.running
        self.running[name] = Look(exists=True, finished=True, died=why)


class _Choosing:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings


def apply(world: World, **spec: Any) -> None:
    given = {"indexRef": {"name": "docs"}, "source": {"inline": {"documents": [{"id": "a.md", "text": "t"}]}}, **spec}
    world.api.apply(resource("IngestionJob", "fill", given))


def status(world: World) -> dict[str, Any]:
    return world.status("fill", "IngestionJob")


def conditions(world: World) -> dict[str, tuple[str, str]]:
    return world.conditions("fill", "IngestionJob")


def message(world: World) -> str:
    return world.message("fill", "IngestionJob")


async def look(world: World) -> None:
    """Let the job be looked at now."""
    world.driver.queue.add(FILL)
    await world.settle()


async def started(world: World, **spec: Any) -> str:
    """A run that goes on; its worker's name."""
    apply(world, **spec)
    await world.settle()
    assert status(world)["phase"] == "Running"
    run = status(world)["run"]
    return f"{run['id']}-{run['attempt']}"


async def finished(world: World, workers: Workers, phase: Phase = Phase.SUCCEEDED, **more: Any) -> None:
    """A run that ended; what was recorded of it is cleared."""
    await started(world)
    workers.tell(phase, **more)
    await look(world)
    await look(world)
    assert "run" not in status(world)
    workers.log.clear()
    world.api.writes.clear()


def request(world: World, value: str) -> None:
    world.api.annotate("IngestionJob", NAMESPACE, "fill", run_requested_at=value)
