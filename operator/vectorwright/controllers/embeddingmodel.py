"""The EmbeddingModel controller."""

from __future__ import annotations

from collections.abc import Iterable

from vectorwright.api.v1alpha1 import EmbeddingModel
from vectorwright.kube import resources
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.embeddingmodel import reconcile

from .driver import Controller


def _dependents(context: Context, key: Key) -> Iterable[Key]:
    """The indexes whose vectors this model makes."""
    for body in context.cache.all("VectorIndex", key.namespace):
        if (body.get("spec", {}).get("embeddingModelRef") or {}).get("name") == key.name:
            yield Key("VectorIndex", key.namespace, body["metadata"]["name"])


async def _gone(context: Context, key: Key) -> None:
    context.probed.pop(key, None)
    context.uses.pop(key, None)


CONTROLLER = Controller(resources.EMBEDDING_MODELS, EmbeddingModel, reconcile, _dependents, _gone)
