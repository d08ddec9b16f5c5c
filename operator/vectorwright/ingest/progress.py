"""What a run did so far, and how fast."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import orjson

from vectorwright.api.v1alpha1.ingestionjob import Counts, DeadLetter, Phase

from .runspec import RunState

RATE_SECONDS = 10.0
"""Length of the window that the rate is the mean of."""
TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a termination message."""


class Progress:
    """Counts, rate and the words that go with them."""

    def __init__(self, run_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._run_id = run_id
        self._started = clock()
        self._written: deque[tuple[float, int]] = deque()
        self.counts = Counts()
        self.phase = Phase.PENDING
        self.revision: str | None = None
        self.verification: str | None = None
        self.reason: str | None = None
        self.message: str | None = None
        self.retryable = False
        self.dead_letters: list[DeadLetter] = []
        """The first twenty."""

    def wrote(self, vectors: int) -> None:
        """The store acknowledged a write."""
        self.counts.vectors_written += vectors
        self.counts.batches += 1
        now = self._clock()
        self._written.append((now, vectors))
        self._forget(now)

    def retried(self) -> None:
        """An attempt was repeated."""
        self.counts.retries += 1

    def _forget(self, now: float) -> None:
        while self._written and now - self._written[0][0] > RATE_SECONDS:
            self._written.popleft()

    @property
    def rate(self) -> float:
        """Vectors written a second, over the last ten seconds or since the start."""
        now = self._clock()
        self._forget(now)
        window = min(RATE_SECONDS, max(now - self._started, 0.1))
        return round(sum(vectors for _, vectors in self._written) / window, 1)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def state(self) -> RunState:
        """All of it."""
        return RunState(
            run_id=self._run_id,
            phase=self.phase,
            counts=self.counts.model_copy(),
            revision=self.revision,
            verification=self.verification,
            reason=self.reason,
            message=self.message,
            retryable=self.retryable,
            rate=self.rate,
            dead_letters=list(self.dead_letters),
        )


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def termination_message(state: RunState, limit: int = TERMINATION_BYTES) -> bytes:
    """The state as JSON of at most ``limit`` bytes: long texts are cut first, then the last dead letters go."""
    letters = state.dead_letters
    for text in (1000, 160, 80):
        shown = [
            DeadLetter(document=_cut(one.document, text), reason=one.reason, message=_cut(one.message, text))
            for one in letters
        ]
        short = state.model_copy(
            update={"dead_letters": shown, "message": _cut(state.message, 6 * text) if state.message else None}
        )
        data = orjson.dumps(short.dump())
        if len(data) <= limit:
            return data
    while shown and len(data) > limit:
        shown.pop()
        short = short.model_copy(update={"dead_letters": list(shown)})
        data = orjson.dumps(short.dump())
    return data
