"""The embedding stage: batches of texts of any documents, several calls in flight.

A text that the model refuses is found by bisecting and goes to the dead letters. Whether it is the text or the model
is told by a text that no model refuses: if that fails too, the run ends, and nothing is blamed on the documents.
"""

from __future__ import annotations

import asyncio

from vectorwright.errors import BatchRejected, Retryable, Terminal

from .batching import batched, spread
from .checks import check_vectors
from .context import RunContext
from .contracts import Embedded, Embedder
from .embedders.registry import PROBE_TEXT
from .items import Item
from .tokens import TokenBudget, TokenEstimate

LINGER = 0.25
"""Seconds that an incomplete batch waits for more."""
_MOST_BYTES = 4 * 2**20
"""Bytes of text in one call: endpoints refuse larger requests, and calls in flight are memory."""


def _may_be_a_text(error: BatchRejected | Retryable) -> bool:
    """Whether a text may be to blame: it was refused, or the answer makes no sense. Never for 429, 5xx, time-outs."""
    return isinstance(error, BatchRejected) or error.reason == "EmbedderBadAnswer"


class EmbeddingStage:
    """Gives items their vectors."""

    def __init__(self, context: RunContext, embedder: Embedder, *, concurrency: int) -> None:
        self._context = context
        self._embedder = embedder
        self._concurrency = concurrency
        self._estimate = TokenEstimate()
        self._budget = TokenBudget(context.spec.budget.max_tokens)
        self._target: asyncio.Queue[Item | None] = asyncio.Queue()

    async def run(self, source: asyncio.Queue[Item | None], target: asyncio.Queue[Item | None]) -> None:
        """Embed everything from ``source`` into ``target``, until a None comes; then pass one on."""
        self._target = target
        batches = batched(
            source,
            most=self._embedder.batch_size,
            most_bytes=_MOST_BYTES,
            size=lambda item: item.text_bytes,
            linger=LINGER,
        )
        await spread(batches, self._take, self._concurrency)
        await target.put(None)

    async def _take(self, items: list[Item]) -> None:
        """Embed a batch within the budget. A run that ends at once embeds nothing new."""
        if self._context.halt.at_once:
            return
        guesses = [self._estimate.guess(item.text_bytes) for item in items]
        fitting = await self._budget.reserve(guesses)
        if fitting < len(items):
            self._context.halt.request(
                Terminal(
                    f"the next texts could take this run over budget.maxTokens ({self._budget.most:,}): raise it, or "
                    "narrow the source. What was written so far stays",
                    reason="BudgetExceeded",
                ),
                at_once=False,
            )
        if not fitting:
            return
        used = 0
        try:
            used = await self._embed(items[:fitting])
        finally:
            await self._budget.settle(sum(guesses[:fitting]), used)

    async def _embed(self, items: list[Item]) -> int:
        """Embed items. Returns the tokens used."""
        try:
            return await self._embed_whole(items)
        except (BatchRejected, Retryable) as error:
            if not _may_be_a_text(error):
                raise
            await self._check_model()
            return await self._bisect(items, error)

    async def _embed_whole(self, items: list[Item], attempts: int | None = None) -> int:
        size = sum(item.text_bytes for item in items)
        answer = await self._ask([item.text for item in items], size, attempts)
        self._estimate.learn(size, answer.tokens)
        await self._deliver(items, answer)
        # An endpoint that counts no tokens is held to the budget by the guess.
        return answer.tokens or self._estimate.guess(size)

    async def _bisect(self, items: list[Item], error: BatchRejected | Retryable) -> int:
        """Find the texts to blame among items that were refused with ``error``."""
        if len(items) == 1:
            self._context.dead_letters.chunk(items[0], error.reason, error.message)
            await self._context.settle(items[0].document)
            return 0
        middle = len(items) // 2
        used = 0
        for half in (items[:middle], items[middle:]):
            try:
                used += await self._embed_whole(half, None if len(half) == 1 else 1)
            except (BatchRejected, Retryable) as again:
                if not _may_be_a_text(again):
                    raise
                used += await self._bisect(half, again)
        return used

    async def _check_model(self) -> None:
        """Raise Terminal or Retryable where the model fails with a harmless text too."""
        try:
            await self._ask([PROBE_TEXT], len(PROBE_TEXT), None)
        except BatchRejected as error:
            raise Terminal(
                f"the embedding model refuses every text: {error.message}", reason="EmbedderRefuses"
            ) from None

    async def _ask(self, texts: list[str], size: int, attempts: int | None) -> Embedded:
        limits = self._context.limits
        guess = self._estimate.guess(size)

        async def attempt() -> Embedded:
            await limits.embed_requests.take()
            await limits.embed_tokens.take(guess)
            answer = await self._embedder.embed(texts)
            self._check_shape(answer, len(texts))
            limits.embed_tokens.settle((answer.tokens or guess) - guess)
            self._context.progress.counts.tokens += answer.tokens
            return answer

        try:
            return await self._context.retrier.call(attempt, attempts=attempts)
        except Retryable as error:
            if error.reason == "WrongDimension":
                raise Terminal(error.message, reason=error.reason) from None
            raise

    def _check_shape(self, answer: Embedded, expected: int) -> None:
        """Raise Retryable for another dimension: once may be a broken answer, always is another model."""
        store = self._context.spec.store
        if answer.vectors.shape != (expected, store.dimension):
            raise Retryable(
                f"the embedding model returned vectors of dimension {answer.vectors.shape[-1]}, and index "
                f"{store.index!r} has {store.dimension}: use the model that the index was made for, or make another "
                "index",
                reason="WrongDimension",
            )

    async def _deliver(self, items: list[Item], answer: Embedded) -> None:
        vectors = answer.vectors
        self._context.progress.counts.vectors_embedded += len(items)
        defects = dict(check_vectors(vectors, self._context.spec.store.metric))
        for row, item in enumerate(items):
            defect = defects.get(row)
            if defect is None:
                item.vector = vectors[row]
                await self._target.put(item)
            else:
                self._context.dead_letters.chunk(item, defect.reason, defect.message)
                await self._context.settle(item.document)
