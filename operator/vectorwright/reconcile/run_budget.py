"""A worker's share of what its store and its embedder may be asked for: the limit, divided by the live workers."""

from __future__ import annotations

from dataclasses import replace

from vectorwright.ingest.runspec import StorePlace

from .cache import Key
from .context import Context
from .runner_base import WorkerBudget


def _places(context: Context, backend: str) -> list[StorePlace]:
    """The places on a backend that runs write to or read from, one for each run."""
    found: list[StorePlace] = []
    for known, spec in context.runs.values():
        if known == backend:
            found.append(spec.store)
        elif spec.source_store is not None and spec.source_store.backend_id == backend:
            found.append(spec.source_store)
    return found


def _requests(places: list[StorePlace]) -> float | None:
    limits = [place.requests_per_second for place in places if place.requests_per_second]
    return min(limits) / len(places) if limits else None


def share(context: Context, key: Key) -> WorkerBudget | None:
    """The share of one job's worker. None while nothing is limited or the run is not known to this process.

    Workers count together by the backend that they write to or copy from, whatever VectorStore object names it, and by
    the fingerprint of the model that they embed with. Of several limits the lowest holds.
    """
    mine = context.runs.get(key)
    if mine is None:
        return None
    backend, spec = mine
    on_backend = _places(context, backend)
    volumes = [place.bytes_per_second for place in on_backend if place.bytes_per_second]
    budget = WorkerBudget(
        requests_per_second=_requests(on_backend),
        bytes_per_second=min(volumes) / len(on_backend) if volumes else None,
    )
    origin = spec.source_store
    if origin is not None and origin.backend_id != backend:
        budget = replace(budget, source_requests_per_second=_requests(_places(context, origin.backend_id)))
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
