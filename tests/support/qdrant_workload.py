"""A StatefulSet that runs Qdrant servers, on the API double: its pods read their keys from a Secret when they start."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.api_double import ApiDouble, Body
from tests.support.qdrant_binary import ServerReplicas, qdrant_replicas, service

from vectorwright.rotation.qdrant_server_secret import ANNOTATION

FIRST = "the-first-api-key-of-a-qdrant-of-tests"
READ_ONLY = "the-read-only-key-of-a-qdrant-of-tests"
NAMESPACE = "team-a"
FIELDS = ("api-key", "alt-api-key")


def identity(name: str, **changes: Any) -> dict[str, Any]:
    """The block of ``spec.identity`` for the server of that name."""
    return {"workload": {"kind": "StatefulSet", "name": name}, "secretName": f"{name}-keys", **changes}


def keys_in(secret: Body) -> dict[str, str]:
    """What a Secret holds, decoded."""
    return {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}


def environment_of(secret: Body) -> dict[str, str]:
    """What the containers get that read their keys from the Secret."""
    held = keys_in(secret)
    return service(held.get(FIELDS[0], ""), held.get(FIELDS[1], ""), READ_ONLY)


def secret_manifest(name: str, **fields: str) -> Body:
    """The Secret of the server of that name, with its first key and whatever else is in it."""
    held = {FIELDS[0]: FIRST, **{key.replace("_", "-"): value for key, value in fields.items()}}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in held.items()}
    return {"kind": "Secret", "metadata": {"name": f"{name}-keys", "namespace": NAMESPACE}, "data": data}


def pod_spec(name: str) -> Body:
    """A container that takes both keys from the Secret."""
    variables = {"API_KEY": FIELDS[0], "ALT_API_KEY": FIELDS[1]}
    return {
        "containers": [
            {
                "name": "qdrant",
                "image": "qdrant:1",
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": 6333}},
                "env": [
                    {
                        "name": f"QDRANT__SERVICE__{variable}",
                        "valueFrom": {"secretKeyRef": {"name": f"{name}-keys", "key": key, "optional": True}},
                    }
                    for variable, key in variables.items()
                ],
            }
        ]
    }


def workload_manifest(name: str, kind: str = "StatefulSet", **spec: Any) -> Body:
    """The workload of the server of that name."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(name)},
            **spec,
        },
    }


class PlayedWorkload:
    """Plays the controller and the pods of one workload: a changed template restarts the servers one after the other.

    ``hold`` stops it before it begins with the next one, while it is set.
    """

    def __init__(self, api: ApiDouble, name: str, replicas: ServerReplicas, kind: str = "StatefulSet") -> None:
        self.api, self.name, self.replicas, self.kind = api, name, replicas, kind
        self.hold = threading.Event()
        self._rolling: list[threading.Thread] = []
        self._turn = threading.Lock()
        self._template = self.body["spec"]["template"]
        self._tell(len(replicas.servers))
        api.listeners.append(self._heard)

    @property
    def body(self) -> Body:
        """The workload as it is."""
        return self.api.get_now(self.kind, NAMESPACE, self.name)

    @property
    def secret(self) -> Body:
        """The server's Secret as it is."""
        return self.api.get_now("Secret", NAMESPACE, f"{self.name}-keys")

    @property
    def keys(self) -> dict[str, str]:
        """What the Secret holds."""
        return keys_in(self.secret)

    @property
    def ids(self) -> Mapping[str, Any]:
        """Whose the keys are, as the annotation of the Secret tells."""
        told: Mapping[str, Any] = json.loads((self.secret["metadata"].get("annotations") or {}).get(ANNOTATION, "{}"))
        return told

    @property
    def restarts(self) -> int:
        """How often the whole server was restarted."""
        assert len(set(self.replicas.starts)) == 1, self.replicas.starts
        return self.replicas.starts[0] - 1

    def _heard(self, kind: str, _: str | None, body: Body) -> None:
        if kind != self.kind or body["metadata"]["name"] != self.name:
            return
        template = body["spec"]["template"]
        if template != self._template:
            self._template = copy.deepcopy(template)
            self._rolling.append(threading.Thread(target=self._roll, name=f"pods of {self.name}"))
            self._rolling[-1].start()

    def _roll(self) -> None:
        with self._turn:
            number = len(self.replicas.servers)
            self._tell(0)
            for done, at in enumerate(reversed(range(number)), 1):
                while self.hold.is_set():
                    threading.Event().wait(0.01)
                self.replicas.leave(at)
                self.replicas.restart(at)
                self._tell(done)

    def _tell(self, updated: int) -> None:
        number, body = len(self.replicas.servers), self.body
        status = {
            "observedGeneration": body["metadata"]["generation"],
            "replicas": number,
            "readyReplicas": number,
            "availableReplicas": number,
            "updatedReplicas": updated,
        }
        self.api.set_status(self.kind, NAMESPACE, self.name, status)

    def settle(self) -> None:
        """Wait until nothing is restarted any more."""
        self.hold.clear()
        for thread in self._rolling:
            thread.join(30)
            assert not thread.is_alive()


@contextlib.contextmanager
def played_server(
    api: ApiDouble, folder: Path, name: str = "qdrant", *, number: int = 2, **fields: str
) -> Iterator[PlayedWorkload]:
    """A server of that name: a Secret with its first key and ``fields``, a workload, and running replicas."""
    api.apply(secret_manifest(name, **fields))
    api.apply(workload_manifest(name, replicas=number))
    with qdrant_replicas(
        folder / name, lambda: environment_of(api.get_now("Secret", NAMESPACE, f"{name}-keys")), number
    ) as replicas:
        played = PlayedWorkload(api, name, replicas)
        try:
            yield played
        finally:
            played.settle()
