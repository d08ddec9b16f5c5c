"""What every run is around its work: a deadline, an end in good order, and a state that tells how it ended."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.stores.base import IndexDescription, Store

from .context import Halt, StoreCalls
from .dead_letters import DeadLetters
from .limits import Limits
from .progress import Progress
from .retry import Retrier
from .runspec import RunSpec, RunState, StorePlace

logger = logging.getLogger(__name__)

DEFAULT_ATTEMPTS = 3
LOOKS = 5
"""Times that a store is asked for what was just written, over some seconds, before it counts as lost."""
GRACE_SECONDS = 10.0
"""Time that writes and embeddings in flight get when a run has to end at once."""
VERIFY_SECONDS = 300.0

Work = TypeVar("Work")
"""What the work hands on to its end."""


class RunFrame(ABC, Generic[Work]):
    """A run of any kind: plan and work, finalize, verify."""

    def __init__(
        self,
        spec: RunSpec,
        store: Store,
        *,
        limits: Limits | None = None,
        retrier: Retrier | None = None,
        looks: Retrier | None = None,
    ) -> None:
        self._spec = spec
        self._store = store
        self.limits = limits or Limits.of(spec)
        self.progress = Progress(spec.run_id)
        self._retrier = retrier or Retrier(spec.batch.attempts or DEFAULT_ATTEMPTS, on_retry=self.progress.retried)
        self._looks = looks or Retrier(LOOKS)
        self._halt = Halt()
        self._calls = StoreCalls(store, spec.store.index, self.limits, self._retrier)
        self._working = False
        """Whether something is in flight that is worth some seconds when the run has to end."""

    def stop(self, error: VectorwrightError | None = None) -> None:
        """End the run: stop fetching, finish what is in flight within ten seconds."""
        stopped = Retryable("the worker was asked to stop; the next run goes on from here", reason="Interrupted")
        self._halt.request(error or stopped, at_once=True)

    async def execute(self) -> RunState:
        """Run, and tell how it ended. Errors become a failed state; only defects of ours are raised."""
        self.progress.phase = Phase.RUNNING
        try:
            await self._within_deadline()
        except* VectorwrightError as group:
            self._fail(principal(group))
        state = self.progress.state()
        logger.info("run ended", extra={"fields": _summary(state)})
        return state

    def _fail(self, error: VectorwrightError) -> None:
        self.progress.phase = Phase.FAILED
        self.progress.reason, self.progress.message = error.reason, error.message
        self.progress.retryable = isinstance(error, Retryable)

    async def _within_deadline(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._spec.deadline_seconds
        late = Terminal(
            f"the run took longer than its deadline ({self._spec.deadline_seconds:g} s); what was written stays, "
            "and the next run goes on from there: raise runner.deadline, or narrow the source",
            reason="DeadlineExceeded",
        )
        try:
            async with asyncio.timeout(None) as scope, self._hurried(scope):
                with _calling_at(deadline, lambda: self.stop(late)):
                    work = await self._plan_and_work()
                    await self._finalize(work)
                await self._verify(work, max(1.0, deadline - loop.time()))
        except TimeoutError:
            if self._halt.error is None or not scope.expired():
                raise
            raise self._halt.error from None

    @asynccontextmanager
    async def _hurried(self, scope: asyncio.Timeout) -> AsyncIterator[None]:
        """Inside, a run that has to end at once gets some seconds for what is in flight, if anything is."""
        inside = True

        def hurry() -> None:
            if inside and self._halt.at_once and not scope.expired():
                ends = asyncio.get_running_loop().time() + (GRACE_SECONDS if self._working else 0.0)
                when = scope.when()
                scope.reschedule(ends if when is None else min(when, ends))

        self._halt.listen(hurry)
        try:
            yield
        finally:
            # Asked to stop from here on, the run has ended anyway.
            inside = False

    @abstractmethod
    async def _plan_and_work(self) -> Work:
        """Do everything up to the end of the writes."""

    @abstractmethod
    async def _finalize(self, work: Work) -> None:
        """Delete what is gone."""

    @abstractmethod
    async def _verification(self, work: Work) -> str:
        """How it was found that the store holds what it should. Raises Retryable (``VerificationFailed``)."""

    def _dead_letters(self) -> DeadLetters:
        return DeadLetters(self.progress, self._spec.max_dead_letters, self._too_many_dead_letters)

    def _too_many_dead_letters(self) -> None:
        self._halt.request(
            Terminal(
                f"more than maxDeadLetters ({self._spec.max_dead_letters}) documents could not be ingested: see the "
                "dead letters in status and in the worker's log. Nothing was deleted; what was written stays",
                reason="TooManyDeadLetters",
            ),
            at_once=False,
        )

    async def _verify(self, work: Work, remaining: float) -> None:
        """Set the phase. What could not be verified is Unverified, never Succeeded."""
        try:
            async with asyncio.timeout(min(VERIFY_SECONDS, remaining)) as scope:
                self.progress.verification = await self._verification(work)
        except TimeoutError:
            if not scope.expired():
                raise
            self._unverified("Timeout", "the store did not tell in time what it holds; everything was written")
        except Retryable as error:
            if error.reason == "VerificationFailed":
                raise
            self._unverified(error.reason, f"everything was written, but could not be verified: {error.message}")
        else:
            failed = self.progress.counts.documents_failed
            self.progress.phase = Phase.SUCCEEDED_WITH_ERRORS if failed else Phase.SUCCEEDED

    def _unverified(self, reason: str, message: str) -> None:
        self.progress.phase = Phase.UNVERIFIED
        self.progress.reason, self.progress.message = reason, message


def check_place(target: StorePlace, found: IndexDescription) -> None:
    """Compare an index with what a run expects.

    Raises Terminal (``IncarnationChanged``, ``WrongDimension``, ``WrongMetric``).
    """
    if found.incarnation != target.incarnation:
        raise Terminal(
            f"index {target.index!r} was dropped and made again since this run was started: nothing of this run fits. "
            "A new run starts for the new index",
            reason="IncarnationChanged",
        )
    if found.dimension is not None and found.dimension != target.dimension:
        raise Terminal(
            f"index {target.index!r} has dimension {found.dimension}; this run expects vectors of {target.dimension}",
            reason="WrongDimension",
        )
    if found.metric is not None and found.metric != target.metric:
        raise Terminal(
            f"index {target.index!r} has metric {found.metric}; this run expects {target.metric}", reason="WrongMetric"
        )


def principal(group: BaseExceptionGroup[VectorwrightError]) -> VectorwrightError:
    """The error to tell, of several: one that trying again cannot mend, else the first."""
    errors = list(_leaves(group))
    lasting = [error for error in errors if isinstance(error, Terminal | Conflict | NotFound)]
    return (lasting or errors)[0]


def _leaves(group: BaseExceptionGroup[VectorwrightError]) -> Iterator[VectorwrightError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@contextmanager
def _calling_at(when: float, callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback`` at ``when`` on the loop's clock, unless the block ends before."""
    handle = asyncio.get_running_loop().call_at(when, callback)
    try:
        yield
    finally:
        handle.cancel()


def _summary(state: RunState) -> dict[str, object]:
    counts = {name: value for name, value in state.counts.dump().items() if value}
    told = {"phase": state.phase.value, "reason": state.reason, "verification": state.verification}
    return {name: value for name, value in told.items() if value is not None} | counts
