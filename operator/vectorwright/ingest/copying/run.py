"""A run that copies an index: check → copy what differs → delete what is gone → verify."""

from __future__ import annotations

from vectorwright.api.v1alpha1.ingestionjob import SyncMode
from vectorwright.errors import Terminal
from vectorwright.ingest.context import StoreCalls
from vectorwright.ingest.limits import Limits
from vectorwright.ingest.retry import Retrier
from vectorwright.ingest.run_frame import DEFAULT_ATTEMPTS, RunFrame, check_place
from vectorwright.ingest.runspec import RunSpec, StoreOrigin
from vectorwright.ingest.verification import EXACT
from vectorwright.stores.base import Store

from .copier import Copier, CopyContext
from .deletes import delete_gone
from .fit import Space, check_fit
from .origin import IndexOrigin, Origin


def copy_of(
    spec: RunSpec,
    place: StoreOrigin,
    *,
    store: Store,
    origin: Store,
    limits: Limits,
    retrier: Retrier | None = None,
    looks: Retrier | None = None,
) -> CopyRun:
    """A run that copies one index to another. Two indexes of one store share its limits."""
    attempts = retrier or Retrier(spec.batch.attempts or DEFAULT_ATTEMPTS, on_retry=lambda: run.progress.retried())  # noqa: PLW0108 - the run comes after
    shared = bool(place.backend_id) and place.backend_id == spec.store.backend_id
    calls = StoreCalls(origin, place.index, limits if shared else limits.source, attempts)
    source = IndexOrigin(calls, place)
    run = CopyRun(spec, store=store, origin=source, limits=limits, retrier=attempts, looks=looks)
    return run


class CopyRun(RunFrame[CopyContext]):
    """One copy. The caller closes the store, and what the origin reads from."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        store: Store,
        origin: Origin,
        limits: Limits | None = None,
        retrier: Retrier | None = None,
        looks: Retrier | None = None,
    ) -> None:
        super().__init__(spec, store, limits=limits, retrier=retrier, looks=looks)
        self._origin = origin
        self._before: int | None = None
        """Records in the target at the start, where the store counts exactly and nobody else writes."""

    async def _plan_and_work(self) -> CopyContext:
        calls, spec = self._calls, self._spec
        await calls.call(self._store.probe)
        source = await self._origin.prepare()
        self.progress.revision = self._origin.revision
        await self._check(source)
        context = CopyContext(
            spec=spec,
            origin=self._origin,
            target=calls,
            progress=self.progress,
            dead_letters=self._dead_letters(),
            halt=self._halt,
        )
        if spec.store.sole_writer:
            context.empty = await self._retrier.call(self._is_empty)
            if self._store.capabilities.exact_counts:
                self._before = await calls.call(lambda: calls.store.count(calls.index))
        self._working = True
        try:
            await Copier(context).run(self._retrier.attempts)
        finally:
            self._working = False
        if self._halt.error is not None:
            raise self._halt.error
        if not self.progress.counts.documents_listed:
            raise Terminal(
                "the source index holds no records: there is nothing to copy. Nothing was written or deleted",
                reason="EmptySource",
            )
        return context

    async def _check(self, source: Space) -> None:
        """The target is the index that is meant, and takes the source's vectors. Raises Terminal, Conflict."""
        calls, target = self._calls, self._spec.store
        found = await calls.call(lambda: calls.store.describe_index(target.index))
        check_place(target, found)
        name = f"the index {target.index!r}"
        check_fit(source, Space(name, target.dimension, target.metric, found.model_fingerprint))

    async def _is_empty(self) -> bool:
        async for page in self._calls.scroll(metadata=False, page=1):
            if page:
                return False
        return True

    async def _finalize(self, work: CopyContext) -> None:
        if (self._spec.sync.mode or SyncMode.UPSERT) is SyncMode.SYNC:
            await delete_gone(work)

    async def _verification(self, work: CopyContext) -> str:
        counts = self.progress.counts
        if not counts.vectors_written and not counts.vectors_deleted:
            # Every record was just compared with the one in the store, and found equal.
            return EXACT
        total = None if self._before is None else self._before + work.added
        return await work.arrivals.verify(self._calls, self._looks, total=total)
