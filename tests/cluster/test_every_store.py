"""One whole life through the operator, in every store: the same manifests, another provider block.

VectorStore Ready with its capabilities; VectorIndex made, marked and Ready; an IngestionJob fills it, a second run
changes nothing, a changed source replaces and deletes; the index has no drift; the confirmed deletion drops it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from tests.contract.providers import PROVIDERS, Provider
from tests.support.vectorwright import Body, Resources, condition

from vectorwright.stores.base import IndexDescription, Record, Store
from vectorwright.stores.registry import Connection, open_store

pytestmark = [pytest.mark.cluster, pytest.mark.server]
T = TypeVar("T")
KEYS = ("token", "username", "password")


@pytest.fixture(params=list(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> Provider:
    return PROVIDERS[request.param](request)


def with_store(connection: Connection, act: Callable[[Store], Awaitable[T]]) -> T:
    """What ``act`` gives on the store that the resources describe."""

    async def run() -> T:
        async with open_store(connection) as store:
            await store.probe()
            return await act(store)

    return asyncio.run(run())


async def records_of(store: Store, index: str) -> list[Record]:
    """Everything in an index."""
    return [record async for page in store.scroll(index) for record in page]


def documents(*texts: str) -> Body:
    """A source of one document a text."""
    return {"inline": {"documents": [{"id": f"d{n}.md", "text": text} for n, text in enumerate(texts)]}}


def made_ready(resources: Resources, provider: Provider) -> tuple[Body, Connection]:
    """The VectorStore, Ready, and a connection to what it describes. Store servers run beside the operator here."""
    connection = provider.connection()
    block = dict(connection.settings)
    spec: Body = {connection.provider: block, "probeInterval": "1s"}
    local = "server" in block
    if local:
        spec[connection.provider] = {"local": True} if connection.provider == "memory" else {"path": "life"}
    given = {key: value for key in KEYS if (value := getattr(connection.credentials, key))}
    if given and not local:
        resources.secret("key", **given)
        spec["controlCredentials"] = {"name": "key"}
    resources.create("VectorStore", "store", spec)
    body = resources.wait_ready("VectorStore", "store")
    if local:
        settings = {**spec[connection.provider], "server": body["status"]["endpoint"]}
        connection = Connection(connection.provider, settings)
    return body, connection


def test_a_whole_life(resources: Resources, provider: Provider) -> None:
    store, connection = made_ready(resources, provider)
    assert store["status"]["provider"] == connection.provider
    assert "cosine" in store["status"]["capabilities"]["metrics"]
    resources.create("EmbeddingModel", "model", {"local": {"model": "wordllama"}})
    spec: Body = {
        "storeRef": {"name": "store"},
        "indexName": f"life{secrets.token_hex(4)}",
        "embeddingModelRef": {"name": "model"},
        "metadataFields": [{"name": "heading", "type": "keyword"}],
        "deletionPolicy": "Delete",
    }
    resources.create("VectorIndex", "docs", spec)
    index = resources.wait_ready("VectorIndex", "docs", timeout=120)
    assert (index["status"]["dimension"], index["status"]["metric"]) == (256, "cosine")
    physical = index["status"]["physicalName"]

    async def describe(opened: Store) -> IndexDescription:
        return await opened.describe_index(physical)

    found = with_store(connection, describe)
    if store["status"]["capabilities"].get("aliases"):
        assert found.name != index["status"]["indexName"]
    assert found.mark is not None
    assert (found.mark.namespace, found.mark.name) == (resources.namespace, "docs")
    assert found.incarnation == index["status"]["incarnation"]

    texts = ["# Cats\n\nA cat is a small carnivore.", "# Ships\n\nA ship floats.", "# Stars\n\nA star burns hydrogen."]
    job = {
        "indexRef": {"name": "docs"},
        "source": documents(*texts),
        "runner": {"type": "InProcess"},
        "sync": {"mode": "Sync", "maxDeletePercent": 100},
    }
    resources.create("IngestionJob", "fill", job)
    first = resources.wait_phase("fill", "Succeeded", "Failed", "Unverified", "SucceededWithErrors")
    assert first["status"]["phase"] == "Succeeded", first["status"]
    assert first["status"]["counts"]["vectorsWritten"] == 3

    resources.annotate("IngestionJob", "fill", run_requested_at="again")
    again = resources.wait(
        "IngestionJob",
        "fill",
        lambda body: (
            body["status"].get("handledRequest") == "again"
            and "run" not in body["status"]
            and body["status"]["phase"] != "Pending"
        ),
    )
    assert again["status"]["phase"] == "Succeeded"
    assert again["status"]["counts"].get("vectorsWritten", 0) == 0

    resources.patch("IngestionJob", "fill", {"spec": {"source": documents(texts[0], "# Boats\n\nA boat floats.")}})
    resources.wait(
        "IngestionJob",
        "fill",
        lambda body: (
            body["status"].get("observedGeneration") == body["metadata"]["generation"]
            and body["status"]["phase"] == "Succeeded"
            and body["status"]["counts"].get("vectorsDeleted", 0) == 2
            and "run" not in body["status"]
        ),
    )
    held = with_store(connection, lambda opened: records_of(opened, physical))
    assert sorted(str(record.text) for record in held) == sorted(["# Boats\n\nA boat floats.", texts[0]])
    assert all(record.metadata["vw_source"] == f"{resources.namespace}/fill" for record in held)
    settled = resources.wait_ready("VectorIndex", "docs")
    assert condition(settled, "Synced")["status"] == "True"
    assert settled["status"]["driftedFields"] == 0

    resources.delete("IngestionJob", "fill")
    resources.wait_gone("IngestionJob", "fill")
    resources.delete("VectorIndex", "docs")
    resources.wait_condition("VectorIndex", "docs", "Ready", "False", "DeletionNeedsConfirmation")
    resources.annotate("VectorIndex", "docs", confirm_delete=physical)
    resources.wait_gone("VectorIndex", "docs")
    assert physical not in [one.name for one in with_store(connection, lambda opened: opened.list_indexes())]
