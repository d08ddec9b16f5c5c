"""Our finalizer on an object: added before the first effect outside the cluster, removed when nothing is left to do."""

from __future__ import annotations

from vectorwright.api.v1alpha1.common import FINALIZER, ObjectMeta
from vectorwright.errors import Conflict, NotFound
from vectorwright.kube import resources
from vectorwright.kube.resources import ResourceType

from .cache import Key
from .context import Context

RESOURCES: dict[str, ResourceType] = {
    kind.kind: kind
    for kind in (
        resources.VECTOR_STORES,
        resources.EMBEDDING_MODELS,
        resources.VECTOR_INDEXES,
        resources.INGESTION_JOBS,
        resources.API_KEY_ROTATIONS,
    )
}


async def _write(context: Context, key: Key, metadata: ObjectMeta, finalizers: list[str]) -> None:
    body = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata.resource_version}}
    updated = await context.client.patch(RESOURCES[key.kind], key.name, key.namespace, body)
    if updated.get("metadata", {}).get("deletionTimestamp") and not updated["metadata"].get("finalizers"):
        # Gone. Whoever waits for that is woken before the watch tells of it.
        context.cache.drop(key, metadata.uid)
        return
    context.cache.put(key.kind, updated, written=True)
    metadata.resource_version = updated["metadata"]["resourceVersion"]
    metadata.finalizers = finalizers


class Overtaken(Conflict):
    """The object changed since this pass read it: nothing is wrong with it, and the next pass sees it as it is."""


async def add_finalizer(context: Context, key: Key, metadata: ObjectMeta) -> None:
    """Put our finalizer on an object. Raises Overtaken, which no pass catches: it is for the driver."""
    if FINALIZER not in metadata.finalizers and not context.settings.read_only:
        try:
            await _write(context, key, metadata, [*metadata.finalizers, FINALIZER])
        except Conflict as error:
            raise Overtaken(error.message, reason=error.reason) from None


async def remove_finalizer(context: Context, key: Key, metadata: ObjectMeta) -> None:
    """Take our finalizer off an object; fine when it is gone already."""
    if FINALIZER in metadata.finalizers:
        try:
            await _write(context, key, metadata, [name for name in metadata.finalizers if name != FINALIZER])
        except NotFound:
            return
