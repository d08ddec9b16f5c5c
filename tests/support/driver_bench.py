"""A world with one controller, of which the test says what it does: for tests of the driver around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tests.support.api_double import Body, Write
from tests.support.reconciling import NAMESPACE, World, resource

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.controllers.driver import Controller, Driver
from vectorwright.errors import VectorwrightError
from vectorwright.kube import resources
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.outcome import Outcome, failed, ready_conditions

DOCS = Key("VectorIndex", NAMESPACE, "docs")
SPEC = {"storeRef": {"name": "vectors"}, "dimension": 4}
"""Of VectorIndex docs."""

Step = Callable[[Context, VectorIndex], Awaitable[Outcome]]
"""What a pass does."""


async def fine(_context: Context, _index: VectorIndex) -> Outcome:
    """All is well."""
    return Outcome({"vectors": 1}, ready_conditions("fine"))


def with_vectors(count: int) -> Step:
    """All is well, and the status says so many vectors."""

    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        return Outcome({"vectors": count}, ready_conditions("fine"))

    return step


def failing(error: VectorwrightError, **more: Any) -> Step:
    """It fails, and ``more`` goes into the outcome."""

    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        outcome = failed(error, {"vectors": 1})
        for name, value in more.items():
            setattr(outcome, name, value)
        return outcome

    return step


def failing_call(error: Exception) -> Step:
    """It raises what is no outcome."""

    async def step(_context: Context, _index: VectorIndex) -> Outcome:
        raise error

    return step


class Bench(World):
    """A world whose only controller does what the test says."""

    def __init__(self) -> None:
        self.step: Step = fine
        self.passes: list[str] = []
        """The resourceVersion that each pass saw."""
        self.gone: list[Key] = []
        self.dependents: list[Key] = []
        super().__init__()

    def start_afresh(self) -> None:
        super().start_afresh()
        controller = Controller(
            resources.VECTOR_INDEXES, VectorIndex, self._reconcile, self._dependents, self._gone_handler
        )
        self.driver = Driver(self.context, (controller,))

    async def _reconcile(self, context: Context, index: VectorIndex) -> Outcome:
        self.passes.append(index.metadata.resource_version)
        return await self.step(context, index)

    def _dependents(self, _context: Context, key: Key) -> Iterable[Key]:
        return self.dependents if key == DOCS else ()

    async def _gone_handler(self, _context: Context, key: Key) -> None:
        self.gone.append(key)

    def _watched(self, kind: str, event: str | None, body: Body) -> None:
        if kind == "VectorIndex":
            self.driver.on_event(kind, event, body)

    async def made(self) -> None:
        """An object that was worked on and rests; what was recorded of that is cleared."""
        self.api.apply(resource("VectorIndex", "docs", SPEC))
        await self.settle()
        self.passes.clear()
        self.api.writes.clear()
        self.api.reads.clear()

    def status_writes(self) -> list[Write]:
        return [write for write in self.api.writes if write.subresource == "status"]
