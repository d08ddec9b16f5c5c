"""Hostile requests to a store server: sizes, shapes, depths, names, folders.

Nothing of them passes, and the server lives on.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from tests.support.store_server import StoreServer
from tests.support.store_server_client import DIMENSION, batch, connect

from vectorwright.errors import BatchTooLarge, NotFound, Terminal
from vectorwright.stores.base import IndexDefinition
from vectorwright.stores.filters import Eq
from vectorwright.stores.server.application import MAX_BODY
from vectorwright.stores.wire import encode_batch, encode_frame

pytestmark = pytest.mark.server


@pytest.fixture
def memory(store_server: StoreServer) -> StoreServer:
    """The shared server with an index ``docs`` in memory."""
    store_server.empty_memory()
    body = {"name": "docs", "dimension": DIMENSION, "metric": "cosine"}
    store_server.request("POST", "/v1/memory/indexes", json=body).raise_for_status()
    return store_server


def upsert(server: StoreServer, body: bytes, name: str = "docs") -> httpx.Response:
    return server.request("POST", f"/v1/memory/indexes/{name}/upsert", content=body)


GOOD = encode_batch(batch("a", "b"))


def _header(**changes: Any) -> bytes:
    header = {"ids": ["a"], "metadata": [{}], "texts": [None], "shape": [1, DIMENSION], **changes}
    text = orjson.dumps(header)
    return struct.pack("<4sI", b"VWF1", len(text)) + text + np.ones(DIMENSION, "<f4").tobytes()


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "a piece of a prefix": GOOD[:5],
    "cut off": GOOD[:-1],
    "too long": GOOD + b"\0",
    "another magic": b"XXXX" + GOOD[4:],
    "a header longer than the frame": struct.pack("<4sI", b"VWF1", 2**32 - 1) + GOOD[8:],
    "no JSON": struct.pack("<4sI", b"VWF1", 4) + b"{{{{",
    "deep JSON": struct.pack("<4sI", b"VWF1", 200_000) + b"[" * 200_000,
    "no object": struct.pack("<4sI", b"VWF1", 2) + b"[]",
    "a huge shape": _header(shape=[2**31 - 1, 2**31 - 1]),
    "a negative shape": _header(shape=[-1, -DIMENSION]),
    "a shape of another rank": _header(shape=[DIMENSION]),
    "a shape of floats": _header(shape=[1.0, 8.0]),
    "a shape of booleans": _header(shape=[True, DIMENSION]),
    "more ids": _header(ids=["a", "b"]),
    "more metadata": _header(metadata=[{}, {}]),
    "ids of another type": _header(ids=[1]),
    "metadata of another type": _header(metadata=["x"]),
    "texts of another type": _header(texts=[1]),
    "no ids": _header(ids=None),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_frame_of_another_form_is_refused(memory: StoreServer, case: str) -> None:
    answer = upsert(memory, HOSTILE[case])
    assert (answer.status_code, answer.json()["kind"]) == (400, "Terminal")
    assert upsert(memory, GOOD).status_code == 200


REJECTED: dict[str, bytes] = {
    "another dimension": _header(shape=[2, DIMENSION // 2], ids=["a", "b"], metadata=[{}, {}], texts=[None, None]),
    "NaN": encode_batch(replace(batch("a"), vectors=np.full((1, DIMENSION), np.nan, np.float32))),
    "infinity": encode_batch(replace(batch("a"), vectors=np.full((1, DIMENSION), np.inf, np.float32))),
    "a zero vector": encode_batch(replace(batch("a"), vectors=np.zeros((1, DIMENSION), np.float32))),
    "an empty id": _header(ids=[""]),
    "a long id": _header(ids=["x" * 2000]),
    "one id twice": encode_batch(batch("a", "a")),
    "nested metadata": _header(metadata=[{"a": {"b": 1}}]),
    "a list of numbers": _header(metadata=[{"a": [1, 2]}]),
    "null": _header(metadata=[{"a": None}]),
    "a field without a name": _header(metadata=[{"": 1}]),
    "a number of more than 64 bits": _header(metadata=[{"a": 2**64 - 1}]),
    "metadata beyond the limit": _header(metadata=[{"a": "x" * 2**20}]),
}


@pytest.mark.parametrize("case", list(REJECTED))
def test_records_that_cannot_be_are_rejected(memory: StoreServer, case: str) -> None:
    answer = upsert(memory, REJECTED[case])
    assert (answer.status_code, answer.json()["kind"]) == (422, "BatchRejected")
    assert "docs" in answer.json()["message"]
    assert memory.request("POST", "/v1/memory/indexes/docs/count", json={}).json() == {"count": 0}


async def test_a_write_that_is_too_large_is_told_apart(memory: StoreServer) -> None:
    answer = upsert(memory, b"\0" * (MAX_BODY + 1))
    assert (answer.status_code, answer.json()["kind"]) == (413, "BatchTooLarge")
    chunks = (b"\0" * 2**20 for _ in range(MAX_BODY // 2**20 + 1))  # without a length that could be looked at first
    path = f"{memory.url}/v1/memory/indexes/docs/upsert"
    headers = {"authorization": f"Bearer {memory.token}"}
    answer = await asyncio.to_thread(
        lambda: httpx.post(path, headers=headers, content=chunks, trust_env=False, timeout=30)
    )
    assert (answer.status_code, answer.json()["kind"]) == (413, "BatchTooLarge")
    async with connect(memory, "memory") as store:
        with pytest.raises(BatchTooLarge, match="33554432"):
            await store.upsert("docs", replace(batch("a", "b", "c"), texts=["x" * 15_000_000] * 3))
        with pytest.raises(BatchTooLarge):
            await store.upsert("docs", batch(*(f"{number}" for number in range(10_001))))
        with pytest.raises(BatchTooLarge, match=str(MAX_BODY)):
            await store.upsert("docs", replace(batch(*"abcdef"), texts=["\x01" * 15_000_000] * 6))


@pytest.mark.parametrize(
    "where",
    [
        [],
        ["eq"],
        ["eq", "a"],
        ["eq", 1, 1],
        ["eq", "a", None],
        ["eq", "a", ["b"]],
        ["range", "a", None, None, None, None],
        ["range", "a", True, None, None, None],
        ["in", "a", ["x"] * 10_001],
        ["and", 1],
        ["unknown", "a"],
        "eq",
        ["and", *([["exists", "a"]] * 5000)],
        orjson.loads(b'["not",' * 33 + b'["exists","a"]' + b"]" * 33),
    ],
)
def test_filters_without_sense_are_refused(memory: StoreServer, where: object) -> None:
    for action in ("count", "scroll", "delete"):
        answer = memory.request("POST", f"/v1/memory/indexes/docs/{action}", json={"where": where, "page": 10})
        assert (answer.status_code, answer.json()["kind"]) == (400, "Terminal")


@pytest.mark.parametrize(
    "folder",
    ["../x", "a/../b", "/etc", "a//b", ".hidden", "a/.b", "x.lance", "a\0", "a/" * 9 + "a", "x" * 300, "a\n", "%2e%2e"],
)
def test_folders_do_not_lead_out_of_the_directory(store_server: StoreServer, folder: str) -> None:
    before = sorted(store_server.base.rglob("*"))
    answer = store_server.request("GET", "/v1/lance/indexes", params={"folder": folder})
    assert (answer.status_code, answer.json()["reason"]) == (400, "InvalidFolder")
    assert sorted(store_server.base.rglob("*")) == before


@pytest.mark.parametrize("name", ["..%2F..%2Fx", "%2E%2E", "a%2Fb", "a%00b", "x" * 3000])
def test_names_in_paths_are_only_names(memory: StoreServer, name: str) -> None:
    answer = memory.request("GET", f"/v1/memory/indexes/{name}")
    assert answer.status_code in {400, 404}
    assert answer.json()["kind"] in {"NotFound", "Terminal"}


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("fetch", {"ids": ["x"] * 10_001}),
        ("fetch", {"ids": "x"}),
        ("fetch", {"ids": ["x"], "vectors": 1}),
        ("scroll", {"page": 0}),
        ("scroll", {"page": 10**9}),
        ("scroll", {"page": True}),
        ("delete", {}),
    ],
)
def test_questions_of_another_form_are_refused(memory: StoreServer, action: str, body: dict[str, object]) -> None:
    answer = memory.request("POST", f"/v1/memory/indexes/docs/{action}", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


@pytest.mark.parametrize("top_k", [0, -1, 10_001, 2**40, True, "5", None])
def test_a_query_asks_for_a_number_of_matches(memory: StoreServer, top_k: object) -> None:
    body = encode_frame({"top_k": top_k}, np.ones((1, DIMENSION), np.float32))
    answer = memory.request("POST", "/v1/memory/indexes/docs/query", content=body)
    assert (answer.status_code, answer.json()["kind"]) == (400, "Terminal")


async def test_numbers_that_json_cannot_hold_are_refused_here(memory: StoreServer) -> None:
    async with connect(memory, "memory") as store:
        with pytest.raises(Terminal) as refused:
            await store.count("docs", Eq("a", float("inf")))
        assert refused.value.reason == "UnsupportedFilter"
        with pytest.raises(Terminal):
            await store.count("docs", Eq("a", 10**30))
        with pytest.raises(Terminal):
            await store.create_index(IndexDefinition("x", DIMENSION, "\ud800"))


async def test_a_name_that_none_can_have_is_not_found_without_asking(memory: StoreServer) -> None:
    async with connect(memory, "memory", settings={"server": "http://127.0.0.1:1"}) as store:
        for name in ("../../healthz", "a/b", "", "..", "a?b", "a#b"):
            with pytest.raises(NotFound):
                await store.describe_index(name)


def test_requests_that_are_not_of_the_protocol_are_told_so(memory: StoreServer) -> None:
    for method, path in (("GET", "/v1/memory/nothing"), ("POST", "/v1/memory/probe"), ("GET", "/v2/memory/probe")):
        answer = memory.request(method, path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "BadRequest")
    assert memory.request("GET", "/v1/chroma/indexes").json()["reason"] == "UnknownStore"
    assert memory.request("GET", "/v1/memory/indexes", params={"folder": "x"}).json()["reason"] == "UnknownStore"
