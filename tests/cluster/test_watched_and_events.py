"""Secrets that are watched, and events that are told, on a real API server.

What is checked: the first read waits for the first list, later ones come from memory; a changed, made or deleted object
is told in a second and only when its data changed; unused watches end; a missing right is explained and tried again;
values never reach a log. Events carry what ``kubectl describe`` shows, count instead of repeating, and never raise.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from deploy.devcluster import Cluster

from vectorwright.errors import NotFound, Retryable, Terminal
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import KubeConnection, StaticToken, load_connection
from vectorwright.kube.events import COUNT_PATCH_EVERY_S, REPEAT_AFTER_S, EventRecorder
from vectorwright.kube.resources import CONFIG_MAPS, EVENTS, NAMESPACES, SECRETS
from vectorwright.kube.watched import WatchedObjects
from vectorwright.observability.logs import redact

pytestmark = pytest.mark.cluster

RIGHT_TO_READ_ONE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: one-secret}
rules: [{apiGroups: [""], resources: [secrets], resourceNames: [key], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: one-secret}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: one-secret}
subjects: [{kind: ServiceAccount, name: weak}]
"""


@pytest.fixture
def connection(devcluster: Cluster) -> KubeConnection:
    return load_connection(devcluster.kubeconfig)


@pytest.fixture
async def client(connection: KubeConnection) -> AsyncIterator[KubeClient]:
    async with KubeClient(connection) as opened:
        yield opened


class Changes:
    """Collects what was told, and waits for it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self._more = asyncio.Event()

    def __call__(self, namespace: str, name: str) -> None:
        self.told.append((namespace, name))
        self._more.set()

    async def number(self, count: int) -> float:
        """Seconds until there were so many."""
        begun = time.monotonic()
        async with asyncio.timeout(10):
            while len(self.told) < count:
                await self._more.wait()
                self._more.clear()
        return time.monotonic() - begun


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def secrets(client: KubeClient, changes: Changes) -> AsyncIterator[WatchedObjects]:
    watched = WatchedObjects(client, SECRETS, changes)
    yield watched
    await watched.close()


def secret(name: str, **values: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"metadata": {"name": name}, "data": encoded}


async def test_a_secret_is_read_once_and_then_followed(
    client: KubeClient, secrets: WatchedObjects, changes: Changes, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await client.create(SECRETS, secret("key", token="first-value"), namespace)
    assert await secrets.get(namespace, "key") == {"token": b"first-value"}
    version = secrets.resource_version(namespace, "key")
    await client.patch(SECRETS, "key", namespace, {"stringData": {"token": "second-value"}})
    await changes.number(1)
    assert changes.told == [(namespace, "key")]
    assert await secrets.get(namespace, "key") == {"token": b"second-value"}
    assert secrets.resource_version(namespace, "key") != version
    await client.patch(SECRETS, "key", namespace, {"metadata": {"labels": {"a": "b"}}})
    await client.delete(SECRETS, "key", namespace)
    await changes.number(2)
    assert await secrets.get(namespace, "key") is None
    assert secrets.resource_version(namespace, "key") is None
    await client.create(SECRETS, secret("key", token="third-value"), namespace)
    await changes.number(3)
    assert await secrets.get(namespace, "key") == {"token": b"third-value"}
    # The label alone changed no data, and was not told.
    assert len(changes.told) == 3
    assert not [word for word in ("first-value", "second-value", "third-value") if word in caplog.text]
    assert redact("a third-value") == "a ***"


async def test_the_answer_is_a_copy_and_readers_share_a_watch(
    client: KubeClient, secrets: WatchedObjects, namespace: str
) -> None:
    await client.create(SECRETS, secret("key", token="value"), namespace)
    answers = await asyncio.gather(*(secrets.get(namespace, "key") for _ in range(20)))
    assert all(answer == {"token": b"value"} for answer in answers)
    assert len(secrets) == 1
    assert answers[0] is not None
    answers[0]["token"] = b"changed"
    assert await secrets.get(namespace, "key") == {"token": b"value"}


async def test_what_does_not_exist_is_none_and_its_arrival_is_told(
    client: KubeClient, secrets: WatchedObjects, changes: Changes, namespace: str
) -> None:
    assert await secrets.get(namespace, "late") is None
    await client.create(SECRETS, secret("late", token="value"), namespace)
    await changes.number(1)
    assert await secrets.get(namespace, "late") == {"token": b"value"}


async def test_watches_that_nobody_needs_end(
    client: KubeClient, secrets: WatchedObjects, changes: Changes, namespace: str
) -> None:
    for name in ("kept", "dropped"):
        await client.create(SECRETS, secret(name, token="value"), namespace)
        await secrets.get(namespace, name)
    secrets.release_unused({(namespace, "kept")})
    assert len(secrets) == 1
    await client.patch(SECRETS, "dropped", namespace, {"stringData": {"token": "other"}})
    await client.patch(SECRETS, "kept", namespace, {"stringData": {"token": "other"}})
    await changes.number(1)
    await asyncio.sleep(0.3)
    assert changes.told == [(namespace, "kept")]
    assert await secrets.get(namespace, "dropped") == {"token": b"other"}


async def test_config_maps_come_with_texts_and_bytes(client: KubeClient, changes: Changes, namespace: str) -> None:
    body = {"metadata": {"name": "m"}, "data": {"a": "ä"}, "binaryData": {"b": base64.b64encode(b"\x00\xff").decode()}}
    await client.create(CONFIG_MAPS, body, namespace)
    watched = WatchedObjects(client, CONFIG_MAPS, changes)
    assert await watched.get(namespace, "m") == {"a": "ä".encode(), "b": b"\x00\xff"}
    await watched.close()


async def test_a_missing_right_is_explained_and_the_right_to_one_name_is_enough(
    devcluster: Cluster, connection: KubeConnection, client: KubeClient, changes: Changes, namespace: str
) -> None:
    await client.create(SECRETS, secret("key", token="value"), namespace)
    devcluster.kubectl_run("create", "serviceaccount", "weak", "-n", namespace)
    token = devcluster.kubectl_run("create", "token", "weak", "-n", namespace).strip()
    weak = dataclasses.replace(connection, token=StaticToken(token), client_certificate=None, client_key=None)
    async with KubeClient(weak) as limited:
        watched = WatchedObjects(limited, SECRETS, changes)
        with pytest.raises(Terminal) as refused:
            await watched.get(namespace, "key")
        assert refused.value.reason == "SecretForbidden"
        assert f"grant its ServiceAccount get, list and watch on secrets in namespace {namespace}" in str(refused.value)
        devcluster.kubectl_run("apply", "-n", namespace, "-f", "-", input=RIGHT_TO_READ_ONE)
        data = None
        for _ in range(50):
            try:
                data = await watched.get(namespace, "key")
                break
            except Terminal:
                await asyncio.sleep(0.1)
        assert data == {"token": b"value"}
        with pytest.raises(Terminal, match="may not read Secret"):
            await watched.get(namespace, "other")
        await watched.close()


async def test_an_api_server_that_is_away_is_waited_for_and_then_told(
    changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectorwright.kube.watched.FIRST_LIST_S", 0.3)
    async with KubeClient(KubeConnection(server="http://127.0.0.1:1")) as client:
        watched = WatchedObjects(client, SECRETS, changes)
        with pytest.raises(Retryable) as away:
            await watched.get("ns", "key")
        assert away.value.reason == "SecretUnavailable"
        # Whoever waits while its watch is released hears of it at once.
        monkeypatch.setattr("vectorwright.kube.watched.FIRST_LIST_S", 60.0)
        waiting = asyncio.ensure_future(watched.get("ns", "key"))
        await asyncio.sleep(0.05)
        watched.release_unused(set())
        with pytest.raises(Retryable):
            await asyncio.wait_for(waiting, 10)
        await watched.close()


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def events_of(client: KubeClient, namespace: str, count: int) -> list[dict[str, Any]]:
    for _ in range(100):
        found = await client.list(EVENTS, namespace, field_selector="involvedObject.name=one")
        if len(found) >= count:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(found)} events instead of {count}")


async def test_the_same_words_are_one_event_that_counts(client: KubeClient, namespace: str) -> None:
    clock = Time()
    recorder = EventRecorder(client, "vectorwright-operator", clock=clock)
    made = await client.create(CONFIG_MAPS, {"metadata": {"name": "one"}}, namespace)
    for _ in range(5):
        recorder.warning(made, "StoreUnreachable", "no answer from the store")
        clock.now += COUNT_PATCH_EVERY_S / 2
    recorder.normal(made, "Created", "the index was created")
    await recorder.close()
    found = {event["reason"]: event for event in await events_of(client, namespace, 2)}
    assert len(found) == 2
    warning = found["StoreUnreachable"]
    assert warning["type"] == "Warning"
    assert warning["message"] == "no answer from the store"
    assert warning["count"] == 5
    assert warning["involvedObject"]["uid"] == made["metadata"]["uid"]
    assert warning["involvedObject"]["kind"] == "ConfigMap"
    assert warning["source"] == {"component": "vectorwright-operator"}
    assert found["Created"]["type"] == "Normal"
    assert found["Created"]["count"] == 1


async def test_after_ten_minutes_the_words_are_told_anew(client: KubeClient, namespace: str) -> None:
    clock = Time()
    recorder = EventRecorder(client, clock=clock)
    made = await client.create(CONFIG_MAPS, {"metadata": {"name": "one"}}, namespace)
    recorder.warning(made, "R", "m")
    clock.now += REPEAT_AFTER_S + 1
    recorder.warning(made, "R", "m")
    await recorder.close()
    assert len(await events_of(client, namespace, 2)) == 2


async def test_messages_are_cut_and_free_of_credentials(client: KubeClient, namespace: str) -> None:
    recorder = EventRecorder(client)
    made = await client.create(CONFIG_MAPS, {"metadata": {"name": "one"}}, namespace)
    recorder.warning(made, "R", "https://user:hush@host " + "x" * 5000)
    await recorder.close()
    (event,) = await events_of(client, namespace, 1)
    assert len(event["message"]) == 1024
    assert "hush" not in event["message"]


async def test_an_event_that_was_deleted_is_told_anew(client: KubeClient, namespace: str) -> None:
    clock = Time()
    recorder = EventRecorder(client, clock=clock)
    made = await client.create(CONFIG_MAPS, {"metadata": {"name": "one"}}, namespace)
    recorder.warning(made, "R", "m")
    (event,) = await events_of(client, namespace, 1)
    await client.delete(EVENTS, event["metadata"]["name"], namespace)
    clock.now += COUNT_PATCH_EVERY_S
    recorder.warning(made, "R", "m")
    await recorder.close()
    recorder.warning(made, "R", "m")
    await recorder.close()
    assert len(await events_of(client, namespace, 1)) == 1


async def test_recording_never_raises(client: KubeClient, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vectorwright.kube.events")
    recorder = EventRecorder(client)
    recorder.warning({}, "R", "an object without a name")
    gone = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": "no-such-namespace"}}
    recorder.warning(gone, "R", "m")
    await recorder.close()
    assert "an event was not recorded" in caplog.text
    nowhere = EventRecorder(KubeClient(KubeConnection(server="http://127.0.0.1:1")))
    for number in range(3000):
        nowhere.warning(gone, "R", f"m{number}")
    assert len(nowhere._queue) <= 1000
    assert len(nowhere._told) <= 2048
    await nowhere.close()
    await nowhere._client.close()


async def test_a_cluster_scoped_objects_events_live_in_default(client: KubeClient, namespace: str) -> None:
    recorder = EventRecorder(client)
    found = await client.get(NAMESPACES, namespace)
    recorder.normal(found, "Seen", f"seen {namespace}")
    await recorder.close()
    wanted: Callable[[dict[str, Any]], bool] = lambda event: event["message"] == f"seen {namespace}"  # noqa: E731
    assert len(list(filter(wanted, await client.list(EVENTS, "default")))) == 1


async def test_a_missing_object_is_not_found(client: KubeClient, namespace: str) -> None:
    with pytest.raises(NotFound):
        await client.patch(EVENTS, "absent", namespace, {"count": 2})
