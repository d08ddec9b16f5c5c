"""Somebody who uses a published key all the while, and somebody who watches that the keys before it die."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import kubernetes
from tests.support.rotated_stores import Request, RotatedStore
from tests.support.vectorwright import GROUP, PLURALS, VERSION, Body, Resources

from vectorwright.rotation.base import KeyMaterial

PARTS = ("token", "username", "password")
KEY_ID, KEY_REVISION = f"{GROUP}/key-id", f"{GROUP}/key-revision"


@contextlib.contextmanager
def at_work(*workers: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run functions in threads until the context ends: the event tells them to. What they raise is raised then."""
    stop = threading.Event()

    def run(worker: Callable[[threading.Event], None]) -> None:
        try:
            worker(stop)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(len(workers)) as pool:
        running = [pool.submit(run, worker) for worker in workers]
        try:
            yield
        except BaseException as error:
            stop.set()
            for failed in (one.exception() for one in running):
                if failed is not None:
                    raise failed from error  # what the context met is what came of it
            raise
        stop.set()
        for one in running:
            one.result()


def material_of(data: Mapping[str, Any]) -> KeyMaterial:
    """The credential in the data of a Secret."""
    return KeyMaterial(**{part: base64.b64decode(data[part]).decode() for part in PARTS if part in data})


def mark_of(key: KeyMaterial) -> str:
    """Stands for the value of a key: pytest shows what tests hold when they fail."""
    return hashlib.sha256((key.token or key.password or "").encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Refused:
    """A request that failed."""

    age: float
    """Seconds from the reading of the Secret to the end of the request."""
    error: str
    """Kind of the error: what it says may hold a key."""
    refusal: bool


@dataclass
class Consumer:
    """Reads the Secret as often as it must, and makes requests as fast as it can.

    It uses what it read for ``window`` seconds, which is less than the overlap. A request that ended later than the
    overlap was made with a key that nobody promised to be valid: it counts as late.
    """

    resources: Resources
    secret: str
    store: RotatedStore
    overlap: float
    window: float
    requests: int = 0
    late: int = 0
    refused: list[Refused] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    """Seconds, of requests that succeeded."""
    last_read: dict[str, float] = field(default_factory=dict)
    """Marks of the keys that it used, in order, and when it began to read each for the last time (time.time())."""

    def work(self, stop: threading.Event) -> None:
        """Until told to stop. Raises what is no answer of the store."""
        with contextlib.ExitStack() as stack:
            held: KeyMaterial | None = None
            request: Request | None = None
            while not stop.is_set():
                read, since = time.monotonic(), time.time()
                found = self.resources.core.read_namespaced_secret(self.secret, self.resources.namespace)
                key = material_of(found.data or {})
                self.last_read[mark_of(key)] = since
                try:
                    if request is None or key.parts != (held.parts if held else {}) or self.store.refuses_sessions:
                        stack.close()
                        request, held = stack.enter_context(self.store.session(key)), key
                    self._use(request, read, stop)
                except self.store.errors as error:
                    request = None
                    self._fail(error, time.monotonic() - read)

    def _use(self, request: Request, read: float, stop: threading.Event) -> None:
        while not stop.is_set() and (began := time.monotonic()) < read + self.window:
            self.requests += 1
            request()
            self.latencies.append(time.monotonic() - began)

    def _fail(self, error: Exception, age: float) -> None:
        if age > self.overlap and self.store.is_refusal(error):
            self.late += 1
        else:
            self.refused.append(Refused(age, type(error).__name__, self.store.is_refusal(error)))


@dataclass
class OldKey:
    """A key that was published, and which another one replaces."""

    id: str
    revision: int
    material: KeyMaterial = field(repr=False)
    accepted: int = 0
    """How often it was accepted since it was replaced."""
    refused: float = 0.0
    """When it was refused first: the end of the call (time.time())."""

    @property
    def mark(self) -> str:
        """Stands for its value."""
        return mark_of(self.material)


@dataclass
class Witness:
    """Watches the Secret, and shows each key that was replaced to the store until that refuses it."""

    resources: Resources
    secret: str
    store: RotatedStore
    pause: float = 0.02
    published: list[OldKey] = field(default_factory=list)
    """Each key that was published, in order."""
    _guard: threading.Lock = field(default_factory=threading.Lock)

    @property
    def old(self) -> list[OldKey]:
        """All that were published but for the last one."""
        return self.published[:-1]

    def watch(self, stop: threading.Event) -> None:
        """Follow the Secret through all its versions, until told to stop."""
        core, namespace = self.resources.core, self.resources.namespace
        chosen = {"namespace": namespace, "field_selector": f"metadata.name={self.secret}"}
        for body in versions(core.list_namespaced_secret, stop, **chosen):
            key, annotations = material_of(body.data), body.metadata.annotations
            if self.published and self.published[-1].material == key:
                continue
            seen = OldKey(annotations[KEY_ID], int(annotations[KEY_REVISION]), key)
            with self._guard:
                self.published.append(seen)

    def probe(self, stop: threading.Event) -> None:
        """Show the keys that were replaced to the store, again and again, until they are refused."""
        while not stop.is_set():
            with self._guard:
                waiting = [key for key in self.old if not key.refused]
            for key in waiting:
                try:
                    accepted = self.store.accepts(key.material)
                except self.store.errors:
                    continue  # in the midst of its end: that proves nothing, and is asked again
                if accepted:
                    key.accepted += 1
                else:
                    key.refused = time.time()
            stop.wait(self.pause)

    def refused(self, key_id: str, revision: int) -> OldKey | None:
        """The key of a revision, once it was seen to be refused."""
        with self._guard:
            known = [key for key in self.old if (key.id, key.revision) == (key_id, revision) and key.refused]
        return known[0] if known else None

    def still_accepted(self) -> list[str]:
        """Ids of replaced keys that the store accepts now: keys that died must not come back."""
        return [key.id for key in self.old if self.store.accepts(key.material)]


@dataclass
class Census:
    """Counts the keys that live at the store."""

    store: RotatedStore
    most: int = 0
    counted: int = 0

    def work(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            self.most = max(self.most, len(self.store.live()))
            self.counted += 1
            stop.wait(0.05)


@dataclass
class Statuses:
    """Every version of the status of every object of a kind in a namespace."""

    resources: Resources
    kinds: tuple[str, ...] = ("VectorStore", "VectorIndex")
    seen: int = 0
    not_ready: list[tuple[str, list[Body]]] = field(default_factory=list)
    denied: list[tuple[str, list[Body]]] = field(default_factory=list)

    def workers(self) -> list[Callable[[threading.Event], None]]:
        """One a kind."""
        return [lambda stop, kind=kind: self._watch(kind, stop) for kind in self.kinds]  # type: ignore[misc]

    def _watch(self, kind: str, stop: threading.Event) -> None:
        listing = self.resources._custom.list_namespaced_custom_object
        place = {"group": GROUP, "version": VERSION, "plural": PLURALS[kind], "namespace": self.resources.namespace}
        for body in versions(listing, stop, **place):
            self.seen += 1
            conditions: list[Body] = (body.get("status") or {}).get("conditions") or []
            if [item["status"] for item in conditions if item["type"] == "Ready"] != ["True"]:
                self.not_ready.append((kind, conditions))
            if "AccessDenied" in str(body.get("status")):
                self.denied.append((kind, conditions))


def versions(listing: Callable[..., Any], stop: threading.Event, **chosen: Any) -> Iterator[Any]:
    """Objects as they are, then each of their changes, until told to stop."""
    version: str | None = None
    while not stop.is_set():
        watch = kubernetes.watch.Watch()
        since = {} if version is None else {"resource_version": version}
        try:
            for event in watch.stream(listing, timeout_seconds=1, **since, **chosen):
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]
                if stop.is_set():
                    break
        except kubernetes.client.ApiException as error:
            if error.status != 410:
                raise
            version = None  # nothing changed for so long that it is forgotten: everything is told again
        else:
            version = watch.resource_version


@dataclass
class Ingestion:
    """Runs one after another, each of which writes all records anew."""

    resources: Resources
    index: str
    records: int
    runs: list[Body] = field(default_factory=list)
    """The status of each run that ended."""

    def work(self, stop: threading.Event) -> None:
        """Until told to stop, and the last run ended."""
        while not stop.is_set():
            self.runs.append(self._run(len(self.runs) + 1))

    def _run(self, number: int) -> Body:
        rows = "\n".join(
            f'{{"id": "r{n}", "text": "record {n} of run {number}", "v": [{n}.0, {number}.0, 1.0, 1.0]}}'
            for n in range(self.records)
        )
        name = f"rows-{number}"
        self.resources.config_map(name, **{"table.jsonl": rows})
        source = {"configMap": {"name": name}}
        if number == 1:
            spec: Body = {"indexRef": {"name": self.index}, "source": source, "runner": {"type": "InProcess"}}
            spec |= {"embedding": {"precomputed": {"field": "v"}}, "batch": {"maxRecords": 20}}
            self.resources.create("IngestionJob", "job", spec)
        else:
            self.resources.patch("IngestionJob", "job", {"spec": {"source": source}})
        body = self.resources.wait("IngestionJob", "job", _is_over, timeout=180)
        self.resources.core.delete_namespaced_config_map(name, self.resources.namespace)
        status: Body = body["status"]
        return status


def _is_over(body: Body) -> bool:
    status = body.get("status") or {}
    done = status.get("phase") in ("Succeeded", "Failed", "SucceededWithErrors", "Unverified")
    return done and "run" not in status and status.get("observedGeneration") == body["metadata"]["generation"]
