"""The operator's working process: kopf watches, the queue works.

kopf is given event handlers only. So it keeps no finalizers, annotations or diffs of its own on any object, and one
level-triggered path serves creation, change, restart and timer alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vectorwright.api.v1alpha1.common import GROUP, VERSION
from vectorwright.errors import NotFound, Retryable
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.installation import installation_id
from vectorwright.kube.resources import ResourceType
from vectorwright.kube.session import open_session
from vectorwright.kube.tenure import tenure_guard
from vectorwright.observability.memory import limit_heaps, trim_heaps
from vectorwright.reconcile.cache import Key
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.job_manifest import RUN_LABEL, ingestion_job_of
from vectorwright.settings import Settings

from . import apikeyrotation, embeddingmodel, ingestionjob, vectorindex, vectorstore
from .assembly import assemble, release
from .driver import Driver
from .slim_kopf import kopf

if TYPE_CHECKING:
    from vectorwright.stores.local_server import LocalStoreServers

log = logging.getLogger(__name__)

CONTROLLERS = (
    vectorstore.CONTROLLER,
    embeddingmodel.CONTROLLER,
    vectorindex.CONTROLLER,
    ingestionjob.CONTROLLER,
    apikeyrotation.CONTROLLER,
)
HEARTBEAT_INTERVAL = 1.0
"""Seconds between two signs of life of the event loop."""
TIDY_INTERVAL = 30.0
"""Seconds between two looks for watches that nobody needs any more."""
FIRST_LISTING_PATIENCE = 15.0
"""Seconds for which work waits for the first listings; an object that was deleted meanwhile is waited for in vain."""
LIST_CHUNK = 500
"""Objects in one page of a first listing."""


async def run(
    settings: Settings,
    connection: KubeConnection,
    heartbeat: Callable[[], None],
    stop: asyncio.Event,
) -> None:
    """Reconcile until ``stop`` is set. Raises Terminal when the cluster does not let the operator work."""
    limit_heaps()
    client = KubeClient(connection, tenure_guard)
    beating = asyncio.create_task(_beat(heartbeat), name="heartbeat")
    try:
        installation = await _when_reachable(lambda: installation_id(client, settings.installation_id), stop)
        await _when_reachable(lambda: _check_api(settings, client), stop)
        if installation is not None and not stop.is_set():
            await _serve(settings, connection, client, installation, stop)
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        await client.close()


async def _serve(
    settings: Settings, connection: KubeConnection, client: KubeClient, installation: str, stop: asyncio.Event
) -> None:
    context, driver = assemble(settings, client, installation, CONTROLLERS, _local_stores(settings))
    kopf_session = open_session(connection)
    tasks = [
        asyncio.create_task(_work(context, driver, stop), name="queue"),
        asyncio.create_task(_tidy(context), name="tidy"),
        asyncio.create_task(_kopf(settings, connection, driver, kopf_session, stop), name="kopf"),
    ]
    log.info("working as installation %s", installation)
    try:
        done, _ = await asyncio.wait([*tasks, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not stop.is_set() or task in tasks:
                task.result()
    finally:
        stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await release(context)
        await kopf_session.close()


async def _work(context: Context, driver: Driver, stop: asyncio.Event) -> None:
    """Work the queue, once the watches have told of everything that there was at the start.

    Until then a reference that is not known says nothing: taking it for missing would turn every index not ready, and
    let go of those that are being deleted.
    """
    missing = await _when_reachable(lambda: _present(context), stop) or set()
    deadline = time.monotonic() + FIRST_LISTING_PATIENCE
    while missing and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
        missing = {key for key in missing if context.cache.get(*key) is None}
    await driver.queue.run()


async def _present(context: Context) -> set[Key]:
    """All our objects in the namespaces that are served."""
    found = set()
    for controller in CONTROLLERS:
        for namespace in context.settings.namespaces or (None,):
            for body in await context.client.list(controller.resource, namespace):
                found.add(Key(controller.resource.kind, body["metadata"]["namespace"], body["metadata"]["name"]))
    return found


def _local_stores(settings: Settings) -> LocalStoreServers | None:
    if settings.local_stores is None:
        return None
    from vectorwright.stores.local_server import LocalStoreServers  # noqa: PLC0415 - for trials only

    return LocalStoreServers(settings.local_stores)


async def _when_reachable(ask: Callable[[], Any], stop: asyncio.Event) -> Any:
    """The answer, asked for until the API server gives it. None when stopped first. Raises Terminal."""
    while not stop.is_set():
        try:
            return await ask()
        except Retryable as error:
            log.warning("%s: %s", error.reason, error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(error.after or 2.0):
                    await stop.wait()
    return None


async def _check_api(settings: Settings, client: KubeClient) -> None:
    """The CRDs are there. Raises Retryable while they are not: they may be applied after the operator."""
    namespace = settings.namespaces[0] if settings.namespaces else None

    async def check(resource: ResourceType) -> None:
        try:
            await client.list(resource, namespace, field_selector="metadata.name=none")
        except NotFound:
            raise Retryable(
                f"the API server does not serve {resource.plural}.{GROUP}: apply the CRDs (kubectl apply -f crds/)",
                reason="CRDsMissing",
            ) from None

    # All at once: a new kind is prepared when it is first asked for, and refused for a second in the meantime.
    answers = await asyncio.gather(*(check(controller.resource) for controller in CONTROLLERS), return_exceptions=True)
    for answer in answers:
        if answer is not None:
            raise answer


async def _beat(heartbeat: Callable[[], None]) -> None:
    while True:
        heartbeat()
        await asyncio.sleep(HEARTBEAT_INTERVAL)


async def _tidy(context: Context) -> None:
    while True:
        await asyncio.sleep(TIDY_INTERVAL)
        used = [item for names in context.uses.values() for item in names]
        context.secrets.release_unused({(ns, name) for kind, ns, name in used if kind == "Secret"})
        context.config_maps.release_unused({(ns, name) for kind, ns, name in used if kind == "ConfigMap"})
        trim_heaps()


async def _kopf(
    settings: Settings, connection: KubeConnection, driver: Driver, session: Any, stop: asyncio.Event
) -> None:
    registry = kopf.OperatorRegistry()
    if not log.isEnabledFor(logging.DEBUG):
        # A line for each event that was delivered to the queue says nothing: the queue's own lines do.
        logging.getLogger("kopf").setLevel(logging.WARNING)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> Any:
        return kopf.AiohttpSession(
            server=connection.server, aiohttp_session=session, default_namespace=connection.namespace
        )

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.chunk_size = LIST_CHUNK
        settings.watching.label_selectors["batch", "jobs"] = RUN_LABEL
        settings.process.ultimate_exiting_timeout = None
        settings.queueing.idle_timeout = 0.5  # a task an object, kept no longer than a burst of its events lasts

    def watch(group: str, version: str, plural: str, kind: str) -> None:
        @kopf.on.event(group, version, plural, id=plural, registry=registry)
        async def deliver(event: Any, **_: Any) -> None:
            if kind == "Job":
                _job_event(driver, event["object"])
            else:
                driver.on_event(kind, event["type"], event["object"])

    for controller in CONTROLLERS:
        watch(GROUP, VERSION, controller.resource.plural, controller.resource.kind)
    watch("batch", "v1", "jobs", "Job")
    await kopf.operator(
        registry=registry,
        standalone=True,
        clusterwide=settings.cluster_wide,
        namespaces=list(settings.namespaces),
        stop_flag=stop,
    )


def _job_event(driver: Driver, body: dict[str, Any]) -> None:
    """A worker's Job changed: its IngestionJob has to look."""
    if name := ingestion_job_of(body):
        driver.queue.add(Key("IngestionJob", body["metadata"]["namespace"], name))
