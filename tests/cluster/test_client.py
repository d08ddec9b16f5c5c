"""The Kubernetes client against a real API server.

What is checked: objects made, read, changed, deleted; each refusal as the right error with the API server's words;
lists in pages; watches that survive a killed API server and old versions; the guard before each write; tokens re-read.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from deploy.devcluster import Cluster

from vectorwright.errors import Conflict, NotFound, Retryable, Terminal
from vectorwright.kube.client import CALL_TIMEOUT_S, KubeClient, WriteCall
from vectorwright.kube.connection import FileToken, KubeConnection, StaticToken, load_connection
from vectorwright.kube.resources import CONFIG_MAPS, JOBS, NAMESPACES, PODS, SECRETS
from vectorwright.kube.session import _Connector, open_session

pytestmark = pytest.mark.cluster


@pytest.fixture
def connection(devcluster: Cluster) -> KubeConnection:
    return load_connection(devcluster.kubeconfig)


@pytest.fixture
async def client(connection: KubeConnection) -> AsyncIterator[KubeClient]:
    async with KubeClient(connection) as opened:
        yield opened


def service_account_token(devcluster: Cluster, namespace: str, name: str = "weak") -> str:
    devcluster.kubectl_run("create", "serviceaccount", name, "-n", namespace)
    return devcluster.kubectl_run("create", "token", name, "-n", namespace).strip()


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"name": name}, "data": data}


async def test_an_object_is_created_read_patched_replaced_and_deleted(client: KubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    assert made["metadata"]["uid"]
    patched = await client.patch(CONFIG_MAPS, "one", namespace, {"data": {"b": "2"}})
    assert patched["data"] == {"a": "1", "b": "2"}
    by_json = await client.patch(
        CONFIG_MAPS, "one", namespace, [{"op": "remove", "path": "/data/a"}], content_type="json"
    )
    assert by_json["data"] == {"b": "2"}
    by_json["data"] = {"c": "3"}
    await client.replace(CONFIG_MAPS, "one", namespace, by_json)
    assert (await client.get(CONFIG_MAPS, "one", namespace))["data"] == {"c": "3"}
    await client.delete(CONFIG_MAPS, "one", namespace)
    with pytest.raises(NotFound, match=f"get configmaps/one in {namespace}: .*not found"):
        await client.get(CONFIG_MAPS, "one", namespace)


async def test_server_side_apply_owns_its_fields(client: KubeClient, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1"}}
    await client.patch(CONFIG_MAPS, "one", namespace, body, content_type="apply", field_manager="first")
    body["data"] = {"a": "2"}
    with pytest.raises(Conflict, match="first"):
        await client.patch(CONFIG_MAPS, "one", namespace, body, content_type="apply", field_manager="second")
    taken = await client.patch(
        CONFIG_MAPS, "one", namespace, body, content_type="apply", field_manager="second", force=True
    )
    assert taken["data"] == {"a": "2"}


async def test_the_two_conflicts_are_told_apart(client: KubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one"), namespace)
    with pytest.raises(Conflict) as exists:
        await client.create(CONFIG_MAPS, config_map("one"), namespace)
    assert exists.value.reason == "AlreadyExists"
    await client.patch(CONFIG_MAPS, "one", namespace, {"data": {"a": "1"}})
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
    with pytest.raises(Conflict) as changed:
        await client.patch(CONFIG_MAPS, "one", namespace, stale)
    assert changed.value.reason == "Conflict"


async def test_a_delete_with_another_uid_is_refused(client: KubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, config_map("one"), namespace)
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, "one", namespace, uid="00000000-0000-0000-0000-000000000000")
    await client.delete(CONFIG_MAPS, "one", namespace, uid=made["metadata"]["uid"])


async def test_an_invalid_object_is_terminal_with_the_servers_words(client: KubeClient, namespace: str) -> None:
    with pytest.raises(Terminal, match=r"spec\.template") as refused:
        await client.create(JOBS, {"metadata": {"name": "one"}, "spec": {}}, namespace)
    assert refused.value.reason == "Invalid"


async def test_forbidden_names_verb_and_resource(
    devcluster: Cluster, connection: KubeConnection, namespace: str
) -> None:
    token = service_account_token(devcluster, namespace)
    weak = dataclasses.replace(connection, token=StaticToken(token), client_certificate=None, client_key=None)
    async with KubeClient(weak) as client:
        with pytest.raises(Terminal, match=r'cannot list resource "secrets"') as refused:
            await client.list(SECRETS, namespace)
        assert refused.value.reason == "Forbidden"
        with pytest.raises(Terminal, match=r'cannot watch resource "pods"'):
            async with aclosing(client.watch(PODS, namespace, resource_version="0")) as events:
                await anext(events)


async def test_refused_credentials_are_retryable_and_not_shown(connection: KubeConnection) -> None:
    wrong = dataclasses.replace(
        connection, token=StaticToken("wrong-token-value"), client_certificate=None, client_key=None
    )
    async with KubeClient(wrong) as client:
        with pytest.raises(Retryable) as refused:
            await client.get(NAMESPACES, "default")
    assert refused.value.reason == "Unauthorized"
    assert "wrong-token-value" not in refused.value.message


async def test_a_namespace_that_is_being_deleted_says_so(client: KubeClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, {"metadata": {"name": "held", "finalizers": ["vectorwright.dev/test"]}}, namespace)
    await client.delete(NAMESPACES, namespace)
    try:
        with pytest.raises(Terminal) as refused:
            await client.create(CONFIG_MAPS, config_map("late"), namespace)
        assert refused.value.reason == "NamespaceTerminating"
    finally:
        await client.patch(CONFIG_MAPS, "held", namespace, {"metadata": {"finalizers": None}})


async def test_lists_come_in_pages_and_selectors_narrow_them(client: KubeClient, namespace: str) -> None:
    for number in range(7):
        body = {"metadata": {"name": f"m{number}", "labels": {"even": str(number % 2 == 0).lower()}}}
        await client.create(CONFIG_MAPS, body, namespace)
    found = await client.list_versioned(CONFIG_MAPS, namespace, page=3)
    ours = [item for item in found.items if item["metadata"]["name"].startswith("m")]
    assert len(ours) == 7
    assert {item["kind"] for item in ours} == {"ConfigMap"}
    assert found.resource_version
    even = await client.list(CONFIG_MAPS, namespace, label_selector="even=true")
    assert [item["metadata"]["name"] for item in even] == ["m0", "m2", "m4", "m6"]
    one = await client.list(CONFIG_MAPS, namespace, field_selector="metadata.name=m5")
    assert [item["metadata"]["name"] for item in one] == ["m5"]


async def test_the_guard_is_asked_before_each_write_and_never_for_reads(
    connection: KubeConnection, namespace: str
) -> None:
    asked: list[WriteCall] = []

    def refuse(call: WriteCall) -> float | None:
        asked.append(call)
        raise Terminal("read-only", reason="ReadOnly")

    async with KubeClient(connection, guard=refuse) as client:
        await client.list(CONFIG_MAPS, namespace)
        for write in (
            client.create(CONFIG_MAPS, config_map("one"), namespace),
            client.patch(CONFIG_MAPS, "one", namespace, {}, subresource="status"),
            client.replace(CONFIG_MAPS, "one", namespace, config_map("one")),
            client.delete(CONFIG_MAPS, "one", namespace),
        ):
            with pytest.raises(Terminal, match="read-only"):
                await write
        names = {item["metadata"]["name"] for item in await client.list(CONFIG_MAPS, namespace)}
    assert [call.verb for call in asked] == ["create", "patch", "replace", "delete"]
    assert asked[1].subresource == "status"
    assert "one" not in names


async def test_a_write_ends_inside_the_time_that_the_guard_leaves() -> None:
    gone = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    started = asyncio.get_running_loop().time()
    async with server, KubeClient(KubeConnection(server=f"http://127.0.0.1:{port}"), guard=lambda _: 0.3) as client:
        with pytest.raises(Retryable) as late:
            await client.create(CONFIG_MAPS, config_map("one"), "default")
        await asyncio.wait_for(gone.wait(), 5)
    assert late.value.reason == "Timeout"
    assert asyncio.get_running_loop().time() - started < CALL_TIMEOUT_S / 2


async def test_a_closed_client_leaves_no_connection_of_a_request_that_was_cancelled(connection: KubeConnection) -> None:
    for turn in range(80):
        async with KubeClient(connection) as client:
            connector = cast("_Connector", client.session.connector)
            asking = asyncio.ensure_future(client.list(NAMESPACES))
            await asyncio.sleep(turn * 0.0005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        assert [one for one in connector._sockets if one.fileno() >= 0] == []


async def test_an_unreachable_server_is_retryable() -> None:
    async with KubeClient(KubeConnection(server="https://127.0.0.1:1")) as client:
        with pytest.raises(Retryable, match="cannot be reached"):
            await client.get(NAMESPACES, "default")


async def test_an_unknown_authority_is_named_as_a_tls_fault(connection: KubeConnection) -> None:
    async with KubeClient(dataclasses.replace(connection, ca=None, insecure=False)) as client:
        with pytest.raises(Retryable) as refused:
            await client.get(NAMESPACES, "default")
    assert refused.value.reason == "Tls"


async def test_tls_server_name_is_what_the_certificate_is_checked_against(connection: KubeConnection) -> None:
    async with KubeClient(dataclasses.replace(connection, tls_server_name="kubernetes.default.svc")) as client:
        await client.get(NAMESPACES, "default")
    async with KubeClient(dataclasses.replace(connection, tls_server_name="other.example")) as client:
        with pytest.raises(Retryable) as refused:
            await client.get(NAMESPACES, "default")
    assert refused.value.reason == "Tls"


async def test_a_rotated_token_file_is_used_at_once_when_the_old_token_is_refused(
    devcluster: Cluster, connection: KubeConnection, namespace: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("expired-token\n")
    rotated = dataclasses.replace(connection, token=FileToken(path), client_certificate=None, client_key=None)
    async with KubeClient(rotated) as client:
        with pytest.raises(Retryable):
            await client.get(CONFIG_MAPS, "one", namespace)
        path.write_text(service_account_token(devcluster, namespace))
        with pytest.raises(Terminal, match="system:serviceaccount"):
            await client.get(CONFIG_MAPS, "one", namespace)


async def test_a_session_for_kopf_passes_the_same_guard(connection: KubeConnection, namespace: str) -> None:
    def refuse(method: str) -> None:
        raise Terminal(f"{method} refused")

    async with open_session(connection, guard=refuse) as session:
        url = f"{connection.server}/api/v1/namespaces/{namespace}/configmaps"
        async with session.get(url) as response:
            assert response.status == 200
        with pytest.raises(Terminal, match="POST refused"):
            await session.post(url, json={})


async def test_a_watch_lists_first_and_then_tells_each_change(client: KubeClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one"), namespace)
    async with aclosing(client.watch(CONFIG_MAPS, namespace, name="one")) as events:
        kind, listed = await anext(events)
        assert (kind, [item["metadata"]["name"] for item in listed["items"]]) == ("LISTED", ["one"])
        await client.create(CONFIG_MAPS, config_map("other"), namespace)
        # Longer than a line of 64 KiB.
        await client.patch(CONFIG_MAPS, "one", namespace, {"data": {"big": "x" * 500_000}})
        kind, item = await asyncio.wait_for(anext(events), 30)
        assert (kind, len(item["data"]["big"])) == ("MODIFIED", 500_000)
        await client.delete(CONFIG_MAPS, "one", namespace)
        kind, item = await asyncio.wait_for(anext(events), 30)
        assert (kind, item["metadata"]["name"]) == ("DELETED", "one")


async def test_a_watch_from_a_version_that_is_gone_lists_again(client: KubeClient, namespace: str) -> None:
    async with aclosing(client.watch(CONFIG_MAPS, namespace, resource_version="1")) as events:
        kind, _ = await asyncio.wait_for(anext(events), 30)
    # The API server either still holds version 1 (a fresh cluster) and tells what was added since, or lists.
    assert kind in {"LISTED", "ADDED"}


async def test_a_watch_survives_a_killed_api_server(devcluster: Cluster, client: KubeClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map("one", a="1"), namespace)
    async with aclosing(client.watch(CONFIG_MAPS, namespace, name="one")) as events:
        assert (await anext(events))[0] == "LISTED"
        pending = asyncio.ensure_future(anext(events))
        await asyncio.to_thread(devcluster.restart_apiserver)
        for _ in range(100):
            try:
                await client.patch(CONFIG_MAPS, "one", namespace, {"data": {"a": "2"}})
                break
            except (Retryable, Terminal):
                # Just started, it may know neither its namespaces nor its rules.
                await asyncio.sleep(0.2)
        async with asyncio.timeout(60):
            kind, item = await pending
            while (item["items"][0] if kind == "LISTED" else item)["data"] != {"a": "2"}:
                kind, item = await anext(events)


async def test_closing_a_watch_leaves_no_connection(client: KubeClient, namespace: str) -> None:
    async with aclosing(client.watch(CONFIG_MAPS, namespace)) as events:
        await anext(events)
        follower = asyncio.ensure_future(anext(events))
        for _ in range(250):
            if _busy(client.session):
                break
            await asyncio.sleep(0.02)
        assert _busy(client.session) == 1
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    assert _busy(client.session) == 0


def _busy(session: aiohttp.ClientSession) -> int:
    assert session.connector is not None
    return len(session.connector._acquired)
