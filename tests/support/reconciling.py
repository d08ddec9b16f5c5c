"""The operator's control loop in this process: real driver, queue and reconcilers, stores in memory, an API double."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast

import numpy as np

from vectorwright.api.v1alpha1 import API_VERSION, EmbeddingModel
from vectorwright.controllers import embeddingmodel, ingestionjob, vectorindex, vectorstore
from vectorwright.controllers.driver import Controller, Driver
from vectorwright.errors import Retryable, VectorwrightError
from vectorwright.kube.events import EventRecorder
from vectorwright.kube.watched import WatchedObjects
from vectorwright.reconcile.cache import Key, ObjectCache
from vectorwright.reconcile.context import Context
from vectorwright.reconcile.outcome import Outcome, failed, ready_conditions
from vectorwright.reconcile.runners import Runners
from vectorwright.reconcile.sessions import StoreSessions
from vectorwright.settings import Settings
from vectorwright.stores.base import RecordBatch, Store
from vectorwright.stores.memory import MEMORY_CAPABILITIES, MemoryStore
from vectorwright.stores.registry import Connection

from .api_double import ApiDouble, Body

NAMESPACE = "team-a"
INSTALLATION = "install-1"
DURABLE = replace(MEMORY_CAPABILITIES, durable=True)
"""A store in memory is another one after each restart; here it plays the part of those that are not."""
WRITES = {
    "create_index", "update_index", "set_mark", "delete_index", "upsert", "delete", "delete_where", "set_alias",
    "delete_alias",
}  # fmt: skip
"""Methods of a store that change it."""


class RecordingStore:
    """A store in memory that remembers what was asked of it, and can be told to fail or to be slow."""

    def __init__(self, memory: MemoryStore) -> None:
        self.memory = memory
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.failures: dict[str, VectorwrightError] = {}
        """Method → what it raises until it is taken out again; ``*`` stands for all."""
        self.before: dict[str, Callable[[], None]] = {}
        """Method → what happens in the store just before it is called."""

    @property
    def capabilities(self) -> Any:
        return self.memory.capabilities

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.memory, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments))
            await asyncio.sleep(0)
            if name != "close" and (error := self.failures.get(name) or self.failures.get("*")):
                raise error
            if (before := self.before.get(name)) is not None:
                before()
            return await method(*arguments, **options)

        return call

    def made(self, *names: str) -> Counter[str]:
        """How often methods were called: those named, or all."""
        return Counter(name for name, _ in self.calls if not names or name in names)

    @property
    def changes(self) -> list[str]:
        """The calls that changed the store, in order."""
        return [name for name, _ in self.calls if name in WRITES]


@dataclass
class FakeData:
    """Secrets, or ConfigMaps, as the operator's watches would have them."""

    kind: str
    data: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    changed: Callable[[str, str, str], None] | None = None

    def set(self, namespace: str, name: str, **values: str) -> None:
        """Write an object, and tell as a watch would."""
        self.data[namespace, name] = {key.replace("__", "."): value.encode() for key, value in values.items()}
        self.versions[namespace, name] += 1
        if self.changed:
            self.changed(self.kind, namespace, name)

    def remove(self, namespace: str, name: str) -> None:
        """Delete an object, and tell as a watch would."""
        del self.data[namespace, name]
        if self.changed:
            self.changed(self.kind, namespace, name)

    async def get(self, namespace: str, name: str) -> dict[str, bytes] | None:
        await asyncio.sleep(0)
        return self.data.get((namespace, name))

    def resource_version(self, namespace: str, name: str) -> str | None:
        return str(self.versions[namespace, name]) if (namespace, name) in self.data else None


@dataclass
class FakeEvents:
    """Remembers events: (type, kind, name, reason, message)."""

    told: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def normal(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        self.told.append(("Normal", obj["kind"], obj["metadata"]["name"], reason, message))

    def warning(self, obj: Mapping[str, Any], reason: str, message: str) -> None:
        self.told.append(("Warning", obj["kind"], obj["metadata"]["name"], reason, message))

    def reasons(self, name: str | None = None) -> list[str]:
        """The reasons told of, in order."""
        return [reason for _, _, about, reason, _ in self.told if name in (None, about)]


class World:
    """A cluster with an operator, without processes. Use as an async context manager."""

    def __init__(self, *, runners: Runners | None = None, **settings: Any) -> None:
        self.api = ApiDouble()
        self.secrets = FakeData("Secret")
        self.config_maps = FakeData("ConfigMap")
        self.events = FakeEvents()
        self.backends: dict[str, RecordingStore] = {}
        """Stores by the ``server`` of a VectorStore's memory block."""
        self.models: dict[str, tuple[int, str] | VectorwrightError] = {}
        """EmbeddingModels by name: dimension and fingerprint, or what their probe raises."""
        self.opened: list[Connection] = []
        self._settings = Settings(**settings)
        self._runners = runners
        self._task: asyncio.Task[None] | None = None
        self.start_afresh()

    def start_afresh(self) -> None:
        """A new operator process: nothing is remembered but what the API server and the stores hold."""
        self.context = Context(
            settings=self._settings,
            installation=INSTALLATION,
            client=self.api.client(),
            cache=ObjectCache(),
            secrets=cast("WatchedObjects", self.secrets),
            config_maps=cast("WatchedObjects", self.config_maps),
            events=cast("EventRecorder", self.events),
            sessions=StoreSessions(),
            local_stores=None,
            runners=cast("Runners", self._runners),
            enqueue=lambda key: self.driver.queue.add(key),  # noqa: PLW0108 - the driver comes after the context
            enqueue_after=lambda key, seconds: self.driver.queue.add_after(key, seconds),  # noqa: PLW0108
        )
        models = replace(embeddingmodel.CONTROLLER, reconcile=self._reconcile_model)
        self.driver = Driver(self.context, (vectorstore.CONTROLLER, models, vectorindex.CONTROLLER, *self._jobs()))
        self.secrets.changed = self.config_maps.changed = self.driver.on_reference_change
        self.api.listeners[:] = [self._watched]

    def _jobs(self) -> Iterable[Controller]:
        return () if self._runners is None else (ingestionjob.CONTROLLER,)

    def _watched(self, kind: str, event: str | None, body: Body) -> None:
        if kind in ("VectorStore", "EmbeddingModel", "VectorIndex", "IngestionJob", "APIKeyRotation"):
            self.driver.on_event(kind, event, body)

    def open_store(self, connection: Connection) -> Store:
        """In place of the registry's: the store in memory behind the address."""
        self.opened.append(connection)
        address = str(connection.settings.get("server") or connection.settings.get("url"))
        found = self.backends.get(address)
        if found is None:
            raise Retryable(f"{address} cannot be reached", reason="StoreUnreachable")
        return cast("Store", found)

    async def _reconcile_model(self, context: Context, model: EmbeddingModel) -> Outcome:
        found = self.models.get(model.metadata.name, Retryable("not there yet", reason="Unreachable"))
        if isinstance(found, VectorwrightError):
            return failed(found, {})
        dimension, fingerprint = found
        return Outcome(
            {"model": model.metadata.name, "dimension": dimension, "fingerprint": fingerprint},
            ready_conditions("answers", synced=False),
        )

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.driver.queue.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.context.sessions.close_all()

    async def restart(self, order: Iterable[str] = ("VectorStore", "EmbeddingModel", "VectorIndex")) -> None:
        """Kill the operator and start another. As in the real one, work begins once all kinds were listed."""
        await self._stop()
        self.start_afresh()
        for kind in order:
            for (of_kind, _, _), body in list(self.api.objects.items()):
                if of_kind == kind:
                    self._watched(kind, None, body)
        self._task = asyncio.create_task(self.driver.queue.run())
        await self.settle()

    async def settle(self, horizon: float = 0.8) -> None:
        """Return when nothing is worked on, waits or is due within ``horizon`` seconds."""
        queue = self.driver.queue
        deadline = time.monotonic() + 20
        quiet = 0
        while quiet < 3:
            assert self._task is None or not self._task.done(), "the queue died"
            assert time.monotonic() < deadline, f"never settles: {self.api.writes[-5:]}"
            due = [key for key, at in queue._due.items() if at - time.monotonic() < horizon]
            busy = len(queue) or queue._running or due
            quiet = 0 if busy else quiet + 1
            await asyncio.sleep(0.002)

    async def tick(self, store: str = "vectors") -> None:
        """Let the timer of a VectorStore fire now."""
        self.driver.queue.add(Key("VectorStore", NAMESPACE, store))
        await self.settle()

    # -- objects --
    def backend(self, server: str = "http://vectors", memory: MemoryStore | None = None) -> RecordingStore:
        """A store that listens at an address."""
        return self.backends.setdefault(server, RecordingStore(memory or MemoryStore(DURABLE)))

    def add_store(self, name: str = "vectors", server: str = "http://vectors", **spec: Any) -> Body:
        """Apply a VectorStore whose store is in memory."""
        return self.api.apply(resource("VectorStore", name, {"memory": {"server": server}, **spec}))

    def add_model(self, name: str, dimension: int, fingerprint: str) -> Body:
        """Apply an EmbeddingModel that answers."""
        self.models[name] = (dimension, fingerprint)
        return self.api.apply(resource("EmbeddingModel", name, {"local": {"model": "wordllama"}}))

    def add_index(self, name: str = "docs", *, store: str = "vectors", **spec: Any) -> Body:
        """Apply a VectorIndex; of dimension 4 where nothing else is said."""
        if "embeddingModelRef" not in spec:
            spec.setdefault("dimension", 4)
        return self.api.apply(resource("VectorIndex", name, {"storeRef": {"name": store}, **spec}))

    def index(self, name: str = "docs") -> Body:
        """The VectorIndex as the API server has it."""
        return self.api.get_now("VectorIndex", NAMESPACE, name)

    def status(self, name: str = "docs", kind: str = "VectorIndex") -> Body:
        """The status of an object."""
        return cast("Body", self.api.get_now(kind, NAMESPACE, name).get("status") or {})

    def conditions(self, name: str = "docs", kind: str = "VectorIndex") -> dict[str, tuple[str, str]]:
        """Conditions by type: (status, reason)."""
        found = self.status(name, kind).get("conditions") or []
        return {item["type"]: (item["status"], item["reason"]) for item in found}

    def message(self, name: str = "docs", kind: str = "VectorIndex", of: str = "Ready") -> str:
        """The message of a condition."""
        return next(str(item["message"]) for item in self.status(name, kind)["conditions"] if item["type"] == of)

    def exists(self, name: str = "docs", kind: str = "VectorIndex") -> bool:
        """Whether the API server has the object."""
        return (kind, NAMESPACE, name) in self.api.objects


def resource(kind: str, name: str, spec: Body, **metadata: Any) -> Body:
    """An object as a person writes it."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "spec": spec,
    }


def vectors(count: int, dimension: int = 4) -> RecordBatch:
    """Records to put into an index."""
    rng = np.random.default_rng(7)
    return RecordBatch(
        [f"id-{number}" for number in range(count)],
        rng.random((count, dimension), dtype=np.float32),
        [{} for _ in range(count)],
        [None] * count,
    )
