"""The VectorIndex controller."""

from __future__ import annotations

from collections.abc import Iterable

from vectorwright.api.v1alpha1 import VectorIndex
from vectorwright.kube import resources
from vectorwright.kube.status import condition
from vectorwright.observability import metrics
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.vectorindex import reconcile

from .driver import Controller


def _dependents(context: Context, key: Key) -> Iterable[Key]:
    """The jobs that fill this index, and those that copy it."""
    for body in context.cache.all("IngestionJob", key.namespace):
        spec = body.get("spec", {})
        copied = spec.get("source", {}).get("vectorIndex", {})
        if key.name in (spec.get("indexRef", {}).get("name"), copied.get("name")):
            yield Key("IngestionJob", key.namespace, body["metadata"]["name"])


async def _gone(context: Context, key: Key) -> None:
    context.last_seen.pop(key, None)
    metrics.forget(*key)
    for body in context.cache.all("VectorIndex"):
        ready = condition(body.get("status") or {}, "Ready")
        if ready is not None and ready["reason"] == "ClaimedByAnother":
            context.enqueue(Key("VectorIndex", body["metadata"]["namespace"], body["metadata"]["name"]))


CONTROLLER = Controller(resources.VECTOR_INDEXES, VectorIndex, reconcile, _dependents, _gone)
