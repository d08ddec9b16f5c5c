"""A rotation on a real API server and a real store, its operators, which are killed, and somebody who uses the key."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes
from deploy.devcluster import Cluster
from deploy.devcluster.processes import Identity
from tests.rotation.cases import IssuerCase
from tests.support.pods import PodKeeper
from tests.support.rotation_child import Order
from tests.support.rotation_qdrant_server import QdrantServerInCluster

from vectorwright.api.v1alpha1.common import ANNOTATION_ROTATE, API_VERSION
from vectorwright.rotation.base import KeyMaterial
from vectorwright.rotation.state import RotationState, Step, from_data

GROUP, VERSION, PLURAL = "vectorwright.dev", "v1alpha1", "apikeyrotations"
NAME, SECRET, STATE, TARGET = "search", "search-key", "search.key-rotation", "search-api"
PARTS = ("token", "username", "password")
OVERLAP = 0.5
"""Seconds: a consumer uses what it read no longer than this."""
MOST_KILLS = 100
QUICK = {"settling": 0.1, "remake": 1.0, "claim": 0.3, "look_again": 0.2}
"""No pod waits for the Secret here, and servers know a key at once."""
Body = dict[str, Any]


class Operators:
    """Starts operators by the program of :mod:`tests.support.rotation_child`, and ends what is left of them."""

    def __init__(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        self._program = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.rotation_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._started: list[Operator] = []

    def start(self, order: Order) -> Operator:
        """Start one."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(order.line() + "\n")
        self._program.stdin.flush()
        self._started = [one for one in self._started if one.alive]
        self._started.append(Operator(int(self._program.stdout.readline())))
        return self._started[-1]

    def close(self) -> None:
        """Kill all of them, and end the program."""
        for one in self._started:
            one.kill()
        self._program.communicate()


class Operator:
    """One operator's process, told apart from a later one that got its pid: whoever started it reaps it at once."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._process = Identity.of(pid)

    @property
    def state(self) -> str:
        """As ``ps`` tells it: ``R``, ``S``, ``T`` (stopped) …; empty once it is gone."""
        if not self.alive:
            return ""
        try:
            told = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""
        return told

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.alive()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
        wait_for(lambda: not self.alive, 10, "a killed operator is still there")

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


def wait_for(done: Callable[[], object], seconds: float, otherwise: str | Callable[[], str]) -> None:
    """Return as soon as ``done`` holds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.02)


@dataclass
class Scene:
    """One APIKeyRotation for the identity of a case, in a namespace of its own."""

    cluster: Cluster
    case: IssuerCase
    operators: Operators
    directory: Path
    spec: Body = field(default_factory=dict)
    """Fields of the APIKeyRotation besides the usual ones."""
    constants: dict[str, float] = field(default_factory=dict)
    """Of operators, besides :data:`QUICK`."""
    pods: int = 0
    """Of the Deployment that is restarted."""
    namespace: str = field(default_factory=lambda: f"team-a-{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self._api = kubernetes.config.new_client_from_config(str(self.cluster.kubeconfig))
        self.core: Any = kubernetes.client.CoreV1Api(self._api)
        self.apps: Any = kubernetes.client.AppsV1Api(self._api)
        self.custom: Any = kubernetes.client.CustomObjectsApi(self._api)
        self.values: set[str] = set(self.case.secrets())
        """Every value that must show nowhere."""
        self.requests = 0
        self.by_hand: KeyMaterial | None = None
        """A key that a person made, and that nobody touches."""
        self._make()

    def close(self) -> None:
        """Delete the namespace without waiting for its end."""
        if self._keeper is not None:
            self._keeper.stop()
        with contextlib.suppress(kubernetes.client.ApiException):
            self.patch({"metadata": {"finalizers": None}})
        self.core.delete_namespace(self.namespace)
        self._api.close()

    def _make(self) -> None:
        self.core.create_namespace({"metadata": {"name": self.namespace}})
        self._keeper = PodKeeper(self.cluster, self.namespace) if self.pods else None
        if self._keeper is not None:
            self._keeper.start()
        if isinstance(self.case, QdrantServerInCluster):
            self.case.settle(self.cluster, self.namespace)
        assignment = self.case.assignment(NAME)
        connection, credentials = assignment.connection, assignment.connection.credentials
        store = {connection.provider: dict(connection.settings), "limits": {"timeout": "10s"}}
        self._create("VectorStore", "vectorstores", "store", store)
        given = {part: getattr(credentials, part) for part in PARTS}
        admin = {part: value for part, value in given.items() if value}
        spec: Body = {
            "storeRef": {"name": "store"},
            "identity": {self.case.identity: dict(assignment.identity)},
            "strategy": self.case.strategy.value,
            "secret": {"name": SECRET, "data": {"previous": "${previousToken}"}},
            "overlap": f"{int(OVERLAP * 1000)}ms",
            "rolloutRestartTargets": [{"kind": "Deployment", "name": TARGET}],
            "revokePolicy": "Automatic",
            **self.spec,
        }
        if admin:
            self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": "admin"}, "stringData": admin})
            spec["adminCredentials"] = {"name": "admin"}
        self.apps.create_namespaced_deployment(self.namespace, self._deployment())
        self._create("APIKeyRotation", PLURAL, NAME, spec)

    def _deployment(self) -> Body:
        """What is restarted."""
        labels = {"app": TARGET}
        container = {
            "name": "api",
            "image": "api:1",
            "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
        }
        template: Body = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        if self._keeper is not None:
            template = self._keeper.placed(template)
        spec = {"replicas": self.pods, "selector": {"matchLabels": labels}, "template": template}
        return {"metadata": {"name": TARGET}, "spec": spec}

    def _create(self, kind: str, plural: str, name: str, spec: Body) -> None:
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, body)

    # What there is.

    def resource(self) -> Body:
        """The APIKeyRotation."""
        found: Body = self.custom.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, NAME)
        return found

    def secret(self, name: str) -> dict[str, bytes]:
        """What a Secret holds; empty where there is none."""
        try:
            data = self.core.read_namespaced_secret(name, self.namespace).data or {}
        except kubernetes.client.ApiException as error:
            if error.status != 404:
                raise
            return {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    def state(self) -> RotationState:
        """What is remembered; its values are noted."""
        data = self.secret(STATE)
        self.values |= {value.decode() for key, value in data.items() if key.endswith((".token", ".password"))}
        return from_data(data) or RotationState()

    def published(self) -> KeyMaterial:
        """The key that consumers have."""
        return material_of(self.secret(SECRET))

    def generation(self) -> int:
        """How often the Deployment was changed."""
        return int(self.apps.read_namespaced_deployment(TARGET, self.namespace).metadata.generation)

    def templates(self) -> int:
        """How many pod templates the Deployment has had."""
        return len(self.apps.list_namespaced_replica_set(self.namespace).items)

    # What happens.

    def patch(self, body: Body) -> None:
        """Merge-patch the APIKeyRotation."""
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, NAME, body)

    def request(self) -> str:
        """Ask for a rotation."""
        self.requests += 1
        self.patch({"metadata": {"annotations": {ANNOTATION_ROTATE: str(self.requests)}}})
        return str(self.requests)

    def wipe_status(self) -> None:
        """As a backup restores it."""
        version = self.resource()["metadata"]["resourceVersion"]
        body = self.resource() | {"status": {}}
        body["metadata"]["resourceVersion"] = version
        self.custom.replace_namespaced_custom_object_status(GROUP, VERSION, self.namespace, PLURAL, NAME, body)
        assert not self.resource().get("status")

    def make_by_hand(self) -> None:
        """Have a person make a key."""
        if self.case.identity not in {"generated", "qdrantServer"}:  # there a key is what one Secret holds
            self.by_hand = asyncio.run(self.case.make_by_hand())

    def back_up(self) -> list[Any]:
        """Both Secrets, as they are now."""
        return [self.core.read_namespaced_secret(name, self.namespace) for name in (STATE, SECRET)]

    def restore(self, backup: list[Any]) -> None:
        """Put back what ``back_up()`` gave."""
        for secret in backup:
            secret.metadata.resource_version = secret.metadata.uid = secret.metadata.managed_fields = None
            self.core.replace_namespaced_secret(secret.metadata.name, self.namespace, secret)

    def forget(self) -> None:
        """Delete the state Secret."""
        with contextlib.suppress(kubernetes.client.ApiException):
            self.core.delete_namespaced_secret(STATE, self.namespace)

    def start(self, **order: Any) -> Operator:
        """Start an operator."""
        made = Order(
            str(self.cluster.kubeconfig), self.namespace, str(self.directory), constants=QUICK | self.constants, **order
        )
        return self.operators.start(made)

    def is_through(self, request: str | None) -> bool:
        """Whether the rotation that was asked for is over, and told."""
        state = self.state()
        if state.step is not Step.IDLE or state.current is None or state.current.material is None:
            return False
        if state.handled_request != request:
            return False
        status = self.resource().get("status") or {}
        return (status.get("step"), status.get("handledRequest")) == ("Idle", request)

    def finish(self, request: str | None, seconds: float = 120.0, *, settled: bool = False) -> None:
        """Let an operator that nobody kills come to the end of the rotation. It is killed when idle.

        ``settled``: and when it has found nothing to mend for a while. A key that is refused is shown several times.
        """
        operator = self.start()
        wait_for(lambda: self.is_through(request), seconds, self.told)
        if settled:
            time.sleep(1.0)
            wait_for(lambda: self.is_through(request) and self.is_ready() and self.is_usable(), seconds, self.told)
        operator.kill()

    def is_ready(self) -> bool:
        """Whether the status says that a valid key is published."""
        conditions = (self.resource().get("status") or {}).get("conditions") or ()
        return any((item["type"], item["status"]) == ("Ready", "True") for item in conditions)

    def is_usable(self) -> bool:
        """Whether the store takes the published key: until that is certain, the status does not say otherwise."""
        current = self.state().current
        return current is not None and current.material is not None and asyncio.run(self.case.use(current.material))

    def told(self) -> str:
        """Where it stands, for messages."""
        return f"{json.dumps(self.resource().get('status'))}\n{''.join(self.changes()[-30:])}\n{self.log()[-6000:]}"

    def changes(self) -> list[str]:
        """What the operators changed so far, a line each."""
        return (self.directory / "changes").read_text().splitlines(keepends=True)

    def log(self) -> str:
        """What they logged."""
        return (self.directory / "log").read_text()

    def check_nothing_shows(self) -> None:
        """No value of a key is in anything that others may read."""
        shown = self.shown()
        assert len(self.values) > 1
        for value in self.values:
            assert len(value) >= 8
            assert value not in shown, "a key shows"

    def shown(self) -> str:
        """Everything that others may read: log, changes, resource, events, and the Secrets but for their data."""
        objects = [
            self.core.list_namespaced_event(self.namespace),
            self.apps.list_namespaced_deployment(self.namespace),
            *(one.metadata for one in self.core.list_namespaced_secret(self.namespace).items),
        ]
        told = [json.dumps(self._api.sanitize_for_serialization(one)) for one in objects]
        return "\n".join([self.log(), *self.changes(), json.dumps(self.resource()), *told])


def kill_at_each_change(
    scene: Scene, request: str, between: Callable[[], None] | None = None, delay: float = 0.0
) -> int:
    """Bring a rotation to its end by operators that are killed at the first change that none before them was killed at.

    ``between`` is called after each kill. Returns the number of kills.
    """
    known: list[str] = []
    for kills in range(MOST_KILLS):
        if not kill_once(scene, request, kill_at_new=known, delay=delay):
            return kills
        last = scene.changes()[-1].split()[0]
        known += [line.split(maxsplit=2)[2].strip() for line in scene.changes() if line.split()[0] == last]
        if between is not None:
            between()
    raise AssertionError(scene.told())


def kill_once(scene: Scene, request: str, **order: Any) -> bool:
    """Start an operator that is to be killed. False when the rotation came to its end before that."""
    operator = scene.start(**order)
    through = False

    def is_over() -> bool:
        nonlocal through
        through = operator.alive and scene.is_through(request)
        return through or not operator.alive

    wait_for(is_over, 120, scene.told)
    operator.kill()
    return not through


def kill_in_exchange(scene: Scene, request: str, method: str, at: int) -> bool:
    """Kill an operator while the answer to an exchange with the store is on its way to it, which is then lost.

    ``at`` counts the exchanges of the first call of that method of the issuer, from 0. False when it has not so many,
    so that the answer that was lost is one of a later call, or none was.
    """
    operator, exchanges = scene.start(stop_before=(method, 1)), scene.case.exchanges
    wait_for(lambda: operator.state == "T", 60, scene.told)
    before = len(scene.changes())
    exchanges.lose(at)
    operator.resume()
    wait_for(lambda: exchanges.lost.is_set() or scene.is_through(request), 60, scene.told)
    operator.kill()
    exchanges.heal()
    return exchanges.lost.is_set() and not any(method in line for line in scene.changes()[before:])


def material_of(data: dict[str, bytes]) -> KeyMaterial:
    """The credential in a Secret."""
    return KeyMaterial(**{part: data[part].decode() for part in PARTS if part in data})
