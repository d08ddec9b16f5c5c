"""The Kubernetes client against faults that a real API server does not show on demand."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from tests.support.scripted_http import answer, refusal, scripted

from vectorwright.errors import Retryable, Terminal
from vectorwright.kube.client import KubeClient
from vectorwright.kube.connection import KubeConnection
from vectorwright.kube.resources import CONFIG_MAPS, LEASES, NAMESPACES, VECTOR_INDEXES


def listed(version: str, *names: str, token: str = "") -> bytes:
    items = [{"metadata": {"name": name}} for name in names]
    return answer(200, {"metadata": {"resourceVersion": version, "continue": token}, "items": items})


def event(kind: str, name: str, version: str) -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}}}).encode()


def stream(*lines: bytes) -> bytes:
    """A watch's answer that ends in order."""
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"".join(line + b"\n" for line in lines)


def test_paths() -> None:
    assert VECTOR_INDEXES.path("team", "docs", "status") == (
        "/apis/vectorwright.dev/v1alpha1/namespaces/team/vectorindexes/docs/status"
    )
    assert CONFIG_MAPS.path() == "/api/v1/configmaps"
    assert NAMESPACES.path("ignored", "default") == "/api/v1/namespaces/default"
    assert LEASES.path("a/../b", "c?d") == "/apis/coordination.k8s.io/v1/namespaces/a%2F..%2Fb/leases/c%3Fd"
    with pytest.raises(ValueError, match="lives in a namespace"):
        VECTOR_INDEXES.path(None, "docs")


async def test_a_busy_server_says_when_to_come_back() -> None:
    busy = answer(429, {"kind": "Status", "reason": "TooManyRequests"}, "Retry-After: 4")
    async with scripted(lambda _n, _l: busy) as (url, _), KubeClient(KubeConnection(server=url)) as client:
        with pytest.raises(Retryable) as refused:
            await client.get(NAMESPACES, "default")
    assert refused.value.after == 4


@pytest.mark.parametrize("raw", [answer(200, b"<html>"), answer(200, b""), answer(302, b"", "Location: http://evil/")])
async def test_an_answer_that_is_no_object_is_not_believed(raw: bytes) -> None:
    async with scripted(lambda _n, _l: raw) as (url, seen), KubeClient(KubeConnection(server=url)) as client:
        with pytest.raises((Retryable, Terminal)):
            await client.get(NAMESPACES, "default")
        assert len(seen) == 1


async def test_a_list_begins_anew_when_its_pages_expire() -> None:
    def script(number: int, _: str) -> bytes:
        return [listed("5", "a", token="t1"), refusal(410, "Expired"), listed("9", "b", token="t2"), listed("9", "c")][
            number - 1
        ]

    async with scripted(script) as (url, seen), KubeClient(KubeConnection(server=url)) as client:
        found = await client.list_versioned(CONFIG_MAPS, "team")
    assert [item["metadata"]["name"] for item in found.items] == ["b", "c"]
    assert found.resource_version == "9"
    assert "continue" not in seen[2]


async def test_a_watch_whose_version_expired_lists_again() -> None:
    gone = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}).encode()

    def script(number: int, _: str) -> bytes:
        return [
            listed("5", "a"),
            stream(event("ADDED", "b", "6"), gone),
            listed("20", "b", "c"),
            stream(event("DELETED", "b", "21")),
        ][number - 1]

    async with scripted(script) as (url, seen), KubeClient(KubeConnection(server=url)) as client:
        told: list[tuple[str, object]] = []
        async with aclosing(client.watch(CONFIG_MAPS, "team")) as events:
            async for kind, item in events:
                names = [i["metadata"]["name"] for i in item["items"]] if kind == "LISTED" else item["metadata"]["name"]
                told.append((kind, names))
                if kind == "DELETED":
                    break
    assert told == [("LISTED", ["a"]), ("ADDED", "b"), ("LISTED", ["b", "c"]), ("DELETED", "b")]
    assert "resourceVersion=5" in seen[1]
    assert "resourceVersion=20" in seen[3]


async def test_a_watch_goes_on_from_its_last_bookmark_over_broken_connections() -> None:
    def script(number: int, _: str) -> bytes | None:
        return [
            listed("5"),
            stream(event("BOOKMARK", "", "40")),
            None,
            refusal(503, "ServiceUnavailable"),
            stream(b'{"type": "ADD'),
            stream(event("ADDED", "late", "41")),
        ][number - 1]

    async with (
        scripted(script) as (url, seen),
        KubeClient(KubeConnection(server=url)) as client,
        aclosing(client.watch(CONFIG_MAPS, "team", name="late")) as events,
    ):
        assert (await anext(events))[0] == "LISTED"
        kind, item = await asyncio.wait_for(anext(events), 30)
    assert (kind, item["metadata"]["name"], item["kind"]) == ("ADDED", "late", "ConfigMap")
    assert all("resourceVersion=40" in line and "fieldSelector=metadata.name" in line for line in seen[2:])


async def test_a_watch_that_is_forbidden_ends_with_the_servers_words() -> None:
    forbidden = refusal(403, "Forbidden")
    async with scripted(lambda _n, _l: forbidden) as (url, _), KubeClient(KubeConnection(server=url)) as client:
        with pytest.raises(Terminal, match="list configmaps in team: Forbidden"):
            async with aclosing(client.watch(CONFIG_MAPS, "team")) as events:
                await anext(events)
