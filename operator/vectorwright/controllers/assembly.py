"""A context and the driver that works with it: they know each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vectorwright.kube import resources
from vectorwright.kube.client import KubeClient
from vectorwright.kube.events import EventRecorder
from vectorwright.kube.watched import WatchedObjects
from vectorwright.reconcile.cache import Key, ObjectCache
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.rotation_pass import close_issuer
from vectorwright.reconcile.runners import Runners
from vectorwright.reconcile.sessions import StoreSessions
from vectorwright.settings import Settings

from .driver import Controller, Driver

if TYPE_CHECKING:
    from vectorwright.stores.local_server import LocalStoreServers


def assemble(
    settings: Settings,
    client: KubeClient,
    installation: str,
    controllers: Sequence[Controller],
    local_stores: LocalStoreServers | None = None,
) -> tuple[Context, Driver]:
    """What reconciles with one connection to the API server. Nothing is read, and nothing is worked on yet."""
    driver: Driver
    context = Context(
        settings=settings,
        installation=installation,
        client=client,
        cache=ObjectCache(),
        secrets=WatchedObjects(
            client, resources.SECRETS, lambda ns, name: driver.on_reference_change("Secret", ns, name)
        ),
        config_maps=WatchedObjects(
            client, resources.CONFIG_MAPS, lambda ns, name: driver.on_reference_change("ConfigMap", ns, name)
        ),
        events=EventRecorder(client, "vectorwright-operator"),
        sessions=StoreSessions(),
        local_stores=local_stores,
        runners=Runners(settings, client, lambda ns, name: driver.queue.add(Key("IngestionJob", ns, name))),
        enqueue=lambda key: driver.queue.add(key),  # noqa: PLW0108 - the driver comes after the context
        enqueue_after=lambda key, seconds: driver.queue.add_after(key, seconds),  # noqa: PLW0108
    )
    driver = Driver(context, controllers)
    return context, driver


async def release(context: Context) -> None:
    """End what a context began: runs in this process, watches, connections to stores, local servers."""
    await context.runners.stop_all()
    await context.secrets.close()
    await context.config_maps.close()
    await context.sessions.close_all()
    for key in list(context.issuers):
        await close_issuer(context, key)
    if context.local_stores is not None:
        await context.local_stores.stop()
    await context.events.close()
