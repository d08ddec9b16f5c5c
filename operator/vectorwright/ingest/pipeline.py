"""One run: plan, work, finalize.

::

    plan       pin the source → check the index → read the ledger → compare the listing with it
    work       fetch → parse → admit → embed → write → read back → delete old versions
    finalize   delete what vanished → verify

Between the stages stand bounded queues: memory does not grow with the source. Everything that is written can be told
from its ids and the ledger, so a run that is killed at any moment is continued by starting it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

from vectorwright.api.v1alpha1.ingestionjob import Phase
from vectorwright.errors import Conflict, NotFound, Retryable, Terminal, VectorwrightError
from vectorwright.stores.base import IndexDescription, Store

from .admission import Admission
from .batching import BoundedQueue
from .context import Halt, RunContext, StoreCalls
from .contracts import Embedder, Source
from .dead_letters import DeadLetters
from .embedding import EmbeddingStage
from .feeding import Feeder, Parser
from .finalize import delete_late, delete_vanished
from .identity import Identity
from .items import Item
from .ledger import MAX_CHUNKS, Ledger
from .limits import Limits
from .planning import Listing, plan
from .progress import Progress
from .replacing import Replacer
from .retry import Retrier
from .runspec import RunSpec, RunState
from .verification import Verifier, Written
from .writer import Writer

logger = logging.getLogger(__name__)

DEFAULT_ATTEMPTS = 3
LOOKS = 5
"""Times that a store is asked for what was just written, over some seconds, before it counts as lost."""
GRACE_SECONDS = 10.0
"""Time that writes and embeddings in flight get when a run has to end at once."""
VERIFY_SECONDS = 300.0
_QUEUE = 512
"""Items that wait for a stage: a few batches."""
_QUEUE_BYTES = 32 * 2**20
"""Their bytes: a chunk may be as large as a document."""


class Run:
    """One run over what it is given. The caller closes store, source, parser and embedder."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        store: Store,
        source: Source,
        parser: Parser,
        embedder: Embedder | None = None,
        embedder_concurrency: int = 4,
        limits: Limits | None = None,
        retrier: Retrier | None = None,
        looks: Retrier | None = None,
        ledger_limit: int = MAX_CHUNKS,
    ) -> None:
        self._spec = spec
        self._store = store
        self._source = source
        self._parser = parser
        self._embedder = embedder
        self._embedder_concurrency = embedder_concurrency
        self._ledger_limit = ledger_limit
        self.limits = limits or Limits.of(spec)
        self.progress = Progress(spec.run_id)
        self._retrier = retrier or Retrier(spec.batch.attempts or DEFAULT_ATTEMPTS, on_retry=self.progress.retried)
        self._looks = looks or Retrier(LOOKS)
        self._halt = Halt()
        self._calls = StoreCalls(store, spec, self.limits, self._retrier)
        self._written = Written()
        self._working = False

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
            self._fail(_principal(group))
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
                    context = await self._plan_and_work()
                    await self._finalize(context)
                await self._verify(context, max(1.0, deadline - loop.time()))
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

    async def _plan_and_work(self) -> RunContext:
        self.progress.revision = await self._retrier.call(self._source.pin)
        # What the store can do is known for sure only once it was asked; the stages are built on it.
        await self._calls.call(self._store.probe)
        await self._check_index()
        ledger = await self._load_ledger()
        context = self._context(ledger)
        context.strangers = await self._count_strangers(ledger)
        with closing(Listing()) as listing:
            await plan(context, self._source, listing)
            if len(listing) and not self._halt.requested:
                await self._work(context, listing)
        if self._halt.error is not None:
            raise self._halt.error
        return context

    def _context(self, ledger: Ledger) -> RunContext:
        spec = self._spec
        dead_letters = DeadLetters(self.progress, spec.max_dead_letters, self._too_many_dead_letters)
        return RunContext(
            spec=spec,
            calls=self._calls,
            ledger=ledger,
            identity=Identity(spec),
            limits=self.limits,
            retrier=self._retrier,
            looks=self._looks,
            progress=self.progress,
            dead_letters=dead_letters,
            halt=self._halt,
        )

    def _too_many_dead_letters(self) -> None:
        self._halt.request(
            Terminal(
                f"more than maxDeadLetters ({self._spec.max_dead_letters}) documents could not be ingested: see the "
                "dead letters in status and in the worker's log. Nothing was deleted; what was written stays",
                reason="TooManyDeadLetters",
            ),
            at_once=False,
        )

    async def _load_ledger(self) -> Ledger:
        spec = self._spec
        try:
            return await Ledger.load(
                self._store,
                spec.store.index,
                spec.source_name,
                limits=self.limits,
                retrier=self._retrier,
                limit=self._ledger_limit,
            )
        except NotFound as error:
            raise Terminal(error.message, reason="IndexLost") from None

    async def _count_strangers(self, ledger: Ledger) -> int | None:
        """Records of the index that are not of this source, where nobody else adds any and the store counts exactly."""
        if not self._spec.store.sole_writer or not self._store.capabilities.exact_counts:
            return None
        total = await self._calls.call(lambda: self._store.count(self._spec.store.index))
        return max(0, total - len(ledger))

    async def _check_index(self) -> None:
        """The index is the one that the run was planned for. Raises Terminal, Conflict."""
        target = self._spec.store
        check_index(self._spec, await self._calls.call(lambda: self._store.describe_index(target.index)))

    async def _work(self, context: RunContext, listing: Listing) -> None:
        records, texts = (BoundedQueue[Item](_QUEUE, _QUEUE_BYTES, lambda item: item.bytes) for _ in range(2))
        first = records if self._embedder is None else texts
        admission = Admission(context, first, ledger_limit=self._ledger_limit)
        writer = Writer(context, self._written)

        async def feed() -> None:
            await Feeder(context, self._source, self._parser).run(listing, admission)
            await first.put(None)

        async def write() -> None:
            await writer.run(records)
            await context.replacing.put(None)

        self._working = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(feed())
                if self._embedder is not None:
                    stage = EmbeddingStage(context, self._embedder, concurrency=self._embedder_concurrency)
                    group.create_task(stage.run(texts, records))
                group.create_task(write())
                group.create_task(Replacer(context).run())
        finally:
            self._working = False

    async def _finalize(self, context: RunContext) -> None:
        await self._check_index()
        await delete_late(context)
        await delete_vanished(context)

    async def _verify(self, context: RunContext, remaining: float) -> None:
        """Set the phase. What could not be verified is Unverified, never Succeeded."""
        spec = self._spec
        verifier = Verifier(
            self._calls,
            context.ledger,
            self._written,
            source=spec.source_name,
            strangers=context.strangers,
            looks=self._looks,
        )
        try:
            async with asyncio.timeout(min(VERIFY_SECONDS, remaining)) as scope:
                self.progress.verification = await verifier.verify()
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


def check_index(spec: RunSpec, found: IndexDescription) -> None:
    """Compare an index with what a run expects.

    Raises Terminal (``IncarnationChanged``, ``WrongDimension``, ``WrongMetric``) and Conflict (``ModelMismatch``).
    """
    target = spec.store
    if found.incarnation != target.incarnation:
        raise Terminal(
            f"index {target.index!r} was dropped and made again since this run was started: nothing of this run fits. "
            "A new run starts for the new index",
            reason="IncarnationChanged",
        )
    if found.dimension is not None and found.dimension != target.dimension:
        raise Terminal(
            f"index {target.index!r} has dimension {found.dimension}; this run makes vectors of {target.dimension}",
            reason="WrongDimension",
        )
    if found.metric is not None and found.metric != target.metric:
        raise Terminal(
            f"index {target.index!r} has metric {found.metric}; this run expects {target.metric}", reason="WrongMetric"
        )
    wanted = spec.embedder.fingerprint if spec.embedder is not None else None
    if wanted is not None and found.model_fingerprint is not None and found.model_fingerprint != wanted:
        raise Conflict(
            f"index {target.index!r} holds vectors of another embedding model (fingerprint {found.model_fingerprint}; "
            f"this run's is {wanted}): vectors of two models cannot be compared. Make another index for this model",
            reason="ModelMismatch",
        )


def _principal(group: BaseExceptionGroup[VectorwrightError]) -> VectorwrightError:
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
