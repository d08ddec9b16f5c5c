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


def _dependents(context: Context, key: Key) -> Iterable[Key]:
    """The rotations of its keys, which need its address. The indexes that differ are woken by the reconciler."""
    return _naming(context, "APIKeyRotation", key)


def _naming(context: Context, kind: str, key: Key) -> Iterable[Key]:
    """The objects of a kind that refer to this store."""
    for body in context.cache.all(kind, key.namespace):
        if body.get("spec", {}).get("storeRef", {}).get("name") == key.name:
            yield Key(kind, key.namespace, body["metadata"]["name"])


async def _gone(context: Context, key: Key) -> None:
    await context.sessions.close(key)
    context.uses.pop(key, None)
    metrics.forget(*key)
    for user in _naming(context, "VectorIndex", key):
        context.enqueue(user)


CONTROLLER = Controller(resources.VECTOR_STORES, VectorStore, reconcile, _dependents, _gone)
