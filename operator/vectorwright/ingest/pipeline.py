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
from contextlib import closing

from vectorwright.errors import Conflict, NotFound, Terminal
from vectorwright.stores.base import IndexDescription, Store

from .admission import Admission
from .batching import BoundedQueue
from .context import RunContext
from .contracts import Embedder, Source
from .embedding import EmbeddingStage
from .feeding import Feeder, Parser
from .finalize import delete_late, delete_vanished
from .identity import Identity
from .items import Item
from .ledger import MAX_CHUNKS, Ledger
from .limits import Limits
from .planning import Listing, plan
from .replacing import Replacer
from .retry import Retrier
from .run_frame import RunFrame, check_place
from .runspec import RunSpec
from .verification import Verifier, Written
from .writer import Writer

_QUEUE = 512
"""Items that wait for a stage: a few batches."""
_QUEUE_BYTES = 32 * 2**20
"""Their bytes: a chunk may be as large as a document."""


class Run(RunFrame[RunContext]):
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
        super().__init__(spec, store, limits=limits, retrier=retrier, looks=looks)
        self._source = source
        self._parser = parser
        self._embedder = embedder
        self._embedder_concurrency = embedder_concurrency
        self._ledger_limit = ledger_limit
        self._written = Written()

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
        return RunContext(
            spec=spec,
            calls=self._calls,
            ledger=ledger,
            identity=Identity(spec),
            limits=self.limits,
            retrier=self._retrier,
            looks=self._looks,
            progress=self.progress,
            dead_letters=self._dead_letters(),
            halt=self._halt,
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

    async def _finalize(self, work: RunContext) -> None:
        await self._check_index()
        await delete_late(work)
        await delete_vanished(work)

    async def _verification(self, work: RunContext) -> str:
        verifier = Verifier(
            self._calls,
            work.ledger,
            self._written,
            source=self._spec.source_name,
            strangers=work.strangers,
            looks=self._looks,
        )
        return await verifier.verify()


def check_index(spec: RunSpec, found: IndexDescription) -> None:
    """Compare an index with what a run expects.

    Raises Terminal (``IncarnationChanged``, ``WrongDimension``, ``WrongMetric``) and Conflict (``ModelMismatch``).
    """
    target = spec.store
    check_place(target, found)
    wanted = spec.embedder.fingerprint if spec.embedder is not None else None
    if wanted is not None and found.model_fingerprint is not None and found.model_fingerprint != wanted:
        raise Conflict(
            f"index {target.index!r} holds vectors of another embedding model (fingerprint {found.model_fingerprint}; "
            f"this run's is {wanted}): vectors of two models cannot be compared. Make another index for this model",
            reason="ModelMismatch",
        )
