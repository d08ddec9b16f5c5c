"""The IngestionJob controller."""

from __future__ import annotations

from collections.abc import Iterable

from vectorwright.api.v1alpha1 import IngestionJob
from vectorwright.kube import resources
from vectorwright.observability import metrics
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.ingestionjob import reconcile

from .driver import Controller


def _dependents(context: Context, key: Key) -> Iterable[Key]:
    """The index that this job fills: its count and its freshness."""
    body = context.cache.get(*key)
    if body is not None:
        yield Key("VectorIndex", key.namespace, body["spec"]["indexRef"]["name"])


async def _gone(context: Context, key: Key) -> None:
    context.uses.pop(key, None)
    context.runs.pop(key, None)
    context.retry_at.pop(key, None)
    context.handed.pop(key, None)
    context.progress_written.pop(key, None)
    metrics.forget(*key)


CONTROLLER = Controller(resources.INGESTION_JOBS, IngestionJob, reconcile, _dependents, _gone)
