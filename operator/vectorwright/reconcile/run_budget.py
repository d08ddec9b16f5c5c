"""A worker's share of what its store and its embedder may be asked for: the limit, divided by the live workers."""

from __future__ import annotations

from dataclasses import replace

from .cache import Key
from .context import Context
from .runner_base import WorkerBudget


def share(context: Context, key: Key) -> WorkerBudget | None:
    """The share of one job's worker. None while nothing is limited or the run is not known to this process.

    Workers count together by the backend that they write to, whatever VectorStore object names it, and by the
    fingerprint of the model that they embed with. Of several limits the lowest holds.
    """
    mine = context.runs.get(key)
    if mine is None:
        return None
    backend, spec = mine
    on_backend = [other for known, other in context.runs.values() if known == backend]
    requests = [item.store.requests_per_second for item in on_backend if item.store.requests_per_second]
    volumes = [item.store.bytes_per_second for item in on_backend if item.store.bytes_per_second]
    budget = WorkerBudget(
        requests_per_second=min(requests) / len(on_backend) if requests else None,
        bytes_per_second=min(volumes) / len(on_backend) if volumes else None,
    )
    if spec.embedder is None:
        return budget
    same_model = [
        other.embedder.spec.limits
        for _, other in context.runs.values()
        if other.embedder and other.embedder.fingerprint == spec.embedder.fingerprint
    ]
    asked = [limits.requests_per_minute for limits in same_model if limits and limits.requests_per_minute]
    tokens = [limits.tokens_per_minute for limits in same_model if limits and limits.tokens_per_minute]
    return replace(
        budget,
        embed_requests_per_minute=min(asked) / len(same_model) if asked else None,
        embed_tokens_per_minute=min(tokens) / len(same_model) if tokens else None,
    )
