"""The VectorStore controller."""

from __future__ import annotations

from collections.abc import Iterable

from vectorwright.api.v1alpha1 import VectorStore
from vectorwright.kube import resources
from vectorwright.observability import metrics
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.vectorstore import dependents, reconcile

from .driver import Controller


def _dependents(context: Context, key: Key) -> Iterable[Key]:
    """The rotations of its keys, which need its address. The indexes that differ are woken by the reconciler."""
    return _keys(context, key, "APIKeyRotation")


def _keys(context: Context, key: Key, kind: str) -> Iterable[Key]:
    """The objects of a kind that refer to this store."""
    return (Key(kind, key.namespace, body["metadata"]["name"]) for body in dependents(context, key, kind))


async def _gone(context: Context, key: Key) -> None:
    await context.sessions.close(key)
    context.uses.pop(key, None)
    metrics.forget(*key)
    for user in _keys(context, key, "VectorIndex"):
        context.enqueue(user)


CONTROLLER = Controller(resources.VECTOR_STORES, VectorStore, reconcile, _dependents, _gone)
