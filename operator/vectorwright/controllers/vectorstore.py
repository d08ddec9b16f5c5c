"""The VectorStore controller."""

from __future__ import annotations

from collections.abc import Iterable

from vectorwright.api.v1alpha1 import VectorStore
from vectorwright.kube import resources
from vectorwright.observability import metrics
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.vectorstore import reconcile

from .driver import Controller


def _dependents(_context: Context, _key: Key) -> Iterable[Key]:
    """None here: the reconciler wakes the indexes that differ, and only those."""
    return ()


async def _gone(context: Context, key: Key) -> None:
    await context.sessions.close(key)
    context.uses.pop(key, None)
    metrics.forget(*key)
    for body in context.cache.all("VectorIndex", key.namespace):
        if body.get("spec", {}).get("storeRef", {}).get("name") == key.name:
            context.enqueue(Key("VectorIndex", key.namespace, body["metadata"]["name"]))


CONTROLLER = Controller(resources.VECTOR_STORES, VectorStore, reconcile, _dependents, _gone)
